"""train.py on rendered people: keypoints in the image and joints in space, as a user trains and scores them."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT, is_drawn
from test_train import environment, work  # noqa: F401

from lib.engine.checkpoint import LATEST
from lib.model.weights import read_checkpoint

CONFIGS = ROOT / "configs" / "mambapose"
QUIET = ["--no-mlflow", "--no-tensorboard"]
SMALL = ["batch_size=16", "epochs=2", "warmup_steps=2", "ema=0", "crop=[48, 64]"]


@pytest.fixture(scope="module")
def data(environment):  # noqa: F811
    folder = environment["cwd"] / "people.store"
    render = [sys.executable, ROOT / "tools" / "render_people.py", "--crops", "48", "--test-crops", "10"]
    subprocess.run([*render, "--size", "48x64", "--out", folder], check=True, capture_output=True, **environment)
    return [f"dt_root={folder.parent}", f"dt_file={folder.name}"]


@pytest.fixture(scope="module")
def keypoints(forks, work, data):  # noqa: F811
    """The folder of a network trained for keypoints, and what the training printed."""
    config, folder = CONFIGS / "MambaPose_nano_2d.yaml", work / "runs" / "2d"
    return folder, forks.train(work, "--config", config, "-c", folder, *data, *SMALL, *QUIET)


def test_keypoints_are_learned_scored_and_drawn(forks, data, keypoints):
    folder, printed = keypoints
    for text in ("48 crops of", "epoch 2/2", "pck_0.05", "left ankle", "mean pose", "by PCK at 5 %"):
        assert text in printed
    first, last = (entry["train/loss"] for entry in read_checkpoint(folder / LATEST).history)
    assert last < first
    for name in ("keypoints.png", "loss_curves.png"):
        is_drawn(folder / name)
    scores = json.loads((folder / "scores.json").read_text())
    assert set(scores) == {"MambaPose", "mean_pose"} and 0 < scores["mean_pose"]["pck_0.2"] <= 1
    forks.train(folder, "-e", folder / "best_epoch.bin", *data, "streams=rgb+flow+depth", *QUIET)
    assert json.loads((folder / "evaluation" / "scores.json").read_text()) == scores


@pytest.mark.weekly
def test_joints_in_space_are_learned_and_a_stopped_run_goes_on(forks, tmp_path, data):
    config, folder = CONFIGS / "MambaPose_nano_3d.yaml", tmp_path / "3d"
    start = ["--config", config, "-c", folder, *data, *SMALL, "streams=rgb+depth", *QUIET]
    forks.train(tmp_path, *start[:4], *[text if text != "epochs=2" else "epochs=1" for text in start[4:]])
    printed = forks.train(tmp_path, "--resume", folder, *data, "epochs=2", *QUIET)
    assert "goes on from" in printed and "P1 (" not in printed and "arms" in printed and "mm" in printed
    history = read_checkpoint(folder / LATEST).history
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert history[1]["train/loss"] < history[0]["train/loss"]
    assert {"train/joints", "train/limbs", "train/heatmaps", "test/mpjpe", "test/p_mpjpe"} <= set(history[0])
    whole = tmp_path / "whole"
    forks.train(tmp_path, *start[:3], whole, *start[4:])
    for name, value in read_checkpoint(whole / LATEST).model.items():
        assert value.equal(read_checkpoint(folder / LATEST).model[name]), name


def test_joints_in_space_start_from_a_network_for_keypoints(forks, tmp_path, data, keypoints):
    pretrained, folder = keypoints[0], tmp_path / "finetuned"
    start = ["--config", CONFIGS / "MambaPose_nano_3d.yaml", "-c", folder, "-p", pretrained, "finetune=True"]
    small = ["epochs=1", "learning_rate=1e-9", "no_eval=True"]
    printed = forks.train(tmp_path, *start, *data, *SMALL, *small, *QUIET)
    assert f"head=3d is begun anew: {pretrained}/best_epoch.bin has no such part" in printed
    assert (
        f"starts from the weights of {pretrained}/best_epoch.bin" in printed and "was trained with head" not in printed
    )
    found, before = (
        read_checkpoint(folder / name).model for folder, name in ((folder, LATEST), (pretrained, "best_epoch.bin"))
    )
    new = {name for name in found if name.startswith("pose.")}
    assert new and found.keys() - before.keys() == new
    assert all(found[name].allclose(before[name], atol=1e-6) for name in before)
    options = ["-c", "runs/no", "-p", folder, "-ms", LATEST, "finetune=True"]
    back = ["--config", CONFIGS / "MambaPose_nano_2d.yaml", *options]
    assert "another model size (head 2d)" in forks.refusal(tmp_path, *back, *data, *QUIET)


def test_vitpose_is_trained_on_the_same_data(forks, tmp_path, data):
    pytest.importorskip("transformers")
    config, folder = CONFIGS / "ViTPose_nano_3d.yaml", tmp_path / "vitpose"
    forks.train(tmp_path, "--config", config, "-c", folder, *data, *SMALL, *QUIET)
    first, last = read_checkpoint(folder / LATEST).history
    assert last["train/loss"] < first["train/loss"]
    assert {"train/joints", "train/heatmaps", "test/mpjpe"} <= set(last)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["dt_root=nowhere"], "nowhere/people.store: no such set of rendered people"),
        (["dataset=h36m"], "h36m is not for backbone MambaPose; set dataset: rendered"),
        (["head=3d"], "coco17: head 3d has those of Human3.6M; set joints: h36m17"),
        (["streams=rgb+sound"], "'rgb+sound' is unknown"),
        (["size=nan"], "'nan'"),
        (["backbone=ViTPose"], "streams: rgb+flow+depth: ViTPose sees images alone; set streams: rgb"),
        ([], 'people.store have 48 x 64 px; set "crop=[48, 64]"'),
        (["crop=[48, 60]"], "crop: [48, 60]: input should be a multiple of 16"),
    ],
)
def test_what_cannot_be_trained_is_one_line(forks, tmp_path, data, arguments, message):
    config = CONFIGS / "MambaPose_nano_2d.yaml"
    assert message in forks.refusal(tmp_path, "--config", config, "-c", "runs/no", *data, *arguments, *QUIET)
