"""Times training in several processes of few threads against one process of all threads, on the CPU, by `train.py` itself.

python tools/bench/processes.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

import os
import subprocess
import tempfile
from argparse import ArgumentTypeError
from statistics import median

import torch

from lib.cli import Parser, count, progress_bar, run
from lib.engine.checkpoint import LATEST
from lib.files import PROJECT
from lib.model.weights import read_checkpoint
from tools.bench.shared.clips import write_clips
from tools.bench.shared.report import machine, table, write_json
from tools.bench.shared.sizes import SIZES


def several(text):
    """Return the number of processes that an option says, for argparse: 2 or more."""
    if count(text) == 1:
        raise ArgumentTypeError("expected 2 or more")
    return int(text)


def parse():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="S", help="default: %(default)s")
    parser.add_argument("--frames", type=count, default=81, help="of a clip (default: %(default)s)")
    parser.add_argument("--batch", type=count, default=4, help="clips of all processes (default: %(default)s)")
    parser.add_argument("--steps", type=count, default=8, help="timed at a time, after as many (default: %(default)s)")
    parser.add_argument("--repeats", type=count, default=5, help="of which the median counts (default: %(default)s)")
    parser.add_argument("--processes", type=several, default=2, help="default: %(default)s")
    parser.add_argument("--threads", type=count, default=os.cpu_count(), help="of all processes (default: all cores)")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/cpu/processes.json", metavar="FILE")
    return parser.parse()


def seconds_of_an_epoch(processes, keys, folder, options):
    """Train for two epochs in `folder`, and return what the second took."""
    channels, depth = SIZES[options.size]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [
        sys.executable, *launcher, PROJECT / "train.py", "--config", PROJECT / "configs/pose3d/PoseMamba_train_h36m_S.yaml",
        "-c", folder, "--no-mlflow", "--no-tensorboard", *(f"{key}={value}" for key, value in keys.items()),
        f"dim_feat={channels}", f"depth={depth}", f"batch_size={options.batch}", "epochs=2", "no_eval=True",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, options.threads // processes))}
    subprocess.run(list(map(str, command)), check=True, env=environment, stdout=subprocess.DEVNULL, cwd=PROJECT)
    return read_checkpoint(folder / LATEST).history[-1]["seconds"]


def main():
    options = parse()
    seconds = {1: [], options.processes: []}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        keys = write_clips(data, options.steps * options.batch, options.frames)
        for number in progress_bar(range(options.repeats), "training", unit="round"):
            for processes, found in seconds.items():  # in turn: other work on the machine meets both
                found.append(seconds_of_an_epoch(processes, keys, data / f"{processes}_{number}", options))
    clips = options.steps * options.batch
    one, together = seconds.values()
    result = {
        "machine": machine(torch.device("cpu")) | {"threads": options.threads},
        "options": {name: value for name, value in vars(options).items() if name != "out"},
        "processes": {
            str(processes): {
                "threads_each": max(1, options.threads // processes),
                "seconds": found,
                "clips_per_second": round(clips / median(found), 3),
            }
            for processes, found in seconds.items()
        },
        "times_one_process": round(median(a / b for a, b in zip(one, together)), 3),
    }
    write_json(options.out, result)
    rows = [[key, str(of["threads_each"]), f"{of['clips_per_second']:.2f}"] for key, of in result["processes"].items()]
    print("\n".join(table(["processes", "threads each", "clips per second"], rows)))
    print(
        f"{result['times_one_process']:.2f} times the clips per second of one process (median of rounds); {options.out}"
    )


if __name__ == "__main__":
    run(main)
