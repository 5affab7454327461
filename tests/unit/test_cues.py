"""Estimators of cues: the real classes, with random weights where they are networks."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file

from lib.errors import UserError
from lib.model.cues.crop import crop_cues
from lib.model.cues.degrade import degrade_depth, degrade_flow
from lib.model.cues.estimator import with_last
from lib.model.cues.normalise import normalised
from lib.model.cues.registry import CUES, DEPTH_MODELS, open_estimator
from lib.video.io.source import VideoSource

SAMPLE = ROOT / "demo" / "video" / "sample_video.mp4"
SMALL, LARGE = "raft_small_C_T_V2-01064c6d.pth", "raft_large_C_T_SKHT_V2-ff5fadd5.pth"


def fails(match, call, *arguments, **options):
    """The call ends with one line that matches."""
    with pytest.raises(UserError, match=match) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


def textured(width, height, shift=(0, 0), grain=6):
    """(height, width, 3) uint8: smooth noise, moved by `shift` px."""
    noise = np.random.default_rng(0).integers(0, 256, (height // grain + 8, width // grain + 8), np.uint8)
    place = np.array([[grain, 0, shift[0] - 3 * grain], [0, grain, shift[1] - 3 * grain]], np.float32)
    grey = cv2.warpAffine(noise, place, (width, height), flags=cv2.INTER_CUBIC)
    return np.repeat(grey[..., None], 3, axis=2)


def frames(count=4, width=160, height=128):
    return [textured(width, height, (2 * n, n)) for n in range(count)]


# The registry


def test_names_are_known_and_read_without_what_estimators_import():
    assert set(CUES["flow"]) == {"dis", "raft_small", "raft_large"} and len(set(DEPTH_MODELS.values())) == 12
    assert (
        DEPTH_MODELS["depth_anything_v2_metric_indoor_base"] == "depth-anything/Depth-Anything-V2-Metric-Indoor-Base-hf"
    )
    fails("flow: 'raft_smal' is unknown .did you mean 'raft_small'", open_estimator, "flow", "raft_smal")
    script = (
        "import sys, lib.model.cues.registry; print({'torch', 'torchvision', 'cv2', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, capture_output=True).stdout == "set()\n"


def refusals(*attempts, before="", **environment):
    """Lines that opening estimators, pairs of a cue and a name, ends with in one new process."""
    script = f"""
import os, sys
os.environ |= {environment}
from lib.errors import UserError
from lib.model.cues.registry import open_estimator
{before}
for cue, name in {attempts}:
    try: open_estimator(cue, name)
    except UserError as error: print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, capture_output=True)
    assert run.returncode == 0 and run.stdout.count("\n") == len(attempts), run.stdout + run.stderr
    return run.stdout.splitlines()


NETWORKS = ("flow", "raft_small"), ("depth", "depth_anything_v2_small")


def test_missing_packages_are_named():
    dis, depth = refusals(
        ("flow", "dis"), NETWORKS[1], before="for name in ('cv2', 'transformers'): sys.modules[name] = None"
    )
    needs = "needs the package {}, which is not installed: pip install -r requirements-mambapose.txt"
    assert dis == f"flow by dis {needs.format('cv2')}"
    assert depth == f"depth by depth_anything_v2_small {needs.format('transformers')}"


def test_a_torchvision_of_another_torch_is_told_with_the_pair_to_install(tmp_path):
    """The package fails as a real one does, at the same call of PyTorch's."""
    package, record = tmp_path / "torchvision", tmp_path / "torchvision-0.1.0.dist-info"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import torch\n@torch.library.register_fake('torchvision::nms')\ndef f(): pass\n"
    )
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1.0\n")
    number = torch.__version__.partition("+")[0]
    for line in refusals(*NETWORKS, before=f"sys.path.insert(0, {str(tmp_path)!r})"):
        assert line.startswith(f"torchvision 0.1.0 does not match torch {torch.__version__} (operator torchvision::nms")
        assert f"pip install torch=={number} torchvision==0.{int(number.split('.')[1]) + 15}." in line


# Flow by DIS


@pytest.mark.parametrize("shift", [(3, 0), (-2.5, 4), (0.5, -1.5)])
def test_dis_finds_a_known_shift(shift):
    flow = open_estimator("flow", "dis")([textured(320, 240), textured(320, 240, shift)])
    assert flow.shape == (1, 2, 240, 320) and flow.dtype == torch.float32
    inside = flow[0, :, 20:-20, 20:-20]
    for found, true in zip(inside, shift):
        assert (found - true).abs().median() < 0.1 and (found - true).abs().quantile(0.95) < 0.5


