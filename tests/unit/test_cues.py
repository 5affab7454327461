"""Cues of frames: real estimators, with random weights where they are networks; their store, crops and degrading."""

import json
import subprocess
import sys
import time

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
from lib.model.cues.store import INDEX, check_target, identify, open_cues, state_of
from lib.model.cues.writer import CueWriter
from lib.video.io.source import VideoSource

SAMPLE = ROOT / "demo" / "video" / "sample_video.mp4"
SMALL, LARGE = "raft_small_C_T_V2-01064c6d.pth", "raft_large_C_T_SKHT_V2-ff5fadd5.pth"
VIDEO = {"name": "a.mp4", "bytes": 3, "sha256": "00"}
DIS = {"name": "dis", "max_side": 512}


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


def test_without_weights_and_network_a_line_says_what_to_fetch(tmp_path):
    """The libraries' caches are empty, and addresses lead to a proxy that is not there."""
    away = {"TORCH_HOME": str(tmp_path), "HF_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    raft, depth = refusals(*NETWORKS, **away)
    assert raft.startswith("raft_small: its weights cannot be fetched (no connection: ")
    assert (
        f"download https://download.pytorch.org/models/{SMALL} and give the file or its folder with --weights" in raft
    )
    assert depth.startswith("depth_anything_v2_small: its weights cannot be fetched (no connection: ")
    page = "https://huggingface.co/depth-anything/Depth-Anything-V2-Small-hf/tree/main"
    assert f"download config.json and model.safetensors of {page} into a folder" in depth


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


def test_normalised_depth_where_most_is_one_plane_or_all_is():
    inverse = torch.zeros(2, 20, 30)
    inverse[0, :5, :10] = 2.0
    depth = normalised(inverse)
    assert float(depth[0].max()) == pytest.approx(2 / (0.5 * float(inverse[0].mean())), rel=1e-4) and not depth[1].any()
    check_normal(normalised(torch.rand(3, 20, 30) * 5 + 2))
    torch.testing.assert_close(normalised(inverse * 7 + 3), depth, rtol=1e-4, atol=1e-4)


# The store


def maps(count, first=0):
    return np.arange(first, first + count, dtype=np.float32)[:, None, None, None] + np.zeros(
        (count, 2, 4, 6), np.float32
    )


def writer(folder, **changes):
    made = {"cue": "flow", "video": VIDEO, "frame": (12, 8), "shape": (2, 4, 6), "settings": DIS} | changes
    return CueWriter(folder, **made)


def written(folder, count=5):
    with writer(folder) as growing:
        growing.add(maps(count))
        growing.finish()
    return folder


def test_a_store_keeps_maps_and_what_they_are_of(tmp_path):
    cues = open_cues(written(tmp_path / "s"))
    assert cues.video == VIDEO and cues.frame == (12, 8) and cues.estimators == {"flow": DIS}
    assert cues.arrays["flow"].dtype == np.float16 and cues.arrays["flow"].shape == (5, 2, 4, 6)
    np.testing.assert_array_equal(cues.arrays["flow"][3], maps(1, 3)[0])
    np.testing.assert_array_equal(np.load(tmp_path / "s" / "flow.npy"), maps(5))
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["flow.npy", INDEX]
    with writer(tmp_path / "s", cue="depth", shape=(4, 6)) as growing:
        growing.add(np.full((5, 4, 6), 1e6))
        growing.finish()
    cues = open_cues(tmp_path / "s")
    assert list(cues.arrays) == ["flow", "depth"] and cues.arrays["depth"][4, 0, 0] == 65504


def test_writing_goes_on_after_what_was_saved_and_forgets_the_rest(tmp_path):
    with writer(tmp_path) as growing:
        growing.add(maps(3))
    with open(tmp_path / ".flow.unfinished.npy", "ab") as handle:
        handle.write(b"half of a map")
    with writer(tmp_path) as growing:
        assert growing.frames == 3 and growing.last[0, 0, 0] == 2
        growing.add(maps(2, 3))
        growing.finish()
    np.testing.assert_array_equal(np.load(tmp_path / "flow.npy"), maps(5))


def test_what_is_left_of_other_settings_or_damaged_is_not_gone_on_with(tmp_path, caplog):
    for damage in (False, True):
        with writer(tmp_path) as growing:
            growing.add(maps(3))
        if damage:
            data = bytearray((tmp_path / ".flow.unfinished.npy").read_bytes())
            data[-5] ^= 1
            (tmp_path / ".flow.unfinished.npy").write_bytes(data)
        with writer(tmp_path, **({} if damage else {"settings": DIS | {"max_side": 99}})) as growing:
            assert growing.frames == 0 and growing.last is None
    assert caplog.text.count("is damaged (its checksum is wrong); flow is made from its start") == 1


def test_a_process_that_ends_between_index_and_array_has_lost_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("lib.model.cues.writer.os.replace", stop_at("flow.npy"))
        with pytest.raises(KeyboardInterrupt), writer(tmp_path) as growing:
            growing.add(maps(5))
            growing.finish()
    assert "is gone" in state_of(tmp_path, "flow", DIS)
    with writer(tmp_path) as growing:
        assert growing.frames == 5
        growing.finish()
    assert state_of(tmp_path, "flow", DIS) is None


def stop_at(name):
    import os

    replace = os.replace

    def stopping(source, target):
        if str(target).endswith(name):
            raise KeyboardInterrupt
        replace(source, target)

    return stopping


def test_damage_to_a_store_is_named(tmp_path):
    store = written(tmp_path / "s")
    assert state_of(store, "flow", DIS) is None and state_of(store, "depth", DIS) == ""
    assert "made by dis with other settings" in state_of(store, "flow", DIS | {"max_side": 9})
    file, index = store / "flow.npy", store / INDEX
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    assert f"{file} has changed" in state_of(store, "flow", DIS)
    file.write_bytes(whole[:200])
    fails(f"flow.npy: is truncated; remove {store} and make the cues again", open_cues, store)
    file.unlink()
    fails("flow.npy: no such file; remove", open_cues, store)
    good = index.read_text()
    for text, match in (
        (good.replace('"version": 1', '"version": 2'), "has version 2, this project reads 1"),
        ("{", "is damaged or no index of cues"),
        ('{"format": "pose-store", "version": 1}', "no index of cues .format is 'pose-store'"),
        (good.replace('"shape"', '"shap"'), "is damaged or no index of cues"),
    ):
        index.write_text(text)
        fails(match, open_cues, store)
        fails(match, check_target, store, VIDEO)
    fails("index.json: no such file; tools/extract_cues.py writes it", open_cues, tmp_path)


def test_a_store_of_another_video_is_not_replaced(tmp_path):
    store = written(tmp_path / "s")
    check_target(store, VIDEO)
    check_target(tmp_path / "new", VIDEO)
    fails("holds cues of another video, a.mp4, or of an earlier one", check_target, store, identify(SAMPLE))
    assert identify(SAMPLE)["bytes"] == SAMPLE.stat().st_size


# Crops


def linear(width, height, frame=None):
    """(2, height, width): x and y of each pixel's centre, px of the frame."""
    frame = frame or (width, height)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x * frame[0] / width, y * frame[1] / height])


