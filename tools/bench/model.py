"""Measure time and peak memory of whole PoseMamba models, forward and training step, by every implementation of the scan.

python tools/bench/model.py --sizes S B L
python tools/bench/model.py --implementations fused --peers MotionBERT MotionAGFormer-S
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from itertools import count
from statistics import median

import torch

from lib.cli import Parser, run
from lib.model import PoseMamba, bistssm
from lib.model.registry import build_model
from lib.model.scan_layer import STATE_SIZE
from tools.bench import shared as benchmark
from tools.peers import RECIPES, recipe_of

MATRIX_PRODUCTS = "matrix products"
MEMORY_BATCH = 4  # clips, as the published recipe trains on
DROP_PATH = 0.2  # stochastic depth of the published recipe, for times; memory is that of a step that drops nothing


def parse():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=benchmark.SIZES, default=["S"], help="default: S")
    parser.add_argument(
        "--peers", nargs="+", choices=RECIPES, metavar="NAME", default=[],
        help=f"other networks, on clips of their own length: {', '.join(RECIPES)} (default: none)",
    )  # fmt: skip
    benchmark.add_options(parser)
    return parser.parse()


@contextmanager
def scanned_by(implementation):
    """Make every model compute its cross-scans with an `Implementation`, and save its activations if that does.

    None: of a peer, which has no scans.
    """
    if implementation is None:
        yield
        return
    usual = bistssm.cross_scan, bistssm.recomputed
    bistssm.cross_scan = implementation.function
    if not implementation.recomputes:
        bistssm.recomputed = lambda function, *inputs: function(*inputs)
    try:
        yield
    finally:
        bistssm.cross_scan, bistssm.recomputed = usual


def build(size, frames, device, drop_path=DROP_PATH):
    torch.manual_seed(0)
    channels, depth = benchmark.SIZES[size]
    return PoseMamba(num_frame=frames, embed_dim_ratio=channels, depth=depth, drop_path_rate=drop_path).to(device)


def training_step(model, implementation, clips, numbers):
    """Run forward and backward with the mean of squares as the loss, without an optimiser.

    numbers: an iterator; the same number makes stochastic depth drop the same branches.
    """
    torch.manual_seed(next(numbers))
    model.zero_grad(set_to_none=True)
    with scanned_by(implementation):
        model(clips).square().mean().backward()


def forward_pass(model, implementation, clips):
    with scanned_by(implementation), torch.no_grad():
        return model(clips)


def build_peer(peer, device):
    """Return a peer without stochastic depth, and a function: how many clips -> clips of its own length."""
    torch.manual_seed(0)
    config = recipe_of(peer)
    shape = config.maxlen, config.num_joints, config.in_chans
    return build_model(config).to(device), lambda count: torch.randn(count, *shape, device=device)


def matrix_products(size, positions, device):
    """Return a function that computes only the matrix products of a model's Linear layers and scan projections."""
    channels, depth = benchmark.SIZES[size]
    inner, lines = benchmark.SIZES[size].inner, benchmark.SIZES[size].rank + 2 * STATE_SIZE
    products = []
    for inputs, outputs in (
        (channels, 2 * inner),  # in_proj
        (inner, bistssm.DIRECTIONS * lines),  # x_proj
        (inner, channels),  # out_proj
        (channels, 2 * channels),  # fc1
        (2 * channels, channels),  # fc2
    ):
        shapes = (positions, inputs), (inputs, outputs), (positions, outputs)
        products.append([torch.randn(shape, device=device) for shape in shapes])

    def call():
        for _ in range(2 * depth):
            for x, weight, y in products:
                torch.mm(x, weight, out=y)

    return call


def peak(name, size, options):
    """Return {"training": bytes} of a training step on `MEMORY_BATCH` clips."""
    device = benchmark.device_of(options)
    implementation = benchmark.implementations(device.type)[name]
    model = build(size, options.frames, device, drop_path=0.0)
    clips = torch.randn(MEMORY_BATCH, options.frames, benchmark.JOINTS, 2, device=device)
    training_step(model, implementation, clips[:1, :3], count())  # warm-up: loads libraries, starts threads
    model.zero_grad(set_to_none=True)
    return {"training": benchmark.peak_growth(partial(training_step, model, implementation, clips, count()), device)}


def peak_of_peer(peer, options):
    """Return {"training": bytes} as `peak` does."""
    device = benchmark.device_of(options)
    model, clips = build_peer(peer, device)
    training_step(model, None, clips(1), count())
    model.zero_grad(set_to_none=True)
    step = partial(training_step, model, None, clips(MEMORY_BATCH), count())
    return {"training": benchmark.peak_growth(step, device)}


def measure_peers(options, device):
    """Return {name: {"frames", "missing", and of each pass as of `benchmark.summary`}} of the peers asked for."""
    memory, failed = benchmark.measure_memory(options.peers, device, peak_of_peer, options, doing="peers: memory")
    calls: dict = {}
    for peer in memory:
        trained, clips = build_peer(peer, device)
        evaluated = deepcopy(trained).eval()
        calls[peer, "forward"] = partial(forward_pass, evaluated, None, clips(options.batch))
        calls[peer, "training"] = partial(training_step, trained, None, clips(options.batch), count())
    seconds = benchmark.time_in_turn(calls, options.repeats, device)
    measured = benchmark.summary(seconds, memory)
    for steps in measured.values():
        steps["training_over_forward"] = steps["training"]["median_seconds"] / steps["forward"]["median_seconds"]
    return {
        peer: {"frames": recipe_of(peer).maxlen, "missing": failed.get(peer, ""), **measured.get(peer, {})}
        for peer in options.peers
    }


