"""Times a training step of S alone and beside a busy process, by how long OpenMP's waiting threads spin.

python tools/bench/busy.py
python tools/bench/busy.py --spin-counts 0 100 1000 10000 100000
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lib.threads import SPIN_COUNT, SPIN_VARIABLE, spin_briefly

spin_briefly()  # before PyTorch is loaded

import os
import subprocess
from contextlib import ExitStack, contextmanager
from statistics import median

import torch

from lib.cli import Parser, run
from lib.files import PROJECT
from tools.bench import shared as benchmark

DEFAULT = "libgomp's default"
CASES = ("alone", "beside a busy process")
WARM_UP = 3  # steps


def parse():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--spin-counts", nargs="+", type=benchmark.whole, default=[int(SPIN_COUNT)], metavar="N")
    benchmark.add_sizes(parser, batch=4)
    parser.add_argument("--out", type=Path, metavar="DIR", default=PROJECT / "benchmarks" / "cpu")
    return parser.parse()


class Worker:
    """A process with `spin_count` (None: the library's own) that makes training steps, one at a time."""

    def __init__(self, spin_count, options):
        environment = {name: value for name, value in os.environ.items() if name != SPIN_VARIABLE}
        if spin_count is not None:
            environment[SPIN_VARIABLE] = str(spin_count)
        sizes = map(str, (options.batch, options.frames, options.threads))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.bench.shared.steps", *sizes],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT, env=environment,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.communicate()

    def seconds(self):
        """Return how long the next step took."""
        print(file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


@contextmanager
def busy_process():
    """Keep a core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(options):
    """Return {name: {case: {"seconds": list, "median_seconds"}, "slowdown": busy over alone, "alone_over_default"}}.

    Every repeat times all spin counts in turn, first alone, then beside the busy process.
    """
    found = {name: {case: {"seconds": []} for case in CASES} for name in (DEFAULT, *map(str, options.spin_counts))}
    with ExitStack() as stack:
        counts = dict(zip(found, (None, *options.spin_counts)))
        workers = {name: stack.enter_context(Worker(number, options)) for name, number in counts.items()}
        for worker in benchmark.progress(workers.values(), "warm-up"):
            for _ in range(WARM_UP):
                worker.seconds()
        for _ in benchmark.progress(range(options.repeats), "timing"):
            for name, worker in workers.items():
                found[name][CASES[0]]["seconds"].append(worker.seconds())
            with busy_process():
                for name, worker in workers.items():
                    found[name][CASES[1]]["seconds"].append(worker.seconds())
    for cases in found.values():
        for case in CASES:
            cases[case]["median_seconds"] = median(cases[case]["seconds"])
    for cases in found.values():
        alone, beside = (median(cases[case]["seconds"]) for case in CASES)
        cases["slowdown"] = beside / alone
        cases["alone_over_default"] = alone / median(found[DEFAULT][CASES[0]]["seconds"])
    return found


def main():
    options = parse()
    found = measure(options)
    device = torch.device("cpu")
    torch.set_num_threads(options.threads)
    result = {"machine": benchmark.machine(device), "options": benchmark.options_of(options, device)}
    benchmark.write_json(options.out / "busy.json", result | {"spin_counts": found})
    rows = [
        [name, *(f"{cases[case]['median_seconds']:.2f}" for case in CASES), f"{cases['slowdown']:.2f}",
         f"{cases['alone_over_default']:.2f}"]
        for name, cases in found.items()
    ]  # fmt: skip
    header = [SPIN_VARIABLE, *(f"{case}, s" for case in CASES), "slowdown", "alone, x default"]
    print(*benchmark.table(header, rows), f"written: {options.out / 'busy.json'}", sep="\n")


if __name__ == "__main__":
    run(main)