def test_a_crop_shows_the_flow_of_its_places_in_its_own_px():
    box = torch.tensor([[10.0, 8.0, 42.0, 72.0], [20.0, 30.0, 36.0, 46.0]])
    flow, depth = crop_cues(linear(80, 90), None, box, (16, 24))
    assert flow.shape == (2, 2, 24, 16) and depth is None
    for one, (x0, y0, x1, y1) in zip(flow, box.tolist()):
        x = x0 + (x1 - x0) * (np.arange(16) + 0.5) / 16
        y = y0 + (y1 - y0) * (np.arange(24) + 0.5) / 24
        np.testing.assert_allclose(one[0], np.tile(x * 16 / (x1 - x0), (24, 1)), rtol=1e-4)
        np.testing.assert_allclose(one[1], np.tile(y * 24 / (y1 - y0), (16, 1)).T, rtol=1e-4)
    single, _ = crop_cues(linear(80, 90).numpy(), None, box[0].numpy(), (16, 24))
    torch.testing.assert_close(single, flow[0])


def test_maps_may_be_smaller_than_the_frame_of_box_and_flow():
    flow, depth = crop_cues(linear(40, 45, (80, 90)), linear(40, 45)[0], [10, 8, 42, 72], (16, 24), frame=(80, 90))
    expected, expected_depth = crop_cues(linear(80, 90), linear(80, 90)[0], [10, 8, 42, 72], (16, 24))
    torch.testing.assert_close(flow, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(depth, expected_depth, rtol=1e-3, atol=1e-3)


def test_depth_is_normalised_over_what_of_the_crop_is_in_the_frame():
    inverse = torch.rand(60, 80) * 9
    flow, depth = crop_cues(torch.ones(2, 60, 80), 3 * inverse + 5, [-40, 0, 40, 60], (80, 60))
    assert depth.shape == (1, 60, 80) and not depth[..., :40].any() and not flow[..., :40].any()
    torch.testing.assert_close(depth[0, :, 40:], normalised(inverse[:, :40]), rtol=1e-3, atol=1e-3)
    assert (flow[..., 40:] - 1).abs().max() < 1e-4
    nowhere = crop_cues(None, inverse, [200, 200, 300, 300], (8, 8))[1]
    assert not nowhere.any()
    with pytest.raises(ValueError, match="boxes: expected x0 < x1"):
        crop_cues(None, inverse, [3, 4, 3, 9], (8, 8))


# Degrading


def scene(count=64):
    """Exact cues of a person, a rectangle 3 MADs nearer than a slope, that moves by (6, -2) px."""
    depth = torch.linspace(-1, 1, 128)[:, None].repeat(count, 1, 1, 96)
    depth[..., 30:110, 30:66] = 3.0
    flow = torch.zeros(count, 2, 128, 96)
    flow[:, :, 30:110, 30:66] = torch.tensor([6.0, -2.0])[:, None, None]
    return depth, flow


def test_degraded_depth_keeps_what_is_near_and_loses_edges():
    torch.manual_seed(0)
    exact, _ = scene()
    depth = degrade_depth(exact)
    assert depth.shape == exact.shape and depth.isfinite().all()
    person, ground = depth[:, 0, 60:80, 40:56].flatten(1), depth[:, 0, 60:80, 4:16].flatten(1)
    nearer = (person.median(1).values - ground.median(1).values) > 0.8  # nearly always: a hole may hide one of them
    assert 0.75 < nearer.float().mean()
    steps = depth[:, 0, 70].diff(dim=1).abs().amax(1)
    assert steps.median() < 1.6 and exact[0, 0, 70].diff().abs().max() > 2.8
    shift = depth.flatten(1).median(1).values
    assert 0.15 < shift.std() < 1.0
    holes = (depth[:, 0] == 0).flatten(1).float().mean(1)
    assert 0.2 < (holes > 0).float().mean() < 0.8 and holes.max() < 0.2


def test_degraded_depth_is_a_monotone_function_of_the_exact_one():
    torch.manual_seed(0)
    ramp = torch.linspace(-2, 3, 96).repeat(32, 1, 128, 1)
    depth = degrade_depth(ramp)[:, 0, 64]
    rising = depth.diff(dim=1)
    whole = (depth != 0).all(1)
    assert whole.sum() > 5 and (rising[whole] > -1e-4).all()
    bent = depth[whole]
    straightness = (bent[:, 48] - bent[:, 8]) / (bent[:, 88] - bent[:, 48])
    assert straightness.min() < 0.8 and straightness.max() > 1.25


def test_degraded_flow_falls_short_and_bleeds_over_edges():
    torch.manual_seed(0)
    _, exact = scene()
    flow = degrade_flow(exact)
    assert flow.shape == exact.shape and flow.isfinite().all()
    inside = flow[:, :, 60:80, 44:52].mean((2, 3)) / torch.tensor([6.0, -2.0])
    assert 0.8 < inside[:, 0].mean() < 1.0 and 0.05 < inside[:, 0].std() < 0.3
    assert 0.03 < flow[:, :, :20].std() < 1.0  # noise where nothing moves
    beyond = flow[:, 0, 70, 66:70].mean() + flow[:, 0, 70, 26:30].mean()
    within = (6 - flow[:, 0, 70, 62:66]).mean() + (6 - flow[:, 0, 70, 30:34]).mean()
    assert beyond > within - 2 * (6 - flow[:, 0, 70, 44:52]).mean()  # edges lie further out, not in


@pytest.mark.parametrize("degrade, channels", [(degrade_depth, 1), (degrade_flow, 2)])
def test_degrading_follows_the_global_generator_takes_odd_sizes_and_is_quick(degrade, channels):
    exact = torch.randn(3, channels, 37, 51)
    torch.manual_seed(1)
    one = degrade(exact)
    assert one.shape == exact.shape and not torch.equal(one, degrade(exact))
    torch.manual_seed(1)
    assert torch.equal(one, degrade(exact))
    batch, spent = torch.randn(32, channels, 128, 96), []
    for _ in range(12):
        began = time.thread_time()
        degrade(batch)
        spent.append(time.thread_time() - began)
    assert min(spent) < 0.03  # s; some 5 ms on a quiet machine


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
