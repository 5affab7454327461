"""Runs that are stopped, killed or damaged anywhere go on as if nothing had been: bit for bit, in the same files.

The run of these tests has all that a checkpoint must carry: 2D clips from epoch 2 on, noise, masks, flips, drop path, warm-up,
Muon beside AdamW, averaged weights, two batches a step, and a thread that reads ahead.
"""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import time
import zipfile

import numpy as np
import pytest
import torch
from conftest import PARITY, ROOT
from test_augment import annotations, person

from lib.engine.state import Position
from lib.model.weights import read_checkpoint

CONFIG = ROOT / "configs/pose3d/PoseMamba_pretrain.yaml"
QUIET = ["--no-mlflow", "--no-tensorboard"]
STEP, PREDICT = "lib.engine.trainer:Trainer._step", "lib.task.lifting:Lifting.predict"
NAMES = ("latest_epoch.bin", "best_epoch.bin", "epoch_1.bin", "epoch_2.bin", "epoch_3.bin")
OTHERWISE = {"seconds", "mlflow_run_id", "config"}  # what differs from run to run


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The config of the runs: 9 steps in epoch 1, of two batches but the last; 3 more on 2D clips from epoch 2 on."""
    folder = tmp_path_factory.mktemp("data")
    write_people(folder / "motion2d", 20)
    return [
        "--config", CONFIG, "maxlen=27", "clip_len=9", "data_stride=9", "dim_feat=8", "depth=1", "batch_size=4",
        "accumulate=2", "learning_rate=1e-3", "warmup_steps=15", "optimizer=muon", "ema=0.9", "clip_grad=1.0",
        f"dt_root={PARITY}", "dt_file=h36m_schema.pkl", "data_root=nowhere", "subset_list=[H36M-SH]",
        f"data_root_2d={folder / 'motion2d'}", "subset_list_2d=[PoseTrack18]", "pretrain_3d_curriculum=1",
        "epochs=3", "checkpoint_frequency=1",
    ]  # fmt: skip


def write_people(folder, count):
    folder = folder / "posetrack18_annotations" / "train"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    people = {track: person(rng, 31, ["left_ear", "right_ear"]) for track in range(count)}
    (folder / "0_train.json").write_text(json.dumps(annotations(people)))


@pytest.fixture(scope="module")
def whole(forks, keys, tmp_path_factory):
    """The folder of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    forks.train(folder, *keys, "-c", "run", *QUIET)
    return folder / "run"


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of that folder whose files are one on disk where theirs are."""
    shutil.copytree(whole, tmp_path / "run")
    for name in NAMES[1:]:
        if (whole / name).samefile(whole / NAMES[0]):
            (tmp_path / "run" / name).unlink()
            os.link(tmp_path / "run" / NAMES[0], tmp_path / "run" / name)
    return tmp_path / "run"


def content(path):
    return torch.load(path, weights_only=False)


def assert_equal(found, expected, where):
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected.keys() - OTHERWISE:
            assert_equal(found[key], expected[key], f"{where} {key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for number, pair in enumerate(zip(found, expected)):
            assert_equal(*pair, f"{where} {number}")
    else:
        assert found == expected, where


def assert_ended_as(run, whole, names=NAMES):
    for name in names:
        assert_equal(content(run / name), content(whole / name), name)
    assert json.loads((run / "scores.json").read_text()) == json.loads((whole / "scores.json").read_text())
    assert not list(run.glob(".*.tmp"))


def error_line(printed):
    """The one line that says what is wrong."""
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in printed and "Logging error" not in printed, printed
    return lines[0]


def test_the_whole_run_has_all_that_a_checkpoint_must_carry(whole):
    found = content(whole / "latest_epoch.bin")
    assert (
        len(found["optimizer"]["parts"]) == 2
        and found["trained"]
        and found["state"]["averaged"] == found["state"]["step"]
    )
    assert found["state"]["step"] == 9 + 2 * 12
    assert "train/2d_PoseTrack18" in found["history"][-1] and found["config"]["flip"] and found["config"]["drop_path"]
    assert vars(Position()) == found["state"]["position"]


def test_stopped_runs_say_how_to_go_on_and_end_as_if_nothing_had_been(forks, keys, whole, tmp_path):
    """One run is stopped again and again; calls are counted from each new start."""
    arguments = [*keys, "-c", "run"]
    for function, number, stop, position in (
        (STEP, 3, signal.SIGTERM, (0, 1, 6)),  # epochs done, task, batches
        (STEP, 6, signal.SIGUSR1, (0, 1, 17)),  # the last of an epoch, of one batch
        (PREDICT, 5, signal.SIGTERM, (0, 2, 0)),  # while epoch 1 is scored
        (STEP, 1, signal.SIGINT, (1, 0, 2)),  # on 2D clips
        (STEP, 2, signal.SIGTERM, (1, 0, 5)),  # the last on 2D clips
        (STEP, 3, signal.SIGUSR1, (1, 1, 6)),
    ):
        (tmp_path / "output").unlink(missing_ok=True)
        printed = forks.train(tmp_path, *arguments, *QUIET, code=130, at=[function, number, stop])
        assert "to go on: python train.py --resume run" in printed and "Traceback" not in printed
        stopped = read_checkpoint(tmp_path / "run" / "latest_step.bin")
        assert (stopped.epoch, *(stopped.state["position"][key] for key in ("task", "batch"))) == position
        arguments = ["--resume", "run"]
    last_test_batches = [PREDICT, 2 * 31 + 5, signal.SIGTERM]  # when all epochs are trained
    assert "to go on" in forks.train(tmp_path, *arguments, *QUIET, code=130, at=last_test_batches)
    assert "its scores again" in forks.train(tmp_path, *arguments, *QUIET)
    assert_ended_as(tmp_path / "run", whole)


def test_a_run_killed_in_a_step_in_scoring_and_in_a_write_ends_as_if_nothing_had_been(forks, keys, whole, tmp_path):
    killed = {"code": -signal.SIGKILL}
    forks.train(tmp_path, *keys, "-c", "run", *QUIET, "checkpoint_minutes=0", **killed, at=[STEP, 7, signal.SIGKILL])
    for function, number in ((PREDICT, 20), (STEP, 5), ("os:fsync", 4), ("os:replace", 3), (STEP, 6)):
        forks.train(tmp_path, "--resume", "run", *QUIET, **killed, at=[function, number, signal.SIGKILL])
    forks.train(tmp_path, "--resume", "run", *QUIET)
    assert_ended_as(tmp_path / "run", whole)


def test_a_run_killed_between_the_files_of_an_epoch_ends_with_all_of_them(forks, keys, whole, tmp_path):
    """After config.yaml, an epoch puts up to four names in place: previous, latest, best, numbered."""
    killed = {"code": -signal.SIGKILL}
    forks.train(tmp_path, *keys, "-c", "run", *QUIET, **killed, at=["os:replace", 3, signal.SIGKILL])
    assert not (tmp_path / "run" / "best_epoch.bin").exists()
    for number in (1, 2, 4, 4, 7):  # counted from each new start, which adds what is missing
        forks.train(tmp_path, "--resume", "run", *QUIET, **killed, at=["os:replace", number, signal.SIGKILL])
    forks.train(tmp_path, "--resume", "run", *QUIET)
    assert_ended_as(tmp_path / "run", whole)


@pytest.mark.parametrize("wanted, within_writes", [(12, 0), pytest.param(50, 2, marks=pytest.mark.weekly)])
def test_kills_at_random_moments(forks, keys, tmp_path, wanted, within_writes):
    """A checkpoint is written after every step, so that some kills are in the middle of a write.

    A run that is done before the last kill makes room for another.
    """
    longer = [*keys, *QUIET, "epochs=5", "data_stride=2", "-c"]
    forks.train(tmp_path, *longer, "whole")
    runs, kills, unfinished, moments = [tmp_path / "run"], 0, 0, random.Random(0)
    start = seconds_to_a_checkpoint(forks, tmp_path, *longer, "first", "checkpoint_minutes=0")
    while kills < wanted:
        begun = list(runs[-1].glob("latest_*.bin"))
        options = ["--resume", runs[-1], *QUIET] if begun else [*longer, runs[-1], "checkpoint_minutes=0"]
        process = forks.start(tmp_path, *options)
        time.sleep(moments.uniform(0, 1.7 * start))
        os.kill(process, signal.SIGKILL)
        if (code := forks.wait(process)) == 0:
            runs.append(tmp_path / f"run{len(runs)}")
            continue
        assert code == -signal.SIGKILL, (tmp_path / "output").read_text()
        kills += 1
        unfinished += any(runs[-1].glob(".latest_*.tmp"))
    assert unfinished >= within_writes
    if any(runs[-1].glob("latest_*.bin")):
        forks.train(tmp_path, "--resume", runs[-1], *QUIET, "checkpoint_minutes=10")
    else:
        runs.pop()
    for run in runs:
        assert_ended_as(run, tmp_path / "whole", NAMES)


def seconds_to_a_checkpoint(forks, folder, *arguments):
    begun = time.monotonic()
    process = forks.start(folder, *arguments)
    while not (folder / "first" / "latest_step.bin").exists():
        assert time.monotonic() < begun + 600
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    forks.wait(process)
    return time.monotonic() - begun


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 560 kB, which holds two checkpoints of the runs and no third."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=560k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small file system is not allowed here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(forks, keys, whole, tmp_path, small_disk):
    printed = forks.train(tmp_path, *keys, "-c", "disk/run", "--no-mlflow", code=2)
    line = error_line(printed)
    assert "disk/run/latest_epoch.bin: cannot be written (" in line
    run = small_disk / "run"
    assert_equal(content(run / "latest_epoch.bin"), content(whole / "epoch_2.bin"), "latest_epoch.bin")
    assert not list(run.glob(".*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    forks.train(tmp_path, "--resume", "disk/run", *QUIET)
    assert_ended_as(run, whole)


def truncated(whole):
    return whole[: len(whole) // 2]


def flipped(whole):
    """One bit is another, in the middle of the pickle that describes the tensors."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        (described,) = (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    place = whole.index(described) + len(described) // 2
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