@pytest.mark.parametrize("width, height, shift", [(1200, 500, (12, -6)), (70, 20, (1, 0)), (12, 10, (0, 0))])
def test_flow_is_px_of_the_frames_whatever_size_they_are_worked_on(width, height, shift):
    flow = open_estimator("flow", "dis", max_side=300)([textured(width, height), textured(width, height, shift)])
    assert flow.shape == (1, 2, height, width)
    middle = flow[0, :, height // 4 : -height // 4, width // 4 : -width // 4].flatten(1).median(1).values
    np.testing.assert_allclose(middle, shift, atol=0.5)


def test_dis_sees_who_walks_in_the_sample():
    source = VideoSource(SAMPLE, 512)
    shown = [image for number, _, image in source if 150 <= number < 154]
    flow = open_estimator("flow", "dis")(shown)
    woman, sky = flow[:, :, 200:260, 140:165], flow[:, :, 20:50, 60:100]  # she walks to the left
    assert flow.shape == (3, 2, 288, 512)
    assert woman[:, 0].median() < -1.5 and woman[:, 1].median().abs() < 1 and sky.norm(dim=1).median() < 0.3


def test_frames_of_different_sizes_are_named():
    odd = [*frames(2), textured(100, 80)]
    fails(r"frames 8 and 9 are of different sizes, 160 x 128 and 100 x 80 px", open_estimator("flow", "dis"), odd, 7)
    with pytest.raises(ValueError, match="expected at least one"):
        open_estimator("flow", "dis")([])


def test_the_last_frame_repeats_the_flow_before_and_the_only_frame_rests():
    dis = open_estimator("flow", "dis", batch=2)
    flow = dis(frames(4))
    assert torch.equal(with_last(flow)[:3], flow) and torch.equal(with_last(flow)[3], flow[2])
    none = dis(frames(1))
    assert none.shape == (0, 2, 128, 160)
    assert with_last(none).shape == (1, 2, 128, 160) and not with_last(none).any()
    assert torch.equal(with_last(none, flow[2])[0], flow[2])


# Flow by RAFT


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Folder of random weights, as they are published: RAFT's in files, Depth Anything's in folders."""
    transformers = pytest.importorskip("transformers")
    from torchvision.models import get_model

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save(get_model("raft_small").state_dict(), folder / SMALL)
    save_file(get_model("raft_large").state_dict(), folder / "raft_large.safetensors")
    for name, kind in {"Depth-Anything-V2-Small-hf": "relative", "Metric-Indoor-Small-hf": "metric"}.items():
        backbone = transformers.Dinov2Config(
            hidden_size=384, num_hidden_layers=4, num_attention_heads=6, image_size=518, patch_size=14,
            out_indices=[1, 2, 3, 4], reshape_hidden_states=False, apply_layernorm=True,
        )  # fmt: skip
        config = transformers.DepthAnythingConfig(
            backbone_config=backbone, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8, head_hidden_size=8,
            depth_estimation_type=kind, max_depth=20,
        )  # fmt: skip
        model = transformers.DepthAnythingForDepthEstimation(config)
        lively(model)
        model.save_pretrained(folder / name)
    (folder / "Metric-Indoor-Small-hf").rename(folder / "Depth-Anything-V2-Metric-Indoor-Small-hf")
    return folder


def lively(model):
    """Random weights of a size that lets the depth vary over the image."""
    with torch.no_grad():
        for parameter in model.neck.parameters():
            parameter.mul_(3)
        for parameter in model.head.parameters():
            parameter.normal_(std=0.5)
        model.head.conv3.bias.fill_(1.0)


def raft(weights, name="raft_small"):
    from torchvision.models import get_model

    model = get_model(name).eval()
    model.load_state_dict(torch.load(weights / SMALL))
    return model


def as_input(images):
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def test_raft_gives_what_torchvision_does_in_any_batches(weights):
    images = frames(4)
    expected = raft(weights)(as_input(images[:-1]), as_input(images[1:]), num_flow_updates=3)[-1]
    for batch in (1, 2, 8):
        flow = open_estimator("flow", "raft_small", weights=weights / SMALL, batch=batch, updates=3)(images)
        torch.testing.assert_close(flow, expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_raft_fills_small_frames_up_and_cuts_flow_back(weights):
    images = frames(2, 90, 132)
    filled = [cv2.copyMakeBorder(image, 0, 4, 0, 38, cv2.BORDER_REPLICATE) for image in images]
    expected = raft(weights)(*as_input(filled)[:, None], num_flow_updates=2)[-1][..., :132, :90]
    flow = open_estimator("flow", "raft_small", weights=weights, updates=2)(images)
    torch.testing.assert_close(flow, expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_raft_works_on_large_frames_smaller_and_says_so(weights, caplog):
    images = [cv2.resize(image, (480, 384), interpolation=cv2.INTER_NEAREST) for image in frames(2)]
    estimator = open_estimator("flow", "raft_small", weights=weights, max_side=160, updates=2)
    with caplog.at_level("INFO"):
        flow = estimator(images)
    assert "images of 480 x 384 px are worked on at 160 x 128, correlations take 1 MB a pair, 4 at once" in caplog.text
    small = raft(weights)(*as_input(frames(2))[:, None], num_flow_updates=2)[-1] * 3
    assert flow.shape == (1, 2, 384, 480)
    torch.testing.assert_close(flow[..., 1::3, 1::3], small, rtol=0.05, atol=0.05 * float(small.abs().max()))


def test_raft_large_reads_safetensors_and_is_told_apart_by_its_parameters(weights):
    large = open_estimator("flow", "raft_large", weights=weights, updates=1)
    assert large(frames(2)).shape == (1, 2, 128, 160)
    small, again = (open_estimator("flow", "raft_small", weights=weights / part) for part in ("", SMALL))
    assert small.settings() == again.settings() != large.settings()
    assert small.settings()["parameters"] != large.settings()["parameters"]


def test_weights_that_are_no_raft_are_refused(weights, tmp_path):
    def refused(match, path, name="raft_small"):
        fails(match, open_estimator, "flow", name, weights=path)

    refused(
        f"{SMALL}: .* in the model: it is no raft_large of torchvision, such as {LARGE}", weights / SMALL, "raft_large"
    )
    refused("nothing.pth: no such file", weights / "nothing.pth")
    refused(f"holds no weights of raft_small; one of {SMALL}, raft_small.pth", tmp_path)
    state = torch.load(weights / SMALL)
    torch.save({name: value for name, value in state.items() if "flow_head" not in name}, tmp_path / "raft_small.pth")
    refused(r"raft_small.pth: lacks '[\w.]*flow_head", tmp_path)
    (tmp_path / SMALL).write_bytes((weights / SMALL).read_bytes()[:100_000])
    refused(f"{SMALL}: is truncated or not a checkpoint", tmp_path)


def test_damaged_parameters_are_told_when_flow_is_not_finite(weights, tmp_path):
    state = torch.load(weights / SMALL)
    state["update_block.flow_head.conv2.bias"].fill_(torch.nan)
    torch.save(state, tmp_path / SMALL)
    estimator = open_estimator("flow", "raft_small", weights=tmp_path, updates=1)
    fails("raft_small: its flow of frames 5 to 6 is not finite; its weights are damaged", estimator, frames(2), 5)


# Depth


def check_normal(depth):
    median = depth.flatten(1).median(1).values
    torch.testing.assert_close(median, torch.zeros(len(depth)), atol=1e-4, rtol=0)
    deviation = (depth.flatten(1) - median[:, None]).abs()
    floor = 0.5 * deviation.mean(1)
    torch.testing.assert_close(deviation.median(1).values.maximum(floor), torch.ones(len(depth)), atol=1e-3, rtol=0)


def depth_of(folder, images, size):
    """What the model of a folder tells of images, at a size that is a multiple of 14."""
    from transformers import DepthAnythingForDepthEstimation

    model = DepthAnythingForDepthEstimation.from_pretrained(folder).eval()
    inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    resized = torch.nn.functional.interpolate(inputs, size, mode="bicubic", antialias=True, align_corners=False)
    with torch.no_grad():
        return model(pixel_values=(resized - mean) / std).predicted_depth


def test_depth_is_the_models_normalised(weights):
    images = frames(3, 154, 112)
    depth = open_estimator("depth", "depth_anything_v2_small", weights=weights, batch=2)(images)
    assert depth.shape == (3, 112, 154) and depth.dtype == torch.float32
    check_normal(depth)
    told = depth_of(weights / "Depth-Anything-V2-Small-hf", images, (112, 154))
    assert told.std() > 0.1
    torch.testing.assert_close(depth, normalised(told), rtol=1e-3, atol=1e-3)


def test_metric_depth_is_inverted_first(weights):
    images, name = frames(1, 154, 112), "depth_anything_v2_metric_indoor_small"
    depth = open_estimator("depth", name, weights=weights)(images)
    metres = depth_of(weights / "Depth-Anything-V2-Metric-Indoor-Small-hf", images, (112, 154))
    assert 0.1 < metres.min() < metres.max() <= 20
    torch.testing.assert_close(depth, normalised(1 / metres), rtol=1e-3, atol=1e-3)
    near, far = metres.flatten().argmin(), metres.flatten().argmax()
    assert depth.flatten()[near] > depth.flatten()[far]


@pytest.mark.parametrize("width, height, size", [(1000, 300, (518, 154)), (30, 20, (28, 14)), (518, 518, (518, 518))])
def test_depth_works_on_multiples_of_14(weights, width, height, size):
    estimator = open_estimator("depth", "depth_anything_v2_small", weights=weights)
    assert estimator.working_size(width, height) == size
    if width < 100:
        assert estimator(frames(1, width, height)).shape == (1, height, width)


def test_depth_anything_of_full_size(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = transformers.DepthAnythingForDepthEstimation(transformers.DepthAnythingConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(24.79e6, rel=1e-3)
    model.save_pretrained(tmp_path / "depth_anything_v1_small")
    estimator = open_estimator("depth", "depth_anything_v1_small", weights=tmp_path)
    assert estimator(frames(1, 70, 56)).shape == (1, 56, 70)


def test_without_weights_and_network_a_line_says_what_to_fetch(monkeypatch):
    """A repository that no cache has, of a hub that is not there; RAFT's weights are the command's test."""
    module = pytest.importorskip("lib.model.cues.depth_anything")
    monkeypatch.setattr(module, "_PAGE", "http://127.0.0.1:9")
    monkeypatch.setitem(DEPTH_MODELS, "depth_anything_v2_small", "nobody/Depth-hf")
    fails(
        r"depth_anything_v2_small: its weights cannot be fetched \(no connection: .*\); download config.json and "
        "model.safetensors of http://127.0.0.1:9/nobody/Depth-hf/tree/main into a folder and give that with --weights",
        open_estimator,
        "depth",
        "depth_anything_v2_small",
    )


def test_folders_that_are_no_depth_anything_are_refused(weights, tmp_path):
    transformers = pytest.importorskip("transformers")
    good = weights / "Depth-Anything-V2-Small-hf"

    def refused(match, path, name="depth_anything_v2_small"):
        fails(match, open_estimator, "depth", name, weights=path)

    refused(f"{weights / SMALL}: is a file, a folder is needed; it has config.json", weights / SMALL)
    refused("holds no weights of depth_anything_v2_small; the folder Depth-Anything-V2-Small-hf is needed", tmp_path)
    refused("is another model than depth_anything_v2_base: it has 384 features .* 768", good, "depth_anything_v2_base")
    metric = weights / "Depth-Anything-V2-Metric-Indoor-Small-hf"
    refused("it has 384 features and tells metric depth, 384 and relative", metric)
    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    refused("is a model of type 'vit', depth_anything_v2_small is of type 'depth_anything'", tmp_path / "vit")

    config = json.loads((good / "config.json").read_text())
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "model.safetensors").symlink_to(good / "model.safetensors")
    for change, match in {
        "num_hidden_layers": "is no complete depth_anything_v2_small: .*layer.4.* is missing",
        "mlp_ratio": "cannot be read as depth_anything_v2_small",
    }.items():
        backbone = config["backbone_config"] | {change: config["backbone_config"][change] + 1}
        (copy / "config.json").write_text(json.dumps(config | {"backbone_config": backbone}))
        refused(match, copy)
    (copy / "config.json").write_text("{")
    refused("config.json: is damaged", copy)
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "model.safetensors").unlink()
    refused("copy: cannot be read as depth_anything_v2_small", copy)
    (copy / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:9999])
    refused("copy: cannot be read as depth_anything_v2_small", copy)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_tells_what_the_cpu_does(weights):
    images, box = frames(3), torch.tensor([10.0, 8.0, 90.0, 100.0])
    for cue, name, options in (
        ("flow", "dis", {}),
        ("flow", "raft_small", {"weights": weights, "updates": 2}),
        ("depth", "depth_anything_v2_small", {"weights": weights}),
    ):
        cpu, gpu = (open_estimator(cue, name, device=device, **options)(images) for device in ("cpu", "cuda"))
        assert gpu.is_cuda
        torch.testing.assert_close(gpu.cpu(), cpu, rtol=0.02, atol=0.02)
    flow, depth = crop_cues(cpu.new_ones(2, 128, 160).cuda(), gpu[0], box, (48, 64))
    assert flow.is_cuda and depth.is_cuda
    assert degrade_flow(flow[None]).is_cuda and degrade_depth(depth[None]).is_cuda
