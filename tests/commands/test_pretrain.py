"""2D pre-training through train.py: small files in each data set's layout, real processes."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from conftest import PARITY, ROOT, is_drawn, relative_error
from forked import shared
from test_augment import annotations, person, write_instavariety

from lib.body.skeleton import FLIPPED
from lib.config import Config, load_config
from lib.data.datasets import open_dataset
from lib.data.datasets.base import Clips2D, Dataset
from lib.data.store import Sequences, writing
from lib.data.training_clips import MixedClips, MotionClips
from lib.data.transforms import lifting_transforms, reprojection_transforms
from lib.errors import UserError
from lib.model.weights import read_checkpoint
from lib.task import open_tasks
from lib.task.lifting import Lifting
from lib.task.reprojection import Reprojection

CONFIG = ROOT / "configs/pose3d/PoseMamba_pretrain.yaml"
S_CONFIG = ROOT / "configs/pose3d/PoseMamba_train_h36m_S.yaml"
SIZE = ["maxlen=27", "clip_len=27", "data_stride=9", "dim_feat=16", "depth=1", "batch_size=16", "learning_rate=1e-3"]
H36M = [f"dt_root={PARITY}", "dt_file=h36m_schema.pkl", "data_root=nowhere"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds a motion store and the files of both 2D data sets."""
    folder, rng = tmp_path_factory.mktemp("pretraining"), np.random.default_rng(0)
    body = rng.normal(0, 0.4, (17, 3)) + (0, 0, 1)
    with writing(folder / "amass.store", {"made_by": "a test"}, {}) as writer:
        runs = Sequences(np.array(["a/1", "a/2"]), np.array(["", ""]), np.array(["", ""]), np.array([0, 60, 100]))
        writer.split("train", runs)
        sway = np.sin(np.arange(100) / 7)[:, None, None] * rng.normal(0, 0.1, (17, 3))
        writer.array("train", "joints", "f4", (17, 3), [body + sway])
    posetrack = folder / "motion2d/posetrack18_annotations/train"
    posetrack.mkdir(parents=True)
    for number in range(2):
        tracks = {track: person(rng, 31, ["left_ear", "right_ear"]) for track in range(9)}
        (posetrack / f"{number}_train.json").write_text(json.dumps(annotations(tracks)))
    write_instavariety(folder / "motion2d/InstaVariety", [90, 20, 60], rng, np.float32)
    return folder


def options(folder):
    return [*SIZE, *H36M, f"amass_file={folder / 'amass.store'}", f"data_root_2d={folder / 'motion2d'}"]


def run(folder, *arguments, code=0):
    return shared().train(folder, "--no-mlflow", "--no-tensorboard", *arguments, code=code)


def refusal(folder, *arguments):
    return shared().refusal(folder, "--no-mlflow", "--no-tensorboard", "-c", folder / "wrong", *arguments)


@pytest.fixture(scope="module")
def trained(folder):
    """A run of three epochs, of which the first has 3D clips alone."""
    printed = run(
        folder, "--config", CONFIG, "-c", folder / "run", *options(folder), "epochs=3", "pretrain_3d_curriculum=1",
        "checkpoint_frequency=1",
    )  # fmt: skip
    return folder / "run", printed


def test_2d_clips_come_in_after_the_curriculum(trained):
    run_folder, printed = trained
    history = read_checkpoint(run_folder / "latest_epoch.bin").history
    assert len(history) == 3
    names = {"train/2d_PoseTrack18", "train/2d_InstaVariety"}
    assert not names & history[0].keys() and names <= history[1].keys() and names <= history[2].keys()
    assert all(np.isfinite(value) and value > 0 for entry in history for value in entry.values())
    for name in (*names, "train/loss"):
        assert history[2][name] < history[1][name], name
    assert "clips cut from" in printed and "amass.store" in printed and "h36m_schema.pkl" in printed
    assert "2D clips from epoch 2 on: 18 clips in" in printed
    is_drawn(run_folder / "loss_curves.png")