@pytest.mark.parametrize("damage", [truncated, flipped])
def test_a_damaged_newest_file_is_named_and_the_one_before_is_used(forks, whole, copy, damage):
    (copy / "latest_epoch.bin").write_bytes(damage((copy / "latest_epoch.bin").read_bytes()))
    assert (copy / "latest_epoch.bin").samefile(copy / "epoch_3.bin")
    printed = forks.train(copy.parent, "--resume", "run", *QUIET)
    assert "run/latest_epoch.bin: is truncated or not a checkpoint" in printed
    assert "run/previous_epoch.bin is used" in printed and "latest_epoch.bin: is tr" in (copy / "train.log").read_text()
    assert_ended_as(copy, whole)


def test_a_damaged_file_within_an_epoch_is_passed_over_too(forks, keys, whole, tmp_path):
    run = tmp_path / "run"
    forks.train(tmp_path, *keys, "-c", "run", *QUIET, code=130, at=[STEP, 15, signal.SIGTERM])
    (run / "latest_step.bin").write_bytes(flipped((run / "latest_step.bin").read_bytes()))
    printed = forks.train(tmp_path, "--resume", "run", *QUIET)
    assert "run/latest_step.bin: is truncated" in printed and "run/latest_epoch.bin is used" in printed
    assert_ended_as(run, whole)


