"""MPI-INF-3DHP through train.py: a small store, trained on and scored."""

import json

import numpy as np
import pytest
from conftest import ROOT, is_drawn
from forked import shared

from lib.config import load_config
from lib.data.convert.mpi_inf_3dhp import CAMERA_SIZES
from lib.data.datasets import open_dataset
from lib.data.datasets.mpi_inf_3dhp import STORE
from lib.data.store import Sequences, writing
from lib.errors import UserError
from lib.eval.mpi_inf_3dhp import evaluate_clips_3dhp

QUIET = ["--no-mlflow", "--no-tensorboard"]
SMALL = ["data_root=nowhere", "maxlen=9", "clip_len=9", "data_stride=4", "dim_feat=16", "depth=1", "epochs=2",
         "learning_rate=1e-3"]  # fmt: skip
CONFIG = ROOT / "configs/pose3d/PoseMamba_train_3dhp_S.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds a store of people who sway; the second half of TS6 is not valid and has no poses."""
    folder = tmp_path_factory.mktemp("3dhp")
    rng = np.random.default_rng(0)
    body = rng.normal(0, 300, (17, 3)) + (0, 0, 4000)
    with writing(folder / STORE, {"made_by": "a test"}, CAMERA_SIZES) as writer:
        for part, names, camera in (
            ("train", ["S1 Seq1 cam 0", "S1 Seq1 cam 1"], ["2048x2048"] * 2),
            ("test", ["TS1", "TS6"], ["2048x2048", "1920x1080"]),
        ):
            frames = 31
            runs = Sequences(*map(np.array, (names, camera, names)), np.arange(len(names) + 1) * frames)
            sway = np.sin(np.arange(runs.count) / 5)[:, None, None] * rng.normal(0, 50, (17, 3))
            pose = body + sway
            pixels = pose[..., :2] / pose[..., 2:] * 1500 + 1000
            valid = np.ones(runs.count, bool)
            valid[frames + 15 :] = part == "train"
            pose[~valid] = np.nan
            writer.split(part, runs)
            writer.array(part, "joint_2d", "f4", (17, 2), [pixels])
            writer.array(part, "joint_3d", "f4", (17, 3), [pose])
            writer.array(part, "valid", "?", (), [valid])
            writer.array(part, "activity", "i1", (), [np.repeat([1, 6], frames)])
    return folder


def run(folder, *arguments):
    return shared().train(folder, *QUIET, *arguments, f"dt_root={folder}")


@pytest.fixture(scope="module")
def trained(folder):
    return run(folder, "--config", CONFIG, "-c", folder / "run", *SMALL)


def test_a_run_is_scored_as_the_benchmark_does(folder, trained):
    scores = json.loads((folder / "run/scores.json").read_text())
    assert scores.keys() == {"PoseMamba", "mean_pose", "linear"}
    for found in scores.values():
        assert found["frames"] == 31 + 15
        assert set(found["per_sequence"]) == {"TS1", "TS6"}
        assert set(found["per_activity"]) == {"standing/walking", "sports"}
        assert 0 < found["mpjpe"] and 0 <= found["auc"] <= found["pck"] <= 100
    assert scores["mean_pose"]["mpjpe"] < 100  # mm: people only sway
    assert "all valid frames" in trained and "PCK at 150 mm" in trained and "wrists" in trained
    for picture in ("loss_curves.png", "per_action.png", "skeletons.png"):
        is_drawn(folder / "run" / picture)


def test_a_checkpoint_is_evaluated_by_middle_frames(folder, trained):
    result = run(folder, "--evaluate", folder / "run/best_epoch.bin", "-c", folder / "middle", "middle_frame=True")
    assert "PCK at 150 mm" in result
    scores = json.loads((folder / "middle/evaluation/scores.json").read_text())
    assert scores["PoseMamba"]["frames"] == 31 + 15


@pytest.mark.parametrize("middle", [False, True])
def test_scores_of_clips(folder, middle):
    overrides = [*SMALL, f"dt_root={folder}", f"middle_frame={middle}"]
    reader = open_dataset(load_config(CONFIG, overrides))
    _, clips = reader.get_split_id()
    truth = reader.read_3d("test", clips)
    truth -= truth[..., :1, :]
    perfect = evaluate_clips_3dhp(truth, reader)
    assert perfect.mpjpe < 1e-3 and perfect.overall.pck == 100
    off = truth.copy()
    off[..., 1:, 0] += 0.017
    found = evaluate_clips_3dhp(off, reader)
    assert found.mpjpe == pytest.approx(16, abs=1e-3)  # 17 mm at 16 of 17 joints
    assert "16.0" in found.detailed_table()
    counted = np.zeros_like(truth)
    counted[:, [4] if middle else slice(None)] = 1
    only_counted = np.where(counted, truth, truth + 1)
    assert evaluate_clips_3dhp(only_counted, reader).mpjpe < 1e-3
    if not middle:  # the last clip of 31 frames lies over the one before it: errors of a frame's poses cancel
        first, last = clips == 22, clips == 22
        first[3:], last[:3] = False, False
        assert first.sum() == last.sum() == 1
        opposite = truth.copy()
        opposite[first, 1:] += 1
        opposite[last, 1:] -= 1
        assert evaluate_clips_3dhp(opposite, reader).mpjpe < 1e-3


@pytest.mark.parametrize(
    "override, message",
    [
        ("gt_2d=True", "gt_2d: dataset 3dhp has root-relative poses in m; set gt_2d: False"),
        ("rootrel=False", "rootrel: dataset 3dhp has root-relative poses in m; set rootrel: True"),
        ("dataset=3dph", "dataset: '3dph' is unknown (did you mean '3dhp'?)"),
        ("dt_file=a.store", "/a.store: no such store; make it with tools/convert_3dhp.py, or set dt_root and dt_file"),
    ],
)
def test_wrong_settings_are_one_line(folder, override, message):
    arguments = [*QUIET, "--config", CONFIG, "-c", folder / "wrong", *SMALL, override, f"dt_root={folder}"]
    assert message in shared().refusal(folder, *arguments)


def test_middle_frame_needs_3dhp():
    with pytest.raises(UserError, match="middle_frame: is for dataset: 3dhp"):
        load_config(None, ["middle_frame=True"])