@pytest.mark.parametrize("epoch", [1, 2])  # before 2D clips come in, and after
def test_a_resumed_run_ends_as_an_uninterrupted_one(folder, trained, epoch):
    whole, _ = trained
    part = folder / f"resumed_{epoch}"
    part.mkdir()
    shutil.copy(whole / f"epoch_{epoch}.bin", part / "latest_epoch.bin")
    run(folder, "--resume", part / "latest_epoch.bin")
    resumed, uninterrupted = (read_checkpoint(place / "latest_epoch.bin") for place in (part, whole))
    for name, value in uninterrupted.model.items():
        assert relative_error(resumed.model[name], value) < 1e-6, name
    for entry, expected in zip(resumed.history, uninterrupted.history):
        for name in expected.keys() - {"seconds"}:
            assert entry[name] == pytest.approx(expected[name], rel=1e-5), name


def test_a_resumed_run_keeps_its_data_sets(folder, trained):
    line = refusal(folder, "--resume", trained[0] / "epoch_2.bin", "subset_list_2d=[PoseTrack18]")
    assert "subset_list_2d: the run of" in line and "finetune=True" in line


def test_a_pretrained_model_is_finetuned_and_scored(folder, trained):
    pretrained, _ = trained
    start = [
        "--config",
        S_CONFIG,
        "-p",
        pretrained,
        "-ms",
        "latest_epoch.bin",
        *SIZE,
        *H36M,
        "finetune=True",
        "epochs=1",
    ]
    run(folder, *start, "-c", folder / "finetuned", "no_conf=False")
    run(folder, *start, "-c", folder / "head", "no_conf=False", "partial_train=[head]", "no_eval=True")
    before = read_checkpoint(pretrained / "latest_epoch.bin").model
    for name, part in (("finetuned", ""), ("head", "head")):
        after = read_checkpoint(folder / name / "latest_epoch.bin").model
        changed = {key for key in before if not torch.equal(before[key], after[key])}
        assert changed and all(key.startswith(part) for key in changed)
        assert len(changed) > 20 or part
        assert relative_error(after["head.1.weight"], before["head.1.weight"]) < 0.9
    assert json.loads((folder / "finetuned/scores.json").read_text())["PoseMamba"]["mpjpe"] > 0
    assert "no_conf True" in (line := refusal(folder, *start)) and line.endswith("; set no_conf=False")


def test_a_pretrained_checkpoint_is_evaluated(folder, trained):
    printed = run(folder, "--evaluate", trained[0] / "best_epoch.bin", "-c", folder / "scored")
    assert "mean of actions" in printed
    exact = run(folder, "--evaluate", trained[0] / "best_epoch.bin", "-c", folder / "exact", "gt_2d=True")
    assert exact != printed


def test_clips_of_amass_alone_and_of_files_without_detections(folder):
    start = ["--config", CONFIG, *options(folder), "epochs=1", "train_2d=False", "no_eval=True"]
    printed = run(folder, *start, "-c", folder / "amass", "subset_list=[AMASS]")
    assert "training clips: 6 clips cut from" in printed
    with np.load(PARITY / "h36m_expected.npz") as expected:
        clips = list(zip(expected["train_input"], expected["train_label"]))[:6]
    for subset, seen in (("AMASS", False), ("H36M-SH", True)):
        (folder / "files" / subset / "train").mkdir(parents=True)
        for number, (x, y) in enumerate(clips):
            content = {"data_input": x if seen else None, "data_label": y}
            (folder / "files" / subset / "train" / f"{number:08d}.pkl").write_bytes(pickle.dumps(content))
    start += [f"data_root={folder / 'files'}"]
    assert "12 files in" in run(folder, *start, "-c", folder / "both")
    wrong = ["subset_list=[H36M-SH]", "synthetic=False", "noise=False"]
    shutil.copy(folder / "files/AMASS/train/00000000.pkl", folder / "files/H36M-SH/train/00000006.pkl")
    assert "has no 2D detections (data_input is None); set synthetic: True" in refusal(folder, *start, *wrong)