def test_a_folder_without_a_good_file_is_one_line(forks, copy):
    for path in copy.glob("*.bin"):
        path.write_bytes(path.read_bytes()[:1000])
    line = error_line(forks.train(copy.parent, "--resume", "run", *QUIET, code=2))
    assert line.startswith("error: run: holds no checkpoint that a run can be resumed from (run/latest_epoch.bin: is")
    (copy.parent / "empty").mkdir()
    (copy.parent / "output").unlink()
    line = error_line(forks.train(copy.parent, "--resume", "-c", "empty", *QUIET, code=2))
    assert line == "error: empty: holds no checkpoint that a run can be resumed from"
    (copy.parent / "output").unlink()
    line = error_line(forks.train(copy.parent, "--resume", "absent", *QUIET, code=2))
    assert line.startswith("error: absent: no such file")


def test_resume_alone_takes_the_folder_of_c_or_the_usual_one(forks, copy):
    assert "epoch 4/4" in forks.train(copy.parent, "--resume", "-c", "run", *QUIET, "epochs=4", "no_eval=True")
    copy.rename(copy.parent / "checkpoint")
    printed = forks.train(copy.parent, *QUIET, "--resume", "epochs=5", "no_eval=True")
    assert "epoch 5/5" in printed and "goes on from checkpoint/latest_epoch.bin: epoch 4" in printed


def test_names_of_one_state_are_one_file(whole):
    one, *others = (whole / name for name in ("latest_epoch.bin", "best_epoch.bin", "epoch_3.bin"))
    assert all(path.stat().st_ino == one.stat().st_ino for path in others)
    assert (whole / "previous_epoch.bin").stat().st_ino == (whole / "epoch_2.bin").stat().st_ino


@pytest.mark.parametrize(
    "change",
    [
        "rootrel=False", "gt_2d=True", "synthetic=False noise=False", "amass_file=other.store", "data_root=elsewhere",
        "batch_size=2", "accumulate=1", "warmup_steps=3", "learning_rate=2e-3", "lr_decay=0.9", "weight_decay=0.1",
        "optimizer=adamw", "clip_grad=2.0", "ema=0.5", "seed=1", "data_stride=3", "sample_stride=2", "subset_list=[X]",
        "dt_file=other.pkl", "flip=False", "drop_path=0.1", "mask_ratio=0.5", "noise_path=other.yaml",
        "lambda_scale=0.1", "pretrain_3d_curriculum=2", "train_2d=False", "partial_train=[head]", "scan=v2",
    ],
)  # fmt: skip
def test_another_value_of_a_key_that_decides_what_is_learned_is_refused(forks, whole, tmp_path, change):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    line = error_line(forks.train(tmp_path, "--resume", whole, *QUIET, "epochs=4", *change.split(), code=2))
    assert line.startswith(f"error: {change.partition('=')[0]}: the run of {whole / 'latest_epoch.bin'} has ")
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before


