"""Measure images per second of MambaPose in training and inference, beside ViTPose with as many parameters.

Networks, loss and optimiser on random images, without data: what a training reads and draws comes on top.

python tools/bench/images.py
python tools/bench/images.py --device cuda --amp bf16
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

from functools import partial
from statistics import median
from typing import NamedTuple

import torch

from lib.cli import Parser, run
from lib.files import PROJECT
from lib.model.products import fast_products
from tools.bench import shared as benchmark
from tools.bench.shared.image_networks import NETWORKS, PASSES, USUAL, build

COMPARED = ("mambapose", "mambapose-plain", USUAL)


class Case(NamedTuple):
    """Networks of a size in one of `PASSES`, on images of height x width px; goal: images/s of MambaPose, or None."""

    size: str
    doing: str
    height: int
    width: int
    goal: float | None = None


CASES = {
    "cpu": (
        Case("nano", "training", 128, 96, 100),
        Case("nano", "inference", 128, 96, 300),
        Case("tiny", "inference", 256, 192, 15),
    ),
    "cuda": tuple(Case(size, doing, 256, 192) for size in ("small", "base") for doing in PASSES),
}


def parse():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=CASES, help="default: cuda if there is a GPU")
    parser.add_argument("--amp", choices=("off", "bf16"), default="off", help="arithmetic (default: float32)")
    parser.add_argument("--batch", type=benchmark.count, default=32, help="images at once (default: %(default)s)")
    parser.add_argument("--repeats", type=benchmark.count, default=7, help="of which the median counts (default: 7)")
    parser.add_argument("--threads", type=benchmark.count, default=torch.get_num_threads(), help="default: all")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: images.json in benchmarks/cpu or cuda")
    return parser.parse()


def measure(case, options, device):
    """Return {network: {"seconds": of each repeat, "images_per_second", "times_vitpose"}}, all timed in turn."""
    names = [name for name in COMPARED if case.doing == "training" or NETWORKS[name].infers]
    images = torch.rand(options.batch, 3, case.height, case.width, device=device)
    calls = {
        name: partial(PASSES[case.doing](build(name, case.size).to(device), options.amp), images) for name in names
    }
    seconds = benchmark.time_in_turn(calls, options.repeats, device)
    speeds = {name: options.batch / median(of_one) for name, of_one in seconds.items()}
    return {
        name: {
            "seconds": seconds[name],
            "images_per_second": speeds[name],
            "times_vitpose": median(a / b for a, b in zip(seconds[USUAL], seconds[name])),
        }
        for name in names
    }


def rows_of(case, found):
    """Return rows of the table: one for each network."""
    rows = []
    for name, of_one in found.items():
        speed, judged = of_one["images_per_second"], ""
        if name == COMPARED[0] and case.goal:
            judged = f"{case.goal:g} ({'holds' if speed >= case.goal else 'MISSED'})"
        title = f"{case.size} {case.height} x {case.width} {case.doing}: {NETWORKS[name].label}"
        rows.append([title, f"{speed:.1f}", f"{of_one['times_vitpose']:.2f}", judged])
    return rows


def main():
    options = parse()
    device = benchmark.device_of(options)
    machine = benchmark.machine(device)
    with fast_products():  # as training and inference have it
        found = {case: measure(case, options, device) for case in CASES[device.type]}
    out = options.out or PROJECT / "benchmarks" / device.type / "images.json"
    cases = [{**case._asdict(), "networks": networks} for case, networks in found.items()]
    benchmark.write_json(out, {"machine": machine, "options": benchmark.options_of(options, device), "cases": cases})
    rows = [row for case, networks in found.items() for row in rows_of(case, networks)]
    print(f"{machine['gpu'] or machine['cpu']}, threads: {machine['threads']}, batch {options.batch}")
    header = [f"height x width, {options.amp if options.amp != 'off' else 'float32'}", "images/s", "x ViTPose", "goal"]
    print(*benchmark.table(header, rows), f"written: {out}", sep="\n")


if __name__ == "__main__":
    run(main, when_memory_ends="lower --batch")