@pytest.mark.parametrize(
    "change, message",
    [
        (["data_root_2d=absent"], "absent/posetrack18_annotations/train: holds no PoseTrack18 annotations"),
        (["data_root_2d=absent", "subset_list_2d=[InstaVariety]"], "absent/InstaVariety/motion_all.npy: no such file"),
        (["amass_file=absent.store"], "absent.store: no such store; make it with tools/convert_amass.py"),
        (["noise_path=absent.yaml"], "absent.yaml: no such file"),
    ],
)
def test_missing_data_are_named(folder, change, message):
    config = load_config(CONFIG, [*options(folder), *change])
    with pytest.raises(UserError) as error:
        for task in open_tasks(config, open_dataset(config)):
            task.loaders("train")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_wrong_runs_are_one_line(folder):
    start = ["--config", CONFIG, *options(folder)]
    line = refusal(folder, *start, "data_root_2d=absent")
    assert "absent/posetrack18_annotations/train: holds no PoseTrack18 annotations" in line
    assert "no_conf: train_2d: only confidence tells what is not seen" in refusal(folder, *start, "no_conf=True")


def test_a_store_that_is_no_motion_is_named(folder, tmp_path):
    with writing(tmp_path / "other.store", {"made_by": "a test"}, {}) as writer:
        nothing = np.array([""])
        writer.split("train", Sequences(nothing, nothing, nothing, np.array([0, 5])))
        writer.array("train", "joint_2d", "f4", (17, 2), [np.zeros((5, 17, 2))])
    with pytest.raises(UserError, match="other.store: has no 'joints' .* it is no store of motion"):
        MotionClips(tmp_path / "other.store", 3, 1)
    with pytest.raises(UserError, match="no motion is 243 frames long"):
        with writing(tmp_path / "empty.store", {"made_by": "a test"}, {}) as writer:
            writer.split("train", Sequences(nothing, nothing, nothing, np.array([0, 5])))
            writer.array("train", "joints", "f4", (17, 3), [np.zeros((5, 17, 3))])
        MotionClips(tmp_path / "empty.store", 243, 81)


