"""train.py in several processes on the CPU, started by PyTorch's own launcher, or as it starts them where that is all."""

import functools
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PARITY, ROOT
from test_train import S_CONFIG, SMALL, environment, mlflow_run, work  # noqa: F401
from torch.distributed import TCPStore

from lib.engine.checkpoint import LATEST, WITHIN
from lib.files import only_one
from lib.model.weights import read_checkpoint

QUIET = ["--no-mlflow", "--no-tensorboard"]
NEW = ["--config", S_CONFIG, *SMALL, "batch_size=10"]  # 52 clips: the last batch has 2
PLAIN = [*NEW, "epochs=2", "flip=False", "drop_path=0"]  # nothing random but the order of clips
RANDOM = [*NEW, "epochs=6", "flip=True", "drop_path=0.2", "no_eval=True"]

BAD = 15  # a clip that is process 1's in an early step of seed 0; after it no process has a finite loss


@pytest.fixture(scope="module", autouse=True)
def one_thread_each(environment):  # noqa: F811
    environment["env"] |= {"OMP_NUM_THREADS": "1"}


class Forked:
    """A run whose processes are given what torchrun gives them; they start in a tenth of its time."""

    def __init__(self, forks, folder, processes, *arguments):
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._store.port), "WORLD_SIZE": str(processes),
                  "TORCHELASTIC_USE_AGENT_STORE": "True", "LOCAL_WORLD_SIZE": str(processes)}  # fmt: skip
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), **shared} for rank in range(processes)]
        self._started = [forks.start(folder, *arguments, variables=rank) for rank in ranks]
        self._forks, self._folder = forks, folder

    def send_signal(self, number):
        for process in self._started:
            os.kill(process, number)

    def finish(self, code=0):
        """What its processes print together; each ends with this code."""
        return [self._forks.finish(process, self._folder, code) for process in reversed(self._started)][-1]


def fork_together(*arguments):
    return Forked(*arguments).finish()


class Launched:
    """The same, by torchrun."""

    def __init__(self, environment, processes, *arguments):  # noqa: F811
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [*launcher, str(ROOT / "train.py"), *map(str, arguments)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **environment)
        self.pid, self.send_signal = self._process.pid, self._process.send_signal

    def finish(self, code=0):
        printed, _ = self._process.communicate(timeout=240)
        if code == 0:
            assert self._process.returncode == 0, printed
        return printed


def one_line(printed):
    """The one line that a run that fails prints itself."""
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in printed.split("torch/distributed/elastic")[0], printed
    return lines[0]


def refusal(launched, codes):
    """The line of a run that fails; its processes exit with `codes` (torchrun itself with 1)."""
    printed = launched.finish(code=1)
    assert sorted(map(int, re.findall(r"exitcode  : (-?\d+)", printed))) == codes, printed
    return one_line(printed)


def wait_for(path):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check_same_training(folder, other):
    """Losses of each epoch, and scores, but for rounding."""
    history, expected = (read_checkpoint(run / LATEST).history for run in (folder, other))
    assert len(history) == len(expected) == 2
    for entry, alone in zip(history, expected):
        losses = {key: value for key, value in alone.items() if key.startswith("train/")}
        assert len(losses) > 3 and {key: entry[key] for key in losses} == pytest.approx(losses, rel=1e-5)
    check_same_scores(folder, other)


def check_same_scores(folder, other):
    found, expected = (json.loads((run / "scores.json").read_text()) for run in (folder, other))
    assert found["linear"] == expected["linear"]
    for key in ("mpjpe", "p_mpjpe"):
        assert found["PoseMamba"][key] == pytest.approx(expected["PoseMamba"][key], rel=1e-5)


def check_same_state(folder, other):
    """Weights, optimiser, losses and random states, bit for bit."""
    one, two = (torch.load(run / LATEST, weights_only=True) for run in (folder, other))
    for content in (one, two):
        content["config"] = content["mlflow_run_id"] = None
        for entry in content["history"]:
            del entry["seconds"]
    assert not differing(one, two)


def differing(one, two, name=""):
    if isinstance(one, dict):
        assert one.keys() == two.keys(), name
        return [found for key in one for found in differing(one[key], two[key], f"{name}/{key}")]
    if isinstance(one, (list, tuple)):
        assert len(one) == len(two), name
        return [found for i, (a, b) in enumerate(zip(one, two)) for found in differing(a, b, f"{name}/{i}")]
    return [] if (torch.equal(one, two) if torch.is_tensor(one) else one == two) else [name]


@pytest.fixture(scope="module")
def alone(forks, work):  # noqa: F811
    """The run of one process that others are compared with."""
    folder = work / "runs" / "alone"
    forks.train(work, *PLAIN, "-c", folder, *QUIET)
    return folder


def test_two_processes_train_and_score_as_one_does_and_speak_as_one(environment, alone):  # noqa: F811
    folder = environment["cwd"] / "runs" / "two"
    printed = Launched(environment, 2, *PLAIN, "-c", folder).finish()
    check_same_training(folder, alone)
    assert printed.count("2 processes, global batch 10 (5 each), learning rate 0.001") == 1
    for line in ("epoch 1/2", "epoch 2/2", "best epoch", "training clips"):
        assert printed.count(line) == 1 and (folder / "train.log").read_text().count(line) == 1
    assert len(list((folder / "events").iterdir())) == 1
    run = mlflow_run(environment, read_checkpoint(folder / LATEST).mlflow_run_id)
    assert run.info.status == "FINISHED" and run.data.params["processes"] == "2"
    names = {path.name for path in folder.iterdir()} - {"events"}
    assert names == {path.name for path in alone.iterdir()}