def test_other_2d_clips_in_a_free_folder_are_refused(forks, whole, tmp_path):
    write_people(tmp_path / "other", 3)
    line = error_line(forks.train(tmp_path, "--resume", whole, *QUIET, "epochs=4", "data_root_2d=other", code=2))
    assert "its run had 20 clips of 2d_PoseTrack18 and 68 clips, and there are 3 clips of 2d_PoseTrack18" in line


def test_resuming_an_earlier_epoch_ignores_the_best_of_later_ones(forks, whole, copy):
    assert read_checkpoint(copy / "best_epoch.bin").epoch == 3
    stopped = {"code": -signal.SIGKILL, "at": [STEP, 1, signal.SIGKILL]}
    printed = forks.train(copy.parent, "--resume", "run/epoch_1.bin", *QUIET, **stopped)
    assert "which are abandoned" in printed
    assert [read_checkpoint(copy / name).epoch for name in ("best_epoch.bin", "latest_epoch.bin")] == [1, 1]
    kept = {path.name: read_checkpoint(path).epoch for path in (copy / "abandoned").iterdir()}
    assert kept == {
        "best_epoch.bin": 3, "latest_epoch.bin": 3, "previous_epoch.bin": 2, "epoch_2.bin": 2, "epoch_3.bin": 3,
    }  # fmt: skip
    forks.train(copy.parent, "--resume", "run", *QUIET)
    assert_ended_as(copy, whole)


def test_two_runs_in_one_folder(forks, keys, whole, tmp_path):
    """One sleeps at its 15th step, which was saved; the other has to go; a third looked before the first was done."""
    first = forks.start(
        tmp_path, *keys, "-c", "run", *QUIET, "checkpoint_minutes=0", at=[STEP, 15, signal.SIGSTOP]
    )  # fmt: skip
    wait_until_it_sleeps(first)
    (tmp_path / "second").mkdir()
    run = tmp_path / "run"
    line = error_line(forks.train(tmp_path / "second", "--resume", run, *QUIET, code=2))
    assert line == f"error: {run}: another process is writing it; wait until that is done"
    (tmp_path / "third").mkdir()
    third = forks.start(
        tmp_path / "third", "--resume", run, *QUIET, at=["lib.engine.experiment:only_one", 1, signal.SIGSTOP]
    )
    wait_until_it_sleeps(third)
    os.kill(first, signal.SIGCONT)
    assert forks.wait(first) == 0
    os.kill(third, signal.SIGCONT)
    assert forks.wait(third) == 2
    line = error_line((tmp_path / "third" / "output").read_text())
    assert line == f"error: {run}: another process has written to it meanwhile; start again"
    assert_ended_as(run, whole)


def wait_until_it_sleeps(process):
    deadline = time.monotonic() + 600
    while not _sleeps(process):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _sleeps(process):
    with open(f"/proc/{process}/stat") as state:
        return state.read().rpartition(")")[2].split()[0] == "T"


def test_mlflow_and_tensorboard_have_every_epoch_once(forks, keys, tmp_path):
    """The run is killed within epoch 2, and when epoch 2 is saved and not recorded."""
    from mlflow import MlflowClient

    killed = {"code": -signal.SIGKILL}
    options = [*keys, "-c", "run", "checkpoint_minutes=0"]
    forks.train(tmp_path, *options, **killed, at=[STEP, 14, signal.SIGKILL])
    forks.train(tmp_path, "--resume", "run", **killed, at=["lib.engine.recorder:Run.epoch", 1, signal.SIGKILL])
    assert read_checkpoint(tmp_path / "run" / "latest_epoch.bin").epoch == 2
    forks.train(tmp_path, "--resume", "run")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    final = read_checkpoint(tmp_path / "run" / "latest_epoch.bin")
    assert run.info.run_id == final.mlflow_run_id and run.info.status == "FINISHED"
    losses = [entry["train/loss"] for entry in final.history]
    for name in ("train/loss", "test/mpjpe", "lr"):
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, name)] == [1, 2, 3], name
    assert [metric.value for metric in client.get_metric_history(run.info.run_id, "train/loss")] == losses
    shown = events(max((tmp_path / "run" / "events").iterdir(), key=lambda path: path.stat().st_mtime_ns))
    assert shown["train/loss"] == {
        1: pytest.approx(losses[0]),
        2: pytest.approx(losses[1]),
        3: pytest.approx(losses[2]),
    }


def events(path):
    """Return {name: {step: value}} of a file of TensorBoard events."""
    from tensorboardX.proto.event_pb2 import Event

    data, start, found = path.read_bytes(), 0, {}
    while start < len(data):
        length = int.from_bytes(data[start : start + 8], "little")
        event = Event.FromString(data[start + 12 : start + 12 + length])
        start += 16 + length
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found
