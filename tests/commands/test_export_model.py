"""tools/export_model.py: what is exported gives the network's numbers in ONNX Runtime, in vis.py and train.py, and in C++."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from commands_here import run_here
from conftest import PARITY, ROOT, relative_error

pytestmark = pytest.mark.skipif(not find_spec("onnxscript"), reason="no onnxscript of requirements-export.txt")

from lib.config import Config
from lib.errors import UserError
from lib.export.onnx import write_onnx
from lib.model import open_model
from lib.model.opening import Opened
from lib.model.registry import build_model
from lib.model.weights import Checkpoint
from lib.video import lift_keypoints
from tools.export_model import difference_of

WILD = ROOT / "demo/posemamba_wild.safetensors"
SMALL = {"dim_feat": 16, "depth": 1, "maxlen": 9, "clip_len": 9}


def export(*arguments):
    return run_here("tools.export_model", *arguments)


def refusal(done):
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def wild(tmp_path_factory):
    """The network that ships, as ONNX."""
    path = tmp_path_factory.mktemp("exported") / "wild.onnx"
    done = export(WILD, "--out", path)
    assert done.returncode == 0 and "poses differ by at most" in done.stdout, done.stderr
    return path


def walk():
    """Keypoints (F, 17, 3) of a person of the footage, px and confidence."""
    with np.load(ROOT / "tests/data/footage_keypoints.npz") as content:
        return next(np.asarray(content[name]) for name in content.files if content[name].shape[1:] == (17, 3))


def test_any_batch_and_length_and_no_unrolled_steps(wild):
    network, exported = open_model(WILD), open_model(wild)
    for batch, frames in ((1, 1), (1, 27), (3, 2), (2, 16)):
        x = torch.randn(batch, frames, 17, 3, generator=torch.Generator().manual_seed(frames))
        assert (exported(x) - network(x)).abs().max() < 1e-5
    import onnx

    nodes = onnx.load(wild).graph.node
    assert sum(node.op_type == "Scan" for node in nodes) == 6 and len(nodes) < 1500
    assert exported.config.scan == network.config.scan and exported.checkpoint.epoch == network.checkpoint.epoch
    with pytest.raises(ValueError, match="^x: "):
        exported(torch.zeros(1, 5, 16, 3))


def test_keypoints_are_lifted_alike(wild):
    keypoints = walk()[:60]
    size = tuple(keypoints[..., :2].max((0, 1)) + 50)
    poses, exported = (lift_keypoints(keypoints, size, weights=path) for path in (WILD, wild))
    assert np.abs(poses - exported).max() < 1e-4


def test_a_published_checkpoint_gives_the_published_numbers(tmp_path):
    with np.load(PARITY / "reference_checkpoint_io.npz") as content:
        x, y = content["x"], content["y"]
    done = export(PARITY / "reference_checkpoint.bin", "--out", tmp_path / "published.onnx", "scan=v2_plus_poselimbs")
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        found = open_model(tmp_path / "published.onnx").model(torch.from_numpy(x))
    assert relative_error(found, y) < 1e-5


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"scan": "v2_bs_bt"}, marks=pytest.mark.weekly),
        {"scan": "v2_fs_bt", "no_conf": False},
        pytest.param(
            {"backbone": "DSTformer", "dim_feat": 32, "dim_rep": 32, "num_heads": 4}, marks=pytest.mark.weekly
        ),
        {"backbone": "MotionAGFormer", "dim_feat": 32, "dim_rep": 32, "num_heads": 4},
    ],
    ids=lambda keys: "-".join(map(str, keys.values())),
)
def test_other_networks_that_lift(keys, tmp_path):
    config = Config(**SMALL | keys)
    model = build_model(config).eval()
    model.recorded = config.model_dump()
    opened = Opened(model, config, Checkpoint(path="new", model=model.state_dict()))
    write_onnx(tmp_path / "model.onnx", opened)
    assert difference_of(opened, open_model(tmp_path / "model.onnx").model) < 1e-5


def test_exported_networks_are_for_inference(wild, tmp_path):
    assert "is exported already" in refusal(export(wild, "--out", tmp_path / "again.onnx"))
    with pytest.raises(UserError, match="is exported, for inference"):
        from lib.model import PoseMamba

        PoseMamba.from_pretrained(wild)
    config = ROOT / "configs/pose3d/PoseMamba_train_h36m_S.yaml"
    pretrained = ("-p", wild.parent, "-ms", wild.name, "finetune=True")
    done = run_here("train", "--config", config, "-c", tmp_path / "run", *pretrained)
    assert "is exported, for inference; training needs the checkpoint" in refusal(done)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((WILD, "--out", "model.bin"), "--out: model.bin: expected a name that ends in .onnx or .pt2"),
        ((WILD, "--out", "model.pt2", "--int8"), "--int8: is for .onnx files"),
        (("nowhere.bin", "--out", "model.onnx"), "nowhere.bin: no such file"),
        (
            (ROOT / "demo/mambapose_nano.safetensors", "--out", "model.onnx"),
            "networks that lift keypoints are exported",
        ),
    ],
)
def test_what_cannot_be_exported_is_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refusal(export(*arguments))
    assert not list(tmp_path.iterdir())


def test_onnx_files_of_others_and_damaged_ones(wild, tmp_path):
    import onnx

    model = onnx.load(wild)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    (tmp_path / "torn.onnx").write_bytes(wild.read_bytes()[:5000])
    for name, message in (
        ("bare.onnx", "its metadata do not say which network it is; write it by tools/export_model.py"),
        ("torn.onnx", "is no ONNX model or is damaged"),
        ("none.onnx", "no such file"),
    ):
        done = run_here("vis", "--video", "sample_video.mp4", "-e", tmp_path / name, "-o", tmp_path / "out")
        assert message in refusal(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.weekly
def test_vis_and_train_take_it(wild, tmp_path):
    options = ["--video", "sample_video.mp4", "--detector", "fast", "-e", wild, "-o", tmp_path / "out"]
    done = subprocess.run([sys.executable, "vis.py", *map(str, options)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "out/viewer.html").is_file(), done.stderr
    options = ["-e", wild, "-c", tmp_path, "--no-mlflow", "--no-tensorboard"]
    done = subprocess.run([sys.executable, "train.py", *map(str, options)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "evaluation/scores.json").read_text())["PoseMamba"]["p_mpjpe"] < 60


@pytest.mark.weekly
def test_eight_bits_cost_little(wild, tmp_path):
    done = export(WILD, "--out", tmp_path / "small.onnx", "--int8")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "small.onnx").stat().st_size < 0.5 * wild.stat().st_size
    keypoints = walk()[:60]
    size = tuple(keypoints[..., :2].max((0, 1)) + 50)
    poses, exported = (lift_keypoints(keypoints, size, weights=path) for path in (WILD, tmp_path / "small.onnx"))
    assert 0 < np.linalg.norm(poses - exported, axis=-1).mean() < 0.02  # m


@pytest.mark.weekly
@pytest.mark.skipif(not (shutil.which("g++") and shutil.which("make")), reason="no g++ and make")
def test_a_program_in_cpp_without_python(tmp_path):
    done = export(WILD, "--out", tmp_path / "wild.pt2")
    assert done.returncode == 0 and "poses differ by at most" in done.stdout, done.stderr
    for folder in ("cpp", "selective_scan/csrc"):
        shutil.copytree(ROOT / "kernels/selective_scan" / folder, tmp_path / "kernel" / folder)
    build = ["make", "-C", tmp_path / "kernel/cpp", f"PYTHON={sys.executable}"]
    done = subprocess.run(list(map(str, build)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    x = torch.randn(1, 20, 17, 3, generator=torch.Generator().manual_seed(0))
    x.numpy().tofile(tmp_path / "keypoints.bin")

    def lift(*arguments):
        command = [tmp_path / "kernel/cpp/lift", *arguments]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)

    done = lift("wild.pt2", "keypoints.bin", 20, "poses.bin")
    assert done.returncode == 0 and done.stdout.startswith("20 frames in "), done.stderr
    found = np.fromfile(tmp_path / "poses.bin", np.float32).reshape(20, 17, 3)
    with torch.no_grad():
        assert np.abs(found - open_model(WILD).model(x)[0].numpy()).max() < 1e-5
    for arguments, message in (
        (("wild.pt2", "none.bin", 20, "poses.bin"), "none.bin: cannot be read"),
        (("wild.pt2", "keypoints.bin", 7, "poses.bin"), "keypoints.bin: has 1020 numbers"),
        (("none.pt2", "keypoints.bin", 20, "poses.bin"), "none.pt2: cannot be read"),
    ):
        done = lift(*arguments)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert len((ROOT / "kernels/selective_scan/cpp/lift.cpp").read_text().splitlines()) <= 60
