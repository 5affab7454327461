"""Measure peak memory and time of training and inference of MambaPose and of ViTPose with as many parameters.

Each point is measured in a process of its own and written at once; what the file has is not measured again.

python tools/bench/memory.py
python tools/bench/memory.py --device cuda --amp bf16 --sizes small base --repeats 5
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

import argparse
import json
import os
import re
from itertools import product

import torch
from tqdm import tqdm

from lib.cli import Parser, positive_number, run
from lib.errors import UserError
from lib.files import PROJECT
from lib.model.mambapose.sizes import SIZES
from tools.bench import shared as benchmark
from tools.bench.shared import memory_report as report
from tools.bench.shared.image_networks import NETWORKS, PASSES
from tools.bench.shared.measuring import Failed, in_new_process
from tools.bench.shared.peaks import Point, measure_point

IMAGES = ((256, 192), (512, 384), (1024, 768))  # height and width, px
BATCHES = (1, 8, 16, 32)
SAME = ("cpu", "gpu", "torch", "threads")  # of the machine, in all points of a file
LIBRARIES = ("lib.model.vitpose.network", "torch._dynamo")  # the slowest to load; the latter by recomputation
_SHARE = 0.8  # of the memory that is free, for one process


def image(text):
    """Return (height, width) of an option such as 256x192, for argparse."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    size = tuple(map(int, found.groups())) if found else (0, 0)
    if not all(size) or any(pixels % 16 for pixels in size):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH in multiples of 16, such as 256x192, got {text!r}")
    return size


def parse():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small"], help="default: small")
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES), help="default: both")
    parser.add_argument("--images", nargs="+", type=image, default=IMAGES, metavar="HxW", help="px (default: three)")
    parser.add_argument("--batches", nargs="+", type=benchmark.count, default=BATCHES, help="default: 1 8 16 32")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="default: all")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is a GPU")
    parser.add_argument("--amp", choices=("off", "bf16"), default="off", help="arithmetic (default: float32)")
    parser.add_argument("--repeats", type=benchmark.count, default=1, help="timed calls (default: %(default)s)")
    parser.add_argument("--threads", type=benchmark.count, default=torch.get_num_threads(), help="default: all")
    parser.add_argument(
        "--most-gb", type=positive_number, help="for one point on a CPU (default: 80 %% of what is free)"
    )
    parser.add_argument("--busy", action="store_true", help="mark times: the machine does other work meanwhile")
    parser.add_argument("--again", action="store_true", help="measure again what the file has")
    parser.add_argument("--report", action="store_true", help="measure nothing: table and charts of what the file has")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: memory.json in benchmarks/cpu or cuda")
    return parser.parse()


def points_of(options):
    """Return the points that the options ask for: training first, small images and batches first."""
    chosen = [
        Point(size, name, doing, height, width, batch)
        for size, doing, (height, width), batch, name in product(
            options.sizes, options.passes, options.images, options.batches, options.networks
        )
        if doing == "training" or NETWORKS[name].infers
    ]
    order = {doing: number for number, doing in enumerate(PASSES)}
    return sorted(chosen, key=lambda point: (order[point.doing], _cost(point), point.size))


def _cost(point):
    return point.height * point.width * point.batch


