"""DSTformer and MotionAGFormer through train.py and vis.py, by their recipes: trained, scored, resumed, lifted with, refused."""

import json

import numpy as np
import pytest
import torch
from commands_here import run_here
from conftest import PARITY, ROOT
from forked import shared
from peers import PEERS, write_published
from test_processes import fork_together
from test_video_io import make_video

from lib.model.weights import read_checkpoint
from lib.video.export.arrays import read_npz

QUIET = ["--no-mlflow", "--no-tensorboard"]
DATA = [f"dt_root={PARITY}", "dt_file=h36m_schema.pkl", "data_root=nowhere"]
SMALL = [*DATA, "maxlen=27", "clip_len=27", "data_stride=9", "dim_feat=16", "dim_rep=24", "depth=1", "epochs=2"]
RECIPES = {"DSTformer": "MotionBERT_train_h36m", "MotionAGFormer": "MotionAGFormer_train_h36m_XS"}


@pytest.fixture(scope="module", params=RECIPES)
def trained(request, tmp_path_factory):
    """A model, the folder of its run of two epochs within its working folder, and what was printed."""
    work = tmp_path_factory.mktemp(request.param)
    recipe = ROOT / "configs" / "pose3d" / f"{RECIPES[request.param]}.yaml"
    printed = shared().train(work, "--config", recipe, "-c", "run", *SMALL, *QUIET)
    return request.param, work / "run", printed


def test_a_recipe_trains_and_scores(trained):
    model, folder, printed = trained
    assert f"{model}: " in printed and "selective scan" not in printed
    scores = json.loads((folder / "scores.json").read_text())
    assert scores[model]["mpjpe"] > 0 and scores[model]["per_action"].keys() == {"Direction", "Greet", "Walk"}
    checkpoint = read_checkpoint(folder / "latest_epoch.bin")
    losses = [entry["train/loss"] for entry in checkpoint.history]
    assert losses[1] < losses[0] and checkpoint.history[0].keys() >= {"train/mpjpe", "train/n_mpjpe", "train/velocity"}
    assert "train/temporal_consistency" not in checkpoint.history[0]


def test_evaluating_needs_only_the_checkpoint(trained):
    model, folder, _ = trained
    printed = shared().train(folder.parent, "-e", folder / "best_epoch.bin", *QUIET)
    assert "num_heads: 8 (recorded in the checkpoint)" in printed
    again = json.loads((folder / "evaluation" / "scores.json").read_text())
    assert again[model]["mpjpe"] == pytest.approx(
        json.loads((folder / "scores.json").read_text())[model]["mpjpe"], rel=1e-5
    )


def test_training_goes_on_where_it_was(trained):
    model, folder, _ = trained
    whole, parts = folder.parent / "whole", folder.parent / "parts"
    start = ["--config", folder / "config.yaml", *QUIET, "no_eval=True"]
    shared().train(folder.parent, *start, "-c", whole, "epochs=3")
    shared().train(folder.parent, *start, "-c", parts, "epochs=2")
    shared().train(folder.parent, "--resume", parts, *QUIET, "epochs=3")
    once, twice = (read_checkpoint(run / "latest_epoch.bin").model for run in (whole, parts))
    assert once.keys() == twice.keys() and all(torch.equal(once[name], twice[name]) for name in once)


def test_processes_score_what_is_kept(tmp_path):
    """Each gathers statistics of norms from its own clips; those of the first are in the checkpoint."""
    recipe = ROOT / "configs/pose3d/MotionAGFormer_train_h36m_XS.yaml"
    write_published("MotionAGFormer", tmp_path / "released.bin")  # whose graphs weigh more than those of a new network
    size = ["maxlen=81", "clip_len=81", "data_stride=27", "dim_feat=16", "dim_rep=40", "depth=1", "learning_rate=0.01"]
    tuned = ["finetune=True", "-p", ".", "-ms", "released.bin", "epochs=1", "batch_size=7"]
    options = ["--config", recipe, "-c", "run", *DATA, *size, *tuned, *QUIET]
    fork_together(shared(), tmp_path, 2, *options)
    alone = read_checkpoint(tmp_path / "run/latest_epoch.bin").history[0]["test/mpjpe"]
    shared().train(tmp_path, "-e", "run/latest_epoch.bin", *QUIET)
    scores = json.loads((tmp_path / "run/evaluation/scores.json").read_text())
    assert scores["MotionAGFormer"]["mpjpe"] == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("model", PEERS)
def test_a_published_file_is_scored_and_lifts_a_video(model, tmp_path):
    path = write_published(model, tmp_path / "released.bin")
    printed = shared().train(tmp_path, "-e", path, "-c", "published", *DATA, *QUIET)
    assert "dim_rep: " in printed and "(read from the shapes of its tensors)" in printed
    assert "num_heads: 8 (the checkpoint does not record it)" in printed
    assert json.loads((tmp_path / "published/evaluation/scores.json").read_text())[model]["mpjpe"] > 0

    make_video(tmp_path / "film.mp4", 15)
    keypoints = np.random.default_rng(0).uniform(5, 60, (15, 17, 3))
    np.savez(tmp_path / "found.npz", keypoints=keypoints, frame=np.arange(15), person=[0] * 15, layout="h36m17")
    options = ["--video", "film.mp4", "--keypoints", "found.npz", "-o", "out", "-e", path]
    lifted = run_here("vis", *options, folder=tmp_path)
    assert lifted.returncode == 0, lifted.stdout + lifted.stderr
    (person,) = read_npz(tmp_path / "out" / "poses.npz").people
    assert person.camera.shape == (15, 17, 3) and np.isfinite(person.camera).all()


def test_wrong_files_are_refused_in_one_line(tmp_path):
    forks = shared()
    whole = write_published("MotionAGFormer", tmp_path / "whole.bin")
    part = write_published("MotionAGFormer", tmp_path / "part.bin", without="layers.0.fusion.bias")
    assert forks.refusal(tmp_path, "-e", part, *DATA, *QUIET) == (
        f"error: {part}: lacks 'layers.0.fusion.bias', which the model has"
    )
    recipe = ROOT / "configs/pose3d/MotionBERT_train_h36m.yaml"
    found = f"error: {whole}: is not a DSTformer checkpoint (it lacks 'pre_logits.fc.weight'); it is one of backbone: "
    assert forks.refusal(tmp_path, "-e", whole, "--config", recipe, *DATA, *QUIET) == found + "MotionAGFormer"
    finetune = ["finetune=True", "-p", tmp_path, "-ms", "whole.bin", "-c", "tuned"]
    assert forks.refusal(tmp_path, "--config", recipe, *finetune, *DATA, *QUIET) == found + "MotionAGFormer"
    line = forks.refusal(
        tmp_path, "--config", recipe, "backbone=MotionAGFormer", "clip_len=27", "-c", "short", *DATA, *QUIET
    )
    assert line.startswith("error: clip_len: 27: MotionAGFormer sees clips of exactly maxlen, 243, frames")
