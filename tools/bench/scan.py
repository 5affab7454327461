"""Measure time and peak memory of PoseMamba's cross-scan, forward and forward + backward, by every implementation.

python tools/bench/scan.py --size S
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

import torch

from lib.cli import Parser, run
from lib.model.bistssm import BiSTSSM
from lib.model.scan_orders import LIMB_PARTNER
from tools.bench import shared as benchmark

DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")}


def parse():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=benchmark.SIZES, default="S", help="of the model (default: %(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of activations (default: %(default)s)")
    benchmark.add_options(parser)
    return parser.parse()


def draw(options, device, frames):
    """Return arguments of `selective_scan.cross_scan`: random activations (B, F, J, D) and the weights of a new layer."""
    torch.manual_seed(0)
    op = BiSTSSM(benchmark.SIZES[options.size].channels).to(device)
    u = torch.randn(options.batch, frames, benchmark.JOINTS, op.Ds.numel() // len(op.order), device=device)
    A = -op.A_logs.detach().exp()
    weights = (op.x_proj_weight, op.dt_projs_weight, op.dt_projs_bias, A, op.Ds)
    leaves = [t.detach().requires_grad_() for t in (u.to(DTYPES[options.dtype]), *weights)]
    return *leaves, op.order, LIMB_PARTNER


def passes(function, arguments):
    """Return {pass: call}: an output without gradients; an output and the gradients of activations and weights."""
    leaves = arguments[:6]
    dy = torch.randn_like(leaves[0])

    def forward():
        with torch.no_grad():
            return function(*arguments)

    def training():
        y = function(*arguments)
        return y, torch.autograd.grad(y, leaves, dy)

    return dict(zip(benchmark.PASSES, (forward, training)))


def peaks(name, options):
    """Return {pass: bytes} of one implementation."""
    device = benchmark.device_of(options)
    function = benchmark.implementations(device.type)[name].function
    for call in passes(function, draw(options, device, frames=3)).values():
        call()  # warm-up: loads libraries, starts threads
    calls = passes(function, draw(options, device, options.frames))
    return {step: benchmark.peak_growth(call, device) for step, call in calls.items()}


def measure(options, device):
    """Return results by implementation, as `benchmark.summary`, with descriptions and differences."""
    compared = benchmark.chosen(options.implementations, device.type)
    results = {name: {"description": i.description, "missing": i.missing} for name, i in compared.items()}
    available = {name: i.function for name, i in compared.items() if not i.missing}
    memory, failed = benchmark.measure_memory(available, device, peaks, options)
    for name, reason in failed.items():
        results[name]["missing"] = reason
        del available[name]

    arguments = draw(options, device, options.frames)
    calls = {name: passes(function, arguments) for name, function in available.items()}
    outputs = {name: steps["forward"]() for name, steps in calls.items()}
    flat = {(name, step): call for name, steps in calls.items() for step, call in steps.items()}
    once = [(name, step) for name, step in flat if name in benchmark.SLOW]
    seconds = benchmark.time_in_turn(flat, options.repeats, device, once)
    for name, steps in benchmark.summary(seconds, memory).items():
        results[name] |= {"difference": difference(outputs, name), **steps}
    return results


def difference(outputs, name):
    """Return the norm of an output's difference from the reference's over the norm of that; None without a reference."""
    if benchmark.REFERENCE not in outputs:
        return None
    reference = outputs[benchmark.REFERENCE].double()
    return float((outputs[name].double() - reference).norm() / reference.norm())


def floor_of(options, device, results):
    """Return the floor of a forward pass and, if the reference ran, the ratio of its time to that."""
    size, positions = benchmark.SIZES[options.size], options.batch * options.frames * benchmark.JOINTS
    rates = benchmark.measure_rates(device, DTYPES[options.dtype])
    floor = benchmark.scan_floor(size, positions, DTYPES[options.dtype], device, rates)
    forward = results.get(benchmark.REFERENCE, {}).get("forward")
    return {"rates": rates, **floor, "times_floor": forward and forward["median_seconds"] / floor["seconds"]}


def print_results(title, results, floor):
    header = ["cross-scan", "forward ms", "x fused", "training ms", "x fused"]
    header += ["peak MB", "x fused", "training peak MB", "x fused", "difference"]
    rows = []
    for name, result in results.items():
        if not result["missing"]:
            steps = [result[step] for step in benchmark.PASSES]
            times = [c for step in steps for c in benchmark.figures(step, "median_seconds", "ratio", 1e3, ".2f")]
            memory = [c for step in steps for c in benchmark.figures(step, "peak_bytes", "peak_ratio", 1e-6, ".1f")]
            difference = result["difference"]
            rows.append([name, *times, *memory, "-" if difference is None else f"{difference:.0e}"])
    print(title)
    print(*benchmark.table(header, rows), *benchmark.missing_lines(results), sep="\n")
    terms = ", ".join(f"{name} {seconds * 1e3:.3f}" for name, seconds in floor["terms_seconds"].items())
    print(f"floor of forward: {floor['seconds'] * 1e3:.3f} ms, bound by {floor['bound']} (ms: {terms})")
    if floor["times_floor"]:
        print(f"fused forward: {floor['times_floor']:.2f} times the floor")


def draw_results(path, title, results, floor):
    shown = {name: result for name, result in results.items() if not result["missing"]}
    marks = [(benchmark.REFERENCE, floor["seconds"] * 1e3)] if benchmark.REFERENCE in shown else []
    steps = benchmark.PASSES
    time = benchmark.panel("time, ms (ratio to fused)", shown, steps, "median_seconds", "ratio", 1e3, marks)
    memory = benchmark.panel("peak memory, MB (ratio to fused)", shown, steps, "peak_bytes", "peak_ratio", 1e-6)
    benchmark.write_chart(path, title, list(shown), [time, memory])


def main():
    options = parse()
    device = benchmark.device_of(options)
    out = options.out or Path("benchmarks", f"{device.type}-{options.size}-{options.dtype}")
    results = measure(options, device)
    floor = floor_of(options, device, results)
    machine = benchmark.machine(device)
    found = {"machine": machine, "options": benchmark.options_of(options, device), "implementations": results}
    benchmark.write_json(out / "scan.json", found | {"floor": floor})
    title = f"cross-scan of PoseMamba-{options.size}, {benchmark.conditions(options, machine)}, {options.dtype}"
    draw_results(out / "scan.png", title, results, floor)
    print_results(title, results, floor)
    print(f"written: {out / 'scan.json'}, {out / 'scan.png'}")


if __name__ == "__main__":
    run(main, when_memory_ends="lower --batch or --frames")