def test_three_processes_of_which_one_has_no_clip_in_the_last_batch(forks, work, alone):  # noqa: F811
    folder = work / "runs" / "three"
    printed = fork_together(forks, work, 3, *PLAIN, "-c", folder, *QUIET)
    assert "3 processes, global batch 10 (3 or 4 each)" in printed
    check_same_training(folder, alone)


def test_a_score_counts_each_clip_once_however_they_are_shared_out(forks, work, alone):  # noqa: F811
    folder = work / "runs" / "scored"
    fork_together(forks, work, 3, "-e", alone / "best_epoch.bin", "-c", folder, *QUIET, "batch_size=2")
    check_same_scores(folder / "evaluation", alone)


def stop_within_an_epoch(started, folder):
    """The checkpoint of a run that is asked to stop after its first step."""
    wait_for(folder / WITHIN)
    started.send_signal(signal.SIGTERM)
    printed = started.finish(code=130)
    assert printed.count(f"stopped; to go on: python train.py --resume {folder}") == 1, printed
    assert printed.count("interrupted\n") == 1, printed
    stopped = read_checkpoint(folder / WITHIN)
    assert 0 < stopped.state["position"]["batch"] < 6
    return stopped


@pytest.fixture(params=["forked", pytest.param("launched", marks=pytest.mark.weekly)])
def start(request, environment, forks, work):  # noqa: F811
    """Starts a run of two processes."""
    first = (Launched, environment) if request.param == "launched" else (Forked, forks, work)
    return functools.partial(*first, 2)


def test_a_run_that_was_asked_to_stop_within_an_epoch_goes_on_to_the_same_state(start, forks, work):  # noqa: F811
    whole, stopped = (work / "runs" / f"{name} {start.func.__name__}" for name in ("whole", "stopped"))
    start(*RANDOM, "-c", whole, *QUIET).finish()  # as the other: libraries draw numbers when loaded
    begun = start(*RANDOM, "-c", stopped, *QUIET, "checkpoint_minutes=0")
    assert len(stop_within_an_epoch(begun, stopped).state["others"]) == 1
    printed = fork_together(forks, work, 2, "--resume", stopped, *QUIET)
    assert "goes on from" in printed and "epoch 6/6" in printed and "world size" not in printed
    check_same_state(stopped, whole)


def test_two_processes_go_on_with_what_one_has_begun(forks, work, alone):  # noqa: F811
    folder = work / "runs" / "joined"
    stop_within_an_epoch(Forked(forks, work, 1, *PLAIN, "-c", folder, *QUIET, "checkpoint_minutes=0"), folder)
    printed = fork_together(forks, work, 2, "--resume", folder, *QUIET)
    assert printed.count("saved at world size 1, now 2: random draws differ") == 1
    check_same_training(folder, alone)


def test_the_death_of_a_process_ends_all_and_leaves_a_good_checkpoint(environment):  # noqa: F811
    folder = environment["cwd"] / "runs" / "killed"
    process = Launched(environment, 2, *RANDOM, "-c", folder, *QUIET, "epochs=500")
    wait_for(folder / LATEST)
    workers = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    ranks = {re.search(rb"\0RANK=(\d)", Path(f"/proc/{worker}/environ").read_bytes())[1]: worker for worker in workers}
    os.kill(ranks[b"1"], signal.SIGKILL)
    line = refusal(process, [-9, 1])
    assert line.startswith("error: process 0 lost its connection to another, which was killed")
    assert line.removeprefix("error: ") in (folder / "train.log").read_text()
    assert read_checkpoint(folder / LATEST).epoch >= 1
    assert not list(folder.glob(".*"))


def test_a_loss_that_is_not_finite_in_one_process_stops_all_before_anything_is_saved(forks, work):  # noqa: F811
    folder, clips = work / "runs" / "nan", work / "clips" / "H36M-SH" / "train"
    clips.mkdir(parents=True)
    with np.load(PARITY / "h36m_expected.npz") as expected:
        for i, (x, y) in enumerate(zip(expected["train_input"], expected["train_label"])):
            content = {"data_input": x, "data_label": np.full_like(y, np.nan) if i == BAD else y}
            (clips / f"{i:08d}.pkl").write_bytes(pickle.dumps(content))
    line = one_line(Forked(forks, work, 2, *PLAIN, f"data_root={clips.parents[1]}", "-c", folder, *QUIET).finish(1))
    found = re.search(r"loss is nan at epoch 1, step \d of 6 in process 1 \(clips ([\d, ]+)\)", line)
    assert found and str(BAD) in found[1].split(", ") and "nothing was saved over the last good checkpoint" in line
    assert line.removeprefix("error: ") in (folder / "train.log").read_text()
    assert not list(folder.glob("*.bin"))


def test_what_all_processes_refuse_is_one_line(environment, forks, work):  # noqa: F811
    arguments = [*NEW, "-c", work / "runs" / "refused", *QUIET]
    line = refusal(Launched(environment, 2, *arguments, "batch_size=1"), [2, 2])
    assert (
        line
        == "error: batch_size: 1 clips are too few for 2 processes; set batch_size to 2 or more, or start fewer processes"
    )
    line = one_line(Forked(forks, work, 2, *arguments, "lerning_rate=1").finish(2))
    assert line == "error: command line: lerning_rate: unknown key (did you mean 'learning_rate'?)"
    assert not (work / "runs" / "refused").exists()


def test_what_process_0_refuses_ends_all(forks, work, tmp_path):  # noqa: F811
    with only_one(tmp_path / "run"):
        line = one_line(Forked(forks, work, 2, *NEW, "-c", tmp_path, *QUIET).finish(2))
    assert line == f"error: {tmp_path}: another process is writing it; wait until that is done"