def measure(size, options, device):
    """Return {"implementations": as of `benchmark.summary`, "floor": of a forward pass} of one model."""
    compared = benchmark.chosen(options.implementations, device.type, without=benchmark.SLOW)
    results = {name: {"description": i.description, "missing": i.missing} for name, i in compared.items()}
    available = {name: i for name, i in compared.items() if not i.missing}
    memory, failed = benchmark.measure_memory(available, device, peak, size, options, doing=f"{size}: memory")
    for name, reason in failed.items():
        results[name]["missing"] = reason
        del available[name]

    trained = build(size, options.frames, device)
    evaluated = deepcopy(trained).eval()
    clips = torch.randn(options.batch, options.frames, benchmark.JOINTS, 2, device=device)
    calls: dict = {}
    for name, implementation in available.items():
        calls[name, "forward"] = partial(forward_pass, evaluated, implementation, clips)
        calls[name, "training"] = partial(training_step, trained, implementation, clips, count())
    positions = options.batch * options.frames * benchmark.JOINTS
    calls[MATRIX_PRODUCTS] = matrix_products(size, positions, device)
    once = [key for key in calls if key[0] in benchmark.SLOW]
    seconds = benchmark.time_in_turn(calls, options.repeats, device, once)
    products = seconds.pop(MATRIX_PRODUCTS)
    for name, steps in benchmark.summary(seconds, memory).items():
        ratio = steps["training"]["median_seconds"] / steps["forward"]["median_seconds"]
        results[name] |= {**steps, "training_over_forward": ratio}
    return {"implementations": results, "floor": floor_of(size, positions, products, device, results)}


def floor_of(size, positions, products, device, results):
    """Return the least time of a forward pass: its matrix products, as measured, and the floor of its scans.

    Left out: convolutions, norms, gates and what moves between them.
    """
    shape, rates = benchmark.SIZES[size], benchmark.measure_rates(device, torch.float32)
    scan = benchmark.scan_floor(shape, positions, torch.float32, device, rates, projection=False)
    floor = median(products) + 2 * shape.depth * scan["seconds"]
    forward = results.get(benchmark.REFERENCE, {}).get("forward")
    return {
        "rates": rates,
        "matrix_products_seconds": products,
        "one_scan": scan,
        "scans": 2 * shape.depth,
        "seconds": floor,
        "times_floor": forward and forward["median_seconds"] / floor,
    }


def print_results(title, sizes, peers):
    header = ["model", "forward ms", "x fused", "training ms", "x fused", "training / forward"]
    header += [f"training peak MB, batch {MEMORY_BATCH}", "x fused"]
    *_, found = sizes.values()
    rows = []
    for name, result in rows_of(sizes, peers).items():
        steps = [result[step] for step in benchmark.PASSES]
        times = [c for step in steps for c in benchmark.figures(step, "median_seconds", "ratio", 1e3, ".1f")]
        memory = benchmark.figures(steps[1], "peak_bytes", "peak_ratio", 1e-6, ".1f")
        rows.append([name, *times, f"{result['training_over_forward']:.2f}", *memory])
    missing = [line for results in (found["implementations"], peers) for line in benchmark.missing_lines(results)]
    print(title, *benchmark.table(header, rows), *missing, sep="\n")
    for size, found in sizes.items():
        floor = found["floor"]
        products = median(floor["matrix_products_seconds"]) * 1e3
        scans = floor["scans"] * floor["one_scan"]["seconds"] * 1e3
        print(f"{size}: floor of forward {products + scans:.1f} ms: matrix products {products:.1f}, scans {scans:.1f}")
        if floor["times_floor"]:
            print(f"{size}: fused forward takes {floor['times_floor']:.2f} times the floor")


def rows_of(sizes, peers):
    """Return {name of a row: what was measured} of all that could be."""
    found = {f"{size} {name}": of for size, result in sizes.items() for name, of in result["implementations"].items()}
    found |= {f"{peer}, {of['frames']} frames": of for peer, of in peers.items()}
    return {name: of for name, of in found.items() if not of["missing"]}


def draw_results(path, title, sizes, peers):
    rows = rows_of(sizes, peers)
    marks = [(f"{size} {benchmark.REFERENCE}", found["floor"]["seconds"] * 1e3) for size, found in sizes.items()]
    marks = [(row, floor) for row, floor in marks if row in rows]
    steps = benchmark.PASSES
    time = benchmark.panel("time, ms (ratio to fused)", rows, steps, "median_seconds", "ratio", 1e3, marks)
    heading = f"peak memory of a training step, batch {MEMORY_BATCH}, MB (ratio to fused)"
    memory = benchmark.panel(heading, rows, steps[1:], "peak_bytes", "peak_ratio", 1e-6)
    benchmark.write_chart(path, title, list(rows), [time, memory])


def main():
    options = parse()
    device = benchmark.device_of(options)
    out = options.out or Path("benchmarks", device.type)
    sizes = {size: measure(size, options, device) for size in options.sizes}
    peers = measure_peers(options, device) if options.peers else {}
    machine = benchmark.machine(device)
    found = {"machine": machine, "options": benchmark.options_of(options, device), "sizes": sizes, "peers": peers}
    benchmark.write_json(out / "model.json", found | {"memory_batch": MEMORY_BATCH, "drop_path": DROP_PATH})
    title = f"PoseMamba, {benchmark.conditions(options, machine)}, float32, drop_path {DROP_PATH}"
    draw_results(out / "model.png", title, sizes, peers)
    print_results(title, sizes, peers)
    print(f"written: {out / 'model.json'}, {out / 'model.png'}")


if __name__ == "__main__":
    run(main, when_memory_ends="lower --batch or --frames")