def read(path, machine, amp, adds):
    """Return {Point: figures} of a file, empty if there is none, and the machine they are of.

    adds: whether points of this machine are to be added.

    Raises:
        UserError: it is of another machine or arithmetic, and points are to be added.
    """
    if not path.exists():
        return {}, machine
    try:
        recorded = json.loads(path.read_text())
        found = {Point(*(entry[key] for key in Point._fields)): entry for entry in recorded["points"]}
        before = {**{key: recorded["machine"][key] for key in SAME}, "amp": recorded["amp"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no result of this benchmark; give another --out") from error
    for key, value in before.items():
        here = amp if key == "amp" else machine[key]
        if adds and value != here:
            raise UserError(f"{path}: was measured with {key} {value}, here it is {here}; give another --out")
    return found, recorded["machine"]


def refusal(point, found, limit):
    """Return why a point is not tried, by the same on the largest smaller batch; None if it may fit."""
    smaller = [p for p in found if p._replace(batch=0) == point._replace(batch=0) and p.batch < point.batch]
    if not smaller:
        return None
    before = max(smaller, key=lambda p: p.batch)
    if "missing" in found[before]:
        return f"batch {before.batch} did not fit"
    peak, state = found[before]["peak_bytes"], found[before]["state_bytes"]
    estimate = state + (peak - state) * point.batch / before.batch
    return f"needs about {estimate / 1e9:.0f} GB, {limit / 1e9:.0f} may be taken" if estimate > limit else None


def measure(points, found, options, device, save):
    """Measure points and add them to `found`; save() after each."""
    bar = tqdm(total=sum(map(_cost, points)), unit="px", unit_scale=True, desc="memory", disable=None)
    for point in points:
        bar.set_postfix_str(f"{point.size} {point.network} {point.doing} {point.height}x{point.width} {point.batch}")
        limit = limit_of(options, device)
        missing = refusal(point, found, limit) if device.type == "cpu" else None
        figures = {"missing": missing}
        if not missing:
            try:
                settings = device, options.amp, options.repeats, options.threads, limit
                figures = in_new_process(measure_point, point, *settings, preloaded=LIBRARIES)
            except Failed as reason:
                figures = {"missing": str(reason)}
            else:
                figures["busy"] = options.busy
        found[point] = {**point._asdict(), **figures}
        save()
        bar.update(_cost(point))
    bar.close()


def limit_of(options, device):
    """Return the bytes that one process may take on a CPU."""
    if options.most_gb:
        return int(options.most_gb * 1e9)
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with Path("/proc/meminfo").open() as lines:  # counts what caches would give back too
        free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), free)
    return int(_SHARE * free)


def main():
    options = parse()
    device = benchmark.device_of(options)
    machine = benchmark.machine(device)
    name = "memory.json" if options.amp == "off" else f"memory_{options.amp}.json"
    out = options.out or PROJECT / "benchmarks" / device.type / name
    found, machine = read(out, machine, options.amp, adds=not options.report)
    points = [] if options.report else [p for p in points_of(options) if options.again or p not in found]

    def save():
        ordered = [found[point] for point in sorted(found, key=lambda p: (p.size, p.doing, _cost(p)))]
        content = {"machine": machine, "amp": options.amp, "goals": report.judged(found), "points": ordered}
        benchmark.write_json(out, content)

    measure(points, found, options, device, save)
    if not found:
        raise UserError(f"{out}: nothing is measured yet; leave out --report")
    save()
    show(found, out, machine, options.amp)


def show(found, out, machine, amp):
    """Print tables and goals, and draw a chart of each size and pass."""
    on = machine["gpu"] or f"{machine['cpu']}, threads: {machine['threads']}"
    written = [out]
    for size, doing in dict.fromkeys((p.size, p.doing) for p in sorted(found, key=lambda p: (p.size, p.doing))):
        print(*report.table_of(found, size, doing), "", sep="\n")
        path = out.with_name(f"{out.stem}_{size}_{doing}.png")
        arithmetic = "float32" if amp == "off" else amp
        title = f"Peak memory of {doing}, {size}, {arithmetic}, {on} (x: ratio to ViTPose with SDPA)"
        report.draw(path, title, found, size, doing)
        written.append(path)
    for goal in report.judged(found):
        verdict = "holds" if goal["holds"] else f"MISSED, held at {goal['held']} of {goal['measured']} points"
        print(f"{goal['size']}, against {goal['goal']}: {verdict}; worst {goal['worst']:.2f} ({goal['at']})")
    print("written:", *written)


if __name__ == "__main__":
    run(main, when_memory_ends="lower --batches or --images")