def test_mixed_clips_are_those_of_their_data_sets_in_order(folder):
    config = load_config(CONFIG, options(folder))
    clips = open_dataset(config).training_clips(config).clips
    assert isinstance(clips, MixedClips)
    motion, rows = clips.datasets
    assert len(clips) == len(motion) + len(rows)
    mixed = clips[[len(motion) + 3, 1, len(motion), 0]]
    expected = [rows[[3]], motion[[1]], rows[[0]], motion[[0]]]
    for key, found in mixed.items():
        torch.testing.assert_close(found, torch.cat([clip[key] for clip in expected]), rtol=0, atol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_tasks_pass_every_clip_once(folder, workers):
    config = load_config(CONFIG, [*options(folder), f"num_workers={workers}"])
    tasks = open_tasks(config, open_dataset(config))
    assert [task.name for task in tasks] == ["2d_PoseTrack18", "2d_InstaVariety", ""]
    assert [task.first for task in tasks] == [31, 31, 1]
    for task in tasks:
        loader = task.loaders("train")
        assert loader.workers == workers
        seen = torch.cat([batch["index"] for batch in loader])
        assert sorted(seen.tolist()) == list(range(len(loader.clips)))


class Recorder:
    """A network that remembers its input and predicts zeros."""

    def __call__(self, x):
        self.seen = x
        return torch.zeros(*x.shape[:3], 3, requires_grad=True)


def learn(kind, keypoints, poses, detected=None, **keys):
    """Return what the network sees of clips, the loss and its terms; detected: of 2D clips."""
    config = Config(**{"no_conf": False, "flip": False, "lambda_scale": 0.0, **keys})
    model, batch = Recorder(), {"keypoints": keypoints, "pose": poses}
    two_d = kind is Reprojection
    for transform in reprojection_transforms(config, detected) if two_d else lifting_transforms(config):
        batch = transform(batch)
    task = Reprojection(config, "2D", Clips2D(None, "", detected)) if two_d else Lifting(config, Dataset())
    loss, terms = task.loss(model, batch)
    return model.seen, loss.item(), terms


def test_what_the_network_sees_of_3d_clips():
    torch.manual_seed(0)
    detected, poses = torch.rand(4, 9, 17, 3), torch.rand(4, 9, 17, 3)
    exact = torch.cat([poses[..., :2], torch.ones(4, 9, 17, 1)], -1)
    assert torch.equal(learn(Lifting, detected, poses)[0], detected)
    assert torch.equal(learn(Lifting, detected, poses, no_conf=True)[0], detected[..., :2])
    assert torch.equal(learn(Lifting, detected, poses, synthetic=True)[0], exact)
    assert torch.equal(learn(Lifting, detected, poses, gt_2d=True)[0], exact)
    noisy = learn(Lifting, detected, poses, synthetic=True, noise=True)[0]
    assert 0 < (noisy[..., :2] - exact[..., :2]).abs().mean() < 0.02 and (noisy[..., 2] < 1).any()
    assert learn(Lifting, detected, poses, synthetic=True, noise=True, no_conf=True)[0].shape == (4, 9, 17, 2)
    masked = learn(Lifting, detected, poses, synthetic=True, mask_ratio=0.3, mask_T_ratio=0.3)[0]
    kept = (masked == exact).all(-1)
    assert ((masked == 0).all(-1) ^ kept).all() and 0.4 < kept.float().mean() < 0.58
    _, loss, terms = learn(Lifting, detected, poses, synthetic=True, mask_ratio=0.3)
    assert learn(Lifting, detected, poses)[1] == pytest.approx(loss)  # the targets are untouched
    assert "mpjpe" in terms


def test_what_2d_clips_teach():
    torch.manual_seed(0)
    clips = torch.rand(4, 9, 17, 3)
    clips[:, :, 3, 2] = 0
    seen, loss, terms = learn(Reprojection, clips, clips, False)
    assert torch.equal(seen, clips) and terms == {}
    relative = clips[..., :2] - clips[:, :, :1, :2]
    expected = ((relative**2).sum(-1).sqrt() * clips[..., 2]).mean()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    seen, noisy_loss, _ = learn(Reprojection, clips, clips, False, synthetic=True, noise=True, mask_ratio=0.2)
    assert not torch.equal(seen, clips) and noisy_loss == pytest.approx(loss)
    seen, *_ = learn(Reprojection, clips, clips, True, synthetic=True, noise=True)
    assert torch.equal(seen, clips)  # a detector's own errors are enough
    seen, flipped_loss, _ = learn(Reprojection, clips, clips, False, flip=True)
    mirrored = clips[:, :, list(FLIPPED)] * torch.tensor([-1, 1, 1])
    which = [torch.equal(a, b) for a, b in zip(seen, mirrored)]
    assert all(flipped or torch.equal(a, b) for flipped, a, b in zip(which, seen, clips))
    assert flipped_loss == pytest.approx(loss, rel=1e-6)


def test_the_published_keys():
    config = load_config(CONFIG)
    published = {
        "train_2d": True, "epochs": 90, "checkpoint_frequency": 30, "batch_size": 64, "dropout": 0.0,
        "learning_rate": 5e-4, "weight_decay": 0.01, "lr_decay": 0.99, "pretrain_3d_curriculum": 30, "maxlen": 243,
        "subset_list": ["AMASS", "H36M-SH"], "clip_len": 243, "data_stride": 81, "rootrel": True, "no_conf": False,
        "gt_2d": False, "lambda_3d_velocity": 20.0, "lambda_scale": 0.5, "synthetic": True, "flip": True,
        "mask_ratio": 0.05, "mask_T_ratio": 0.1, "noise": True,
    }  # fmt: skip
    assert {key: getattr(config, key) for key in published} == published
