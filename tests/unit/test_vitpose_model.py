"""ViTPose beside MambaPose: as large, called alike, transformers' own where that can be said, refusals by name."""

import subprocess
import sys

import pytest
import torch
from conftest import ROOT, relative_error
from test_mambapose_model import kept_numbers

from lib.config import load_config
from lib.errors import UserError
from lib.model import MambaPose, open_model
from lib.model.facts import parameters_of
from lib.model.registry import build_model, model_of
from lib.model.vitpose.sizes import ATTENTIONS, DECODERS, SIZES

transformers = pytest.importorskip("transformers")

from lib.model.vitpose.network import ViTPose  # noqa: E402


def network(size="nano", **options):
    torch.manual_seed(0)
    return ViTPose(size, **options)


def images(batch=2, height=64, width=48):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def config(*overrides):
    return load_config(overrides=["backbone=ViTPose", "size=nano", "streams=rgb", *overrides])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("head", ["2d", "3d"])
def test_as_many_parameters_as_mambapose(size, head):
    with torch.device("meta"):
        ours, theirs = (parameters_of(model) for model in (MambaPose(size, head, streams=["rgb"]), ViTPose(size, head)))
    assert abs(theirs / ours - 1) < 0.05


@torch.no_grad()
def test_it_is_transformers_own_network():
    for size in ("nano", "small"):
        model, images_ = network(size).eval(), images(1, 256, 192)
        own = {"hidden_size": SIZES[size].channels, "num_attention_heads": SIZES[size].heads}
        blocks = {"num_hidden_layers": SIZES[size].blocks, "out_indices": [SIZES[size].blocks]}
        backbone = transformers.VitPoseBackboneConfig(image_size=(256, 192), patch_size=(16, 16), **own, **blocks)
        simple = {"use_simple_decoder": size == "nano"}
        theirs = transformers.VitPoseForPoseEstimation(
            transformers.VitPoseConfig(backbone_config=backbone, num_labels=17, **simple)
        ).eval()
        theirs.backbone.load_state_dict(model.backbone.state_dict())
        theirs.head.load_state_dict(model.decoder.state_dict())
        torch.testing.assert_close(model(images_), theirs((images_ - 0.5) / 0.25).heatmaps)


@pytest.mark.parametrize("decoder", DECODERS)
@torch.no_grad()
def test_any_size_that_16_divides(decoder):
    model = network(decoder=decoder).eval()
    for height, width in [(16, 16), (128, 96), (256, 192), (48, 112)]:
        assert model(images(1, height, width)).shape == (1, 17, height // 4, width // 4)


@torch.no_grad()
def test_joints_in_space():
    model = network(head="3d", joints=5)
    assert model(images()).shape == (2, 5, 3)
    pose, heatmaps = model(images(), None, None, True)
    assert pose.shape == (2, 5, 3) and heatmaps.shape == (2, 5, 16, 12)


def gradients(model):
    y = model(images())
    (y * torch.linspace(-1, 1, y.numel()).cos().view(y.shape)).sum().backward()
    return {"y": y, **{name: p.grad for name, p in model.named_parameters()}}


@pytest.mark.parametrize("options", [{"attention": "eager"}, {"recompute": True}])
def test_attention_and_recomputation_change_no_figure(options):
    expected, found = gradients(network().train()), gradients(network(**options).train())
    scale = max(g.detach().norm() for g in expected.values())
    for name, value in expected.items():
        assert relative_error(found[name], value) < 1e-4 or value.norm() < 1e-5 * scale, name


def test_recomputation_keeps_less():
    recomputed, kept = (kept_numbers(network(recompute=r).train()) for r in (True, False))
    assert recomputed < 0.4 * kept


def test_the_attention_is_the_one_asked_for():
    for attention in ATTENTIONS:
        assert network(attention=attention).backbone.config._attn_implementation == attention


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("head", ["2d", "3d"])
def test_shapes_of_parameters_tell_the_config(size, head):
    asked = config(f"size={size}", f"head={head}", "attention=eager")
    with torch.device("meta"):
        parameters = build_model(asked).state_dict()
    told = model_of("ViTPose").config_of(parameters)
    assert told == {key: getattr(asked, key) for key in told} and {"size", "head", "streams"} <= set(told)


def test_a_file_is_opened_again(tmp_path):
    asked = config("head=3d")
    model = build_model(asked).eval()
    torch.save({"model_pos": model.state_dict(), "config": asked.model_dump()}, tmp_path / "best_epoch.bin")
    with torch.no_grad():
        assert torch.equal(open_model(tmp_path / "best_epoch.bin").model(images()), model(images()))
    with pytest.raises(UserError, match="is not a MambaPose checkpoint"):
        open_model(tmp_path / "best_epoch.bin", overrides=["backbone=MambaPose"])


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["streams=rgb+flow"], "streams: rgb+flow: ViTPose sees images alone; set streams: rgb"),
        (["frames=3"], "frames: 3: ViTPose sees each image alone; set frames: 1"),
    ],
)
def test_what_it_cannot_do_is_refused(overrides, message):
    with pytest.raises(UserError) as refused:
        build_model(config(*overrides))
    assert str(refused.value) == message
    with pytest.raises(UserError, match="depth: the network sees rgb only; leave it out"):
        network()(images(), depth=images()[:, :1])


@pytest.mark.parametrize("head", ["2d", "3d"])
def test_its_recipe_is_mambaposes(head):
    ours, theirs = (
        load_config(ROOT / f"configs/mambapose/{name}_nano_{head}.yaml") for name in ("MambaPose", "ViTPose")
    )
    own = {"backbone": "ViTPose", "streams": "rgb", "recompute": False}
    assert theirs == ours.model_copy(update=own)


def test_a_missing_package_is_one_line():
    program = """
import sys
sys.modules["transformers"] = None
from lib.cli import run
from lib.config import load_config
from lib.model.registry import build_model
run(lambda: build_model(load_config(overrides=["backbone=ViTPose", "streams=rgb"])))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr == (
        "error: backbone ViTPose needs the package transformers, which is not installed: "
        "pip install -r requirements-mambapose.txt\n"
    )
