"""Measure exported networks beside the network itself: a forward pass of S, or of a file with its score too.

python tools/bench/export.py                                             # random weights: times
python tools/bench/export.py --weights demo/posemamba_wild.safetensors   # times, and what 8 bits cost of its test split
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

import tempfile
from functools import partial
from statistics import median

import torch

from lib.cli import Parser, run
from lib.config import load_config
from lib.data.datasets import open_dataset
from lib.engine.runtime import Runtime
from lib.engine.trainer import predict
from lib.export.aoti import write_aoti
from lib.export.onnx import write_onnx
from lib.files import PROJECT
from lib.model.opening import Opened, open_model
from lib.model.registry import build_model
from lib.model.weights import Checkpoint
from lib.task import open_tasks
from tools.bench import shared as benchmark
from tools.export_model import open_exported

CONFIG = PROJECT / "configs/pose3d/PoseMamba_train_h36m_S.yaml"
USUAL = "PyTorch, compiled scan"  # what ratios are relative to
GOAL = 3.0  # largest ratio of ONNX Runtime
WRITERS: dict = {  # name: suffix, and what writes it
    "ONNX Runtime": (".onnx", write_onnx),
    "ONNX Runtime, 8 bits": (".onnx", partial(write_onnx, int8=True)),
    "AOTInductor": (".pt2", write_aoti),
}


def parse():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchmark.add_sizes(parser)
    parser.add_argument("--weights", metavar="FILE", help="of a trained network, in place of S with random ones")
    parser.add_argument("--formats", nargs="+", choices=WRITERS, default=list(WRITERS), help="default: all")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: export.json in benchmarks/cpu")
    return parser.parse()


def network(options):
    """Return the `Opened` network that is exported."""
    if options.weights:
        return open_model(options.weights)
    config = load_config(CONFIG, ())
    torch.manual_seed(0)
    model = build_model(config).eval()
    model.recorded = config.model_dump()
    return Opened(model, config, Checkpoint(path="S, random weights", model=model.state_dict()))


def score(model, config):
    """Return the P-MPJPE and MPJPE, mm, of a network on the test split of its config."""
    with Runtime(config) as runtime:
        task = open_tasks(config, open_dataset(config))[-1]
        values = task.score(predict(model, task, runtime)).values
    return {name: values[name] for name in ("mpjpe", "p_mpjpe")}


def measure(opened, options):
    """Return {name: {"seconds", "median_seconds", "ratio", "difference", "bytes", and "scores" of a trained network}}."""
    config = opened.config
    frames = min(options.frames, config.maxlen)
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(options.batch, frames, config.num_joints, config.in_chans, generator=generator)
    models, sizes = {USUAL: opened.model}, {USUAL: sum(p.nbytes for p in opened.model.parameters())}
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(options.formats):
            suffix, write = WRITERS[name]
            path = Path(folder, f"{number}{suffix}")
            write(path, opened)
            models[name], sizes[name] = open_exported(path), path.stat().st_size
        with torch.inference_mode():
            calls = {name: partial(model, clip) for name, model in models.items()}
            seconds = benchmark.time_in_turn(calls, options.repeats, torch.device("cpu"))
            poses = {name: call() for name, call in calls.items()}
        scores = {
            name: score(model, config) for name, model in models.items() if options.weights and name != "AOTInductor"
        }
    return {
        name: {
            "seconds": found,
            "median_seconds": median(found),
            "ratio": median(found) / median(seconds[USUAL]),
            "difference": float((poses[name] - poses[USUAL]).abs().max()),
            "bytes": sizes[name],
            "scores": scores.get(name),
        }
        for name, found in seconds.items()
    }


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    device = torch.device("cpu")
    opened = network(options)
    found = measure(opened, options)
    machine = benchmark.machine(device)
    out = options.out or PROJECT / "benchmarks/cpu/export.json"
    result = {"machine": machine, "options": benchmark.options_of(options, device), "goal": GOAL, "networks": found}
    benchmark.write_json(out, result)
    print(f"{opened.checkpoint.path}, {benchmark.conditions(options, machine)}")
    rows = [
        [
            name, f"{of['median_seconds'] * 1e3:.0f}", f"{of['ratio']:.2f}", f"{of['difference']:.0e}",
            f"{of['bytes'] / 1e6:.1f}", *(f"{of['scores'][key]:.1f}" if of["scores"] else "" for key in ("mpjpe", "p_mpjpe")),
        ]
        for name, of in found.items()
    ]  # fmt: skip
    header = ["", "ms", "times", "difference", "MB", "MPJPE", "P-MPJPE"]
    print(*benchmark.table(header, rows), f"goal: ONNX Runtime at most {GOAL} times; written: {out}", sep="\n")


if __name__ == "__main__":
    run(main, when_memory_ends="lower --batch or --frames")
