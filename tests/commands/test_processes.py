"""train.py in several processes on the CPU, started by PyTorch's own launcher, or as it starts them where that is all."""

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


def together(processes, *arguments):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [*launcher, str(ROOT / "train.py"), *map(str, arguments)]


def train_together(environment, processes, *arguments):  # noqa: F811
    """What a run that succeeds prints."""
    result = subprocess.run(together(processes, *arguments), capture_output=True, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def fork_together(forks, folder, processes, *arguments):
    """What a run prints whose processes are given what torchrun gives them; they start in a tenth of the time."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
              "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}  # fmt: skip
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), **shared} for rank in range(processes)]
    started = [forks.start(folder, *arguments, variables=rank) for rank in ranks]
    return [forks.finish(process, folder) for process in reversed(started)][-1]


def start_together(environment, processes, *arguments):  # noqa: F811
    return subprocess.Popen(
        together(processes, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **environment
    )


def refusal(process, codes):
    """The one line that a run that fails prints itself; its processes exit with `codes` (torchrun itself with 1)."""
    printed, _ = process.communicate(timeout=120)
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in printed.split("torch/distributed/elastic")[0], printed
    assert sorted(map(int, re.findall(r"exitcode  : (-?\d+)", printed))) == codes, printed
    return lines[0]


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
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
    printed = train_together(environment, 2, *PLAIN, "-c", folder)
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


def stop_within_an_epoch(process, folder):
    """What a run prints that is asked to stop after its first step, and the checkpoint it leaves."""
    wait_for(folder / WITHIN, process)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=120)
    assert printed.count(f"stopped; to go on: python train.py --resume {folder}") == 1, printed
    assert printed.count("interrupted\n") == 1, printed
    stopped = read_checkpoint(folder / WITHIN)
    assert 0 < stopped.state["position"]["batch"] < 6
    return stopped


def test_a_run_that_was_asked_to_stop_within_an_epoch_goes_on_to_the_same_state(environment, forks, work):  # noqa: F811
    whole, stopped = (work / "runs" / name for name in ("whole", "stopped"))
    train_together(environment, 2, *RANDOM, "-c", whole, *QUIET)  # as the other: libraries draw numbers when loaded
    process = start_together(environment, 2, *RANDOM, "-c", stopped, *QUIET, "checkpoint_minutes=0")
    assert len(stop_within_an_epoch(process, stopped).state["others"]) == 1
    printed = fork_together(forks, work, 2, "--resume", stopped, *QUIET)
    assert "goes on from" in printed and "epoch 6/6" in printed and "world size" not in printed
    check_same_state(stopped, whole)


def test_two_processes_go_on_with_what_one_has_begun(environment, forks, work, alone):  # noqa: F811
    folder = work / "runs" / "joined"
    arguments = [sys.executable, str(ROOT / "train.py"), *PLAIN, "-c", str(folder), *QUIET, "checkpoint_minutes=0"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **environment)
    stop_within_an_epoch(process, folder)
    printed = fork_together(forks, work, 2, "--resume", folder, *QUIET)
    assert printed.count("saved at world size 1, now 2: random draws differ") == 1
    check_same_training(folder, alone)


def test_the_death_of_a_process_ends_all_and_leaves_a_good_checkpoint(environment):  # noqa: F811
    folder = environment["cwd"] / "runs" / "killed"
    process = start_together(environment, 2, *RANDOM, "-c", folder, *QUIET, "epochs=500")
    wait_for(folder / LATEST, process)
    workers = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    ranks = {re.search(rb"\0RANK=(\d)", Path(f"/proc/{worker}/environ").read_bytes())[1]: worker for worker in workers}
    os.kill(ranks[b"1"], signal.SIGKILL)
    line = refusal(process, [-9, 1])
    assert line.startswith("error: process 0 lost its connection to another, which was killed")
    assert line.removeprefix("error: ") in (folder / "train.log").read_text()
    assert read_checkpoint(folder / LATEST).epoch >= 1
    assert not list(folder.glob(".*"))


def test_a_loss_that_is_not_finite_in_one_process_stops_all_before_anything_is_saved(environment):  # noqa: F811
    folder, clips = environment["cwd"] / "runs" / "nan", environment["cwd"] / "clips" / "H36M-SH" / "train"
    clips.mkdir(parents=True)
    with np.load(PARITY / "h36m_expected.npz") as expected:
        for i, (x, y) in enumerate(zip(expected["train_input"], expected["train_label"])):
            content = {"data_input": x, "data_label": np.full_like(y, np.nan) if i == BAD else y}
            (clips / f"{i:08d}.pkl").write_bytes(pickle.dumps(content))
    line = refusal(
        start_together(environment, 2, *PLAIN, f"data_root={clips.parents[1]}", "-c", folder, *QUIET), [1, 1]
    )
    found = re.search(r"loss is nan at epoch 1, step \d of 6 in process 1 \(clips ([\d, ]+)\)", line)
    assert found and str(BAD) in found[1].split(", ") and "nothing was saved over the last good checkpoint" in line
    assert line.removeprefix("error: ") in (folder / "train.log").read_text()
    assert not list(folder.glob("*.bin"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["batch_size=1"], "error: batch_size: 1 clips are too few for 2 processes; set batch_size to 2 or more"),
        (["lerning_rate=1"], "error: command line: lerning_rate: unknown key (did you mean 'learning_rate'?)"),
    ],
)
def test_what_all_processes_refuse_is_one_line(environment, arguments, message):  # noqa: F811
    folder = environment["cwd"] / "runs" / "refused"
    assert message in refusal(start_together(environment, 2, *NEW, "-c", folder, *QUIET, *arguments), [2, 2])
    assert not folder.exists()


def test_what_process_0_refuses_ends_all(environment, tmp_path):  # noqa: F811
    with only_one(tmp_path / "run"):
        line = refusal(start_together(environment, 2, *NEW, "-c", tmp_path, *QUIET), [2, 2])
    assert line == f"error: {tmp_path}: another process is writing it; wait until that is done"
