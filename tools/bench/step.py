"""Measure what training adds to forward, backward and optimiser, and a forward pass of S by its arithmetic.

python tools/bench/step.py
python tools/bench/step.py --compile          # takes minutes more
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

import math
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from statistics import median

import torch

from lib.cli import Parser, run
from lib.config import Config
from lib.data.datasets import open_dataset
from lib.engine.checkpoint import LATEST, PREVIOUS, write_checkpoint
from lib.engine.interrupts import StopRequest
from lib.engine.runtime import Runtime
from lib.engine.state import new_state
from lib.engine.trainer import Trainer
from lib.files import PROJECT
from lib.model.products import fast_products
from lib.model.registry import build_model
from lib.task import open_tasks
from tools.bench import shared as benchmark
from tools.bench.shared.clips import write_clips
from tools.bench.shared.steps import recipe_step

EPOCH = 18_000  # training clips of Human3.6M at its full size, cut as published
GOALS = {"loop": 0.03, "checkpoints": 0.01}  # largest shares: of a step, of an epoch
USUAL = "float32"  # what ratios are relative to


def parse():
    parser = Parser(description=__doc__.splitlines()[0])
    benchmark.add_sizes(parser, repeats=5)  # batch 1: what does not grow with it weighs most
    parser.add_argument("--steps", type=benchmark.count, default=3, help="timed at a time (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="measure the compiled forward pass too")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: step.json in benchmarks/cpu or cuda")
    return parser.parse()


class Rounds:
    """Records a training's epochs, and times as many steps of a bare loop after each."""

    id = None

    def __init__(self, step, steps, device):
        self.seconds: dict = {"trainer": [], "bare": []}
        self._step, self._steps, self._device = step, steps, device

    def epoch(self, entry):
        self.seconds["trainer"].append(entry["seconds"] / self._steps)
        self.seconds["bare"].append(benchmark.seconds_of(self._step, self._steps, self._device))


def train(config, runtime, folder, options):
    """Train by the real trainer and by a bare loop in turn, without stochastic depth: all steps cost the same.

    Returns:
        the `Trainer`, and {"trainer_seconds", "bare_seconds": lists, of a step, "step_seconds": the trainer's median,
        "share": median of what the trainer's step takes beside the bare one}.
    """
    torch.manual_seed(config.seed)
    state = new_state(build_model(config).to(runtime.device), config, runtime)
    trainer = Trainer(state, open_tasks(config, open_dataset(config)), config, runtime, folder, StopRequest())
    rounds = Rounds(recipe_step(config, options.batch, options.frames, runtime.device), options.steps, runtime.device)
    trainer.train(rounds)
    found = {name: seconds[1:] for name, seconds in rounds.seconds.items()}  # the first round is warm-up
    return trainer, {
        **{f"{name}_seconds": seconds for name, seconds in found.items()},
        "step_seconds": median(found["trainer"]),
        "share": median(1 - bare / whole for whole, bare in zip(found["trainer"], found["bare"])),
    }


def checkpoints(trainer, step_seconds, repeats):
    """Return {"seconds": of each write, "median_seconds", "bytes", "epoch_seconds", "writes": of an epoch, "share"}."""
    config, path, seconds = trainer.config, trainer.folder / LATEST, []
    for _ in range(repeats):
        start = time.perf_counter()
        write_checkpoint(path, trainer.state.content(trainer.runtime, config, None), keep=path.with_name(PREVIOUS))
        seconds.append(time.perf_counter() - start)
    epoch = step_seconds * math.ceil(EPOCH / config.batch_size)
    writes = 1 + int(epoch / 60 / config.checkpoint_minutes)
    return {
        "seconds": seconds,
        "median_seconds": median(seconds),
        "bytes": path.stat().st_size,
        "epoch_seconds": epoch,
        "writes": writes,
        "share": writes * median(seconds) / epoch,
    }


def forward(model, config, options):
    """Return {arithmetic: {"seconds", "median_seconds", "ratio", "difference"}} of one clip, both to usual float32."""
    functions = {
        USUAL: (model, nullcontext),
        "oneDNN products": (model, fast_products),
        "bf16": (Runtime(config.model_copy(update={"amp": "bf16"})).cast(model), nullcontext),
    }
    if options.compile:
        functions["oneDNN products, compiled"] = (
            Runtime(config.model_copy(update={"compile": True})).wrap(model),
            fast_products,
        )
    device = next(model.parameters()).device
    clip = torch.randn(1, options.frames, benchmark.JOINTS, config.in_chans, device=device)

    def call(function, context):
        with torch.no_grad(), context():
            return function(clip)

    calls = {name: partial(call, *pair) for name, pair in functions.items()}
    seconds = benchmark.time_in_turn(calls, options.repeats, device)
    usual, poses = median(seconds[USUAL]), calls[USUAL]()
    return {
        name: {
            "seconds": found,
            "median_seconds": median(found),
            "ratio": median(found) / usual,
            "difference": float((calls[name]() - poses).norm() / poses.norm()),
        }
        for name, found in seconds.items()
    }


def measure(options, device):
    """Return {"loop": of `train`, "checkpoints": of `checkpoints`, "forward": of `forward`}."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = Config(
            **write_clips(folder, options.steps * options.batch, options.frames),
            batch_size=options.batch,
            epochs=options.repeats + 1,
            drop_path=0.0,
            no_eval=True,
        )
        with Runtime(config) as runtime:
            trainer, loop = train(config, runtime, folder, options)
            writing = checkpoints(trainer, loop["step_seconds"], options.repeats)
    return {"loop": loop, "checkpoints": writing, "forward": forward(trainer.state.model.eval(), config, options)}


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    device = Runtime(Config()).device
    found = measure(options, device)
    machine = benchmark.machine(device)
    out = options.out or PROJECT / "benchmarks" / device.type / "step.json"
    result = {"machine": machine, "options": benchmark.options_of(options, device), "goals": GOALS}
    benchmark.write_json(out, result | found)
    print(f"PoseMamba S, {benchmark.conditions(options, machine)}, a step {found['loop']['step_seconds'] * 1e3:.0f} ms")
    shares = {"loop": "the loop's share of a step", "checkpoints": "checkpoints' share of an epoch"}
    rows = [[text, f"{found[name]['share']:.2%}", f"< {GOALS[name]:.0%}"] for name, text in shares.items()]
    print(*benchmark.table(["", "measured", "goal"], rows), "", sep="\n")
    rows = [
        [name, f"{of['median_seconds'] * 1e3:.1f}", f"{of['ratio']:.2f}", f"{of['difference']:.0e}"]
        for name, of in found["forward"].items()
    ]
    header = ["forward of one clip", "ms", f"x {USUAL}", "difference"]
    print(*benchmark.table(header, rows), f"written: {out}", sep="\n")


if __name__ == "__main__":
    run(main, when_memory_ends="lower --batch or --frames")
