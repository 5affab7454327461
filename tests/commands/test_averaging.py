"""An average of the weights, and Muon beside AdamW: what training keeps, and that it goes on with both."""

import pytest
import torch
from conftest import ROOT
from forked import shared

from lib.engine.optimizer_kinds import Together
from lib.engine.optimizers import OPTIMIZERS
from lib.model import PoseMamba
from lib.model.weights import read_checkpoint

SMALL = (
    "dim_feat=8", "depth=1", "maxlen=9", "clip_len=9", "data_stride=2000", "batch_size=16", "no_eval=True",
    "warmup_steps=0", "learning_rate=0.002", "motion_files=[accad17.npz]", "held_back=[accad_male1]",
)  # fmt: skip


def train(folder, *arguments, code=0):
    return shared().train(folder, "--no-mlflow", "--no-tensorboard", *arguments, code=code)


def view_run(folder, name, *overrides):
    config = ROOT / "configs" / "pose3d" / "PoseMamba_wild.yaml"
    train(folder, "--config", config, "-c", name, f"dt_root={ROOT / 'data'}", *SMALL, *overrides)
    return read_checkpoint(folder / name / "latest_epoch.bin")


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A run of two epochs with Muon and an average of the weights."""
    folder = tmp_path_factory.mktemp("averaged")
    return folder, view_run(folder, "whole", "optimizer=muon", "ema=0.9", "epochs=2")


def test_the_average_is_what_the_checkpoint_holds_as_the_model(averaged):
    _, checkpoint = averaged
    differing = [n for n, value in checkpoint.model.items() if not torch.equal(value, checkpoint.trained[n])]
    assert checkpoint.model.keys() == checkpoint.trained.keys() and len(differing) > len(checkpoint.model) / 2


def test_a_resumed_run_ends_with_the_same_weights_and_the_same_average(averaged):
    folder, whole = averaged
    view_run(folder, "half", "optimizer=muon", "ema=0.9", "epochs=1")
    train(folder, "--resume", "half/latest_epoch.bin", "epochs=2")
    resumed = read_checkpoint(folder / "half" / "latest_epoch.bin")
    for name in whole.model:
        assert torch.equal(resumed.model[name], whole.model[name]), name
        assert torch.equal(resumed.trained[name], whole.trained[name]), name


def test_a_decay_of_zero_leaves_the_trained_weights_alone(tmp_path):
    assert view_run(tmp_path, "plain", "epochs=1", "ema=0.0").trained is None


def test_muon_steps_the_matrices_of_blocks_and_adamw_the_rest():
    class Config:
        learning_rate, weight_decay = 1e-3, 0.01

    model = PoseMamba(9, 17, 3, 8, 1)
    together = OPTIMIZERS["muon"](dict(model.named_parameters()), Config)
    muon, adamw = together.parts
    matrices = {id(p) for group in muon.param_groups for p in group["params"]}
    named = {name for name, p in model.named_parameters() if id(p) in matrices}
    assert "STEblocks.0.op.in_proj.weight" in named and "TTEblocks.0.mlp.fc2.weight" in named
    assert not any("A_logs" in name or name.startswith("head") or "embed" in name for name in named)
    assert sum(len(g["params"]) for g in together.param_groups) == len(list(model.parameters()))
    head = {name: p for name, p in model.named_parameters() if name.startswith("head")}
    assert isinstance(OPTIMIZERS["muon"](head, Config), torch.optim.AdamW)
    assert isinstance(together, Together)


def test_muon_is_refused_by_a_pytorch_without_it(monkeypatch):
    from lib.errors import UserError

    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UserError, match="needs PyTorch 2.9"):
        OPTIMIZERS["muon"]({}, None)


def test_a_run_with_another_optimiser_or_average_is_not_resumed(averaged):
    folder, _ = averaged
    for override, key in (("optimizer=adamw", "optimizer"), ("ema=0.5", "ema"), ("held_back=[]", "held_back")):
        line = shared().refusal(folder, "--resume", "whole/latest_epoch.bin", override, "epochs=3")
        assert line.startswith(f"error: {key}:")
