"""Models as folders of the hub's kind, and back: real files, and a folder that stands for a repository."""

import json

import pytest
import torch
from commands_here import run_here
from conftest import PARITY
from safetensors.torch import save_file

from lib.config import validate
from lib.errors import UserError
from lib.model import MambaPose, PoseMamba, open_model
from lib.model.opening import config_of
from lib.model.registry import MODELS, build_model
from lib.model.weights import read_checkpoint, read_weights

PUBLISHED = PARITY / "reference_checkpoint.bin"  # of 2 pairs of blocks, 27 frames
SMALL = {
    "PoseMamba": {"maxlen": 9, "clip_len": 9, "dim_feat": 16, "depth": 1, "scan": "v2_fs_bt"},
    "DSTformer": {"maxlen": 9, "clip_len": 9, "dim_feat": 16, "depth": 1, "num_heads": 2, "dim_rep": 8},
    "MotionAGFormer": {"maxlen": 9, "clip_len": 9, "dim_feat": 16, "depth": 1, "num_heads": 2},
    "MambaPose": {"size": "nano", "encoder": "vim", "streams": "rgb+flow", "dataset": "rendered"},
    "ViTPose": {"size": "nano", "streams": "rgb", "dataset": "rendered"},
}


def equal(one, two):
    parameters = two.state_dict()
    return one.state_dict().keys() == parameters.keys() and all(
        value.equal(parameters[name]) for name, value in one.state_dict().items()
    )


def test_every_model_is_here():
    assert SMALL.keys() == MODELS.keys()


@pytest.mark.parametrize("name", SMALL)
def test_saved_and_read_again(name, tmp_path):
    if name == "ViTPose":
        pytest.importorskip("transformers")
    model = build_model(validate({"backbone": name, **SMALL[name]})).eval()
    model.save_pretrained(tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert json.loads((tmp_path / "model" / "config.json").read_text())["backbone"] == name
    for source in ("model", "model/model.safetensors"):
        again = type(model).from_pretrained(tmp_path / source)
        assert type(again) is type(model) and equal(again, model) and not again.training
    config = config_of(read_weights(tmp_path / "model" / "model.safetensors"))
    assert {key: getattr(config, key) for key in SMALL[name] if key != "dataset"} == {
        key: value for key, value in SMALL[name].items() if key != "dataset"
    }


def test_a_published_file_is_read_and_its_scan_order_said(tmp_path):
    plain = PoseMamba.from_pretrained(PUBLISHED, scan="v2")
    limbs = PoseMamba.from_pretrained(PUBLISHED)
    x = torch.randn(1, 27, 17, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert equal(plain, limbs) and not torch.allclose(plain(x), limbs(x))
        plain.save_pretrained(tmp_path)
        assert torch.equal(PoseMamba.from_pretrained(tmp_path)(x), plain(x))


def test_both_ways_by_the_tool(tmp_path):
    there = run_here("tools.convert_checkpoint", PUBLISHED, "--out", tmp_path / "model", "scan=v2")
    assert there.returncode == 0 and "PoseMamba" in there.stdout, there.stderr
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["scan"], config["dim_feat"], config["depth"], config["maxlen"]) == ("v2", 32, 2, 27)
    back = run_here("tools.convert_checkpoint", tmp_path / "model", "--out", tmp_path / "again.bin")
    assert back.returncode == 0, back.stderr
    content = torch.load(tmp_path / "again.bin", weights_only=True)
    assert {"epoch", "lr", "optimizer", "model_pos", "min_loss"} <= content.keys() and content["epoch"] == 3
    before, after = read_checkpoint(PUBLISHED), read_checkpoint(tmp_path / "again.bin")
    assert all(value.equal(after.model[name]) for name, value in before.model.items())
    assert open_model(tmp_path / "again.bin").config.scan == "v2"


def test_config_json_beside_weights_without_metadata(tmp_path):
    model = PoseMamba(num_frame=9, embed_dim_ratio=16, depth=1)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"backbone": "PoseMamba", "scan": "v2"}))
    assert open_model(tmp_path / "model.safetensors").config.scan == "v2"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nothing.bin", "--out", "model"], "nothing.bin: no such file"),
        ([PUBLISHED, "--out", "other.bin"], "--out: other.bin: expected a folder"),
        ([".", "--out", "model"], "--out: model: expected a file that ends in .bin"),
        ([".", "--out", "model.bin"], "model.safetensors: no such file"),
        ([PUBLISHED, "--out", "model", "scan=v9"], "scan: 'v9' is unknown"),
    ],
)
def test_what_cannot_be_converted_is_one_line(tmp_path, arguments, message):
    done = run_here("tools.convert_checkpoint", *arguments, folder=tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: ") and message in line
    assert not list(tmp_path.iterdir())


def test_another_model_is_named(tmp_path):
    with pytest.raises(UserError, match="reference_checkpoint.bin: is a PoseMamba, not a MambaPose"):
        MambaPose.from_pretrained(PUBLISHED)
    with pytest.raises(UserError, match="save_pretrained and tools/convert_checkpoint.py write such folders"):
        PoseMamba.from_pretrained(tmp_path)
