"""What the benchmarks share: what is compared, how time and memory are measured, floors, and how results are written."""

import importlib
import json
import math
import multiprocessing
import os
import platform
import signal
import time
from argparse import ArgumentTypeError
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from selective_scan import cross_scan, cross_scan_unfused, how_to_get, why_unavailable
from selective_scan.reference import cross_scan_by_copies
from torch.nn import functional as F
from tqdm import tqdm

from lib.errors import UserError, describe
from lib.files import atomic_path
from lib.model.mambablocks import DIRECTIONS, STATE_SIZE
from lib.model.scan_orders import LIMB_PARTNER

JOINTS = len(LIMB_PARTNER)
REFERENCE = "fused"  # what ratios are relative to
NAMES = (REFERENCE, "copies", "torch", "loop", "mamba-ssm", "mambapy")
SLOW = ("loop",)  # called once, whatever the repeats: time and memory of its gradient grow with L * L
PASSES = ("forward", "training")

_SHORTEST = 0.02  # s; shorter calls are timed several at once
_MOST_CALLS = 100


class Size(NamedTuple):
    """A published model: C, and pairs of blocks."""

    channels: int
    depth: int

    @property
    def inner(self):
        return 2 * self.channels

    @property
    def rank(self):
        return math.ceil(self.channels / 16)


SIZES = {"S": Size(64, 10), "B": Size(128, 10), "L": Size(128, 20)}


# ---- What is compared ----


@dataclass(frozen=True)
class Implementation:
    """A way to compute the cross-scan: `function` takes what `selective_scan.cross_scan` takes.

    missing: why it cannot run here; "" if it can.
    """

    description: str
    function: Callable
    missing: str = ""


def implementations(device_type):
    """{name of `NAMES`: Implementation} on this type of device."""
    no_compiled = why_unavailable(device_type, device_type)
    if no_compiled:
        no_compiled += f"; {how_to_get(device_type)}"
    copies = partial(cross_scan_unfused, implementation=device_type)
    found = (
        Implementation("one pass, no copies", partial(cross_scan, implementation=device_type), no_compiled),
        Implementation("copies per direction, our compiled scan", copies, no_compiled),
        Implementation("copies per direction, PyTorch scan", partial(cross_scan_unfused, implementation="torch")),
        Implementation("copies per direction, loop over time", partial(cross_scan_unfused, implementation="loop")),
        Implementation(
            "copies per direction, mamba-ssm's scan",
            partial(_by_copies, _mamba_ssm_scan),
            _why_not("mamba_ssm.ops.selective_scan_interface") or ("" if device_type == "cuda" else "needs CUDA"),
        ),
        Implementation(
            "copies per direction, mambapy's parallel scan",
            partial(_by_copies, _mambapy_scan),
            _why_not("mambapy.pscan"),
        ),
    )
    return dict(zip(NAMES, found))


def chosen(names, device_type, without=()):
    """The named implementations, or all but `without`; those that are missing stay in, to be reported.

    Raises:
        UserError: a named one is missing.
    """
    known = implementations(device_type)
    for name in names or ():
        if known[name].missing:
            raise UserError(f"--implementations: {name} cannot run on {device_type}: {known[name].missing}")
    return {name: found for name, found in known.items() if (name in names if names else name not in without)}


def _why_not(module):
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        return "not installed" if error.name == package else f"does not import: {describe(error)}"
    except (ImportError, OSError) as error:
        return f"does not import: {describe(error)}"
    return ""


def _by_copies(
    scan, u, x_proj_weight, dt_projs_weight, dt_projs_bias, A, D, directions, limb_partners=(), exact_limbs=False
):
    weights = (x_proj_weight, dt_projs_weight, dt_projs_bias, A, D)
    return cross_scan_by_copies(scan, u, *weights, directions, limb_partners, exact_limbs)


def _mamba_ssm_scan(u, delta, A, B, C, D, delta_bias, delta_softplus):
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus)


def _mambapy_scan(u, delta, A, B, C, D, delta_bias, delta_softplus):
    """As mambapy's `MambaBlock.selective_scan`, for K groups: every state (batch, L, K * channels, N) in memory."""
    from mambapy.pscan import pscan

    x, delta, B, C = (t.float() for t in (u, delta, B, C))
    delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    B, C = (t.repeat_interleave(u.shape[1] // t.shape[1], dim=1).permute(0, 3, 1, 2) for t in (B, C))
    step = delta.mT[..., None]
    h = pscan(torch.exp(step * A), step * B * x.mT[..., None])
    y = (h * C).sum(-1).mT + D[:, None] * x
    return y.to(u.dtype)


# ---- Options ----


def add_options(parser):
    """The options of all benchmarks."""
    parser.add_argument("--frames", type=_count, default=243, help="of a clip (default: %(default)s)")
    parser.add_argument("--batch", type=_count, default=1, help="clips at once (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is a GPU")
    parser.add_argument("--repeats", type=_count, default=7, help="of which the median counts (default: %(default)s)")
    parser.add_argument("--threads", type=_count, default=torch.get_num_threads(), help="CPU threads (default: all)")
    parser.add_argument(
        "--implementations", nargs="+", choices=NAMES, metavar="NAME",
        help=f"of {', '.join(NAMES)} (default: what is there; the loop takes minutes, so a model leaves it out)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results (default: below benchmarks/)")


def device_of(options):
    """The device, with the threads set.

    Raises:
        UserError: CUDA is asked for and not there.
    """
    torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no CUDA device here; use --device cpu")
    return torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _count(text):
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def options_of(options, device):
    """The options as results tell them: without the folder, with the device that was chosen."""
    return {key: value for key, value in vars(options).items() if key != "out"} | {"device": device.type}


def progress(items, doing):
    return tqdm(items, desc=doing, leave=False, disable=None)


# ---- Time ----


def time_in_turn(calls, repeats, device, once=()):
    """Seconds per call, {key: a list, one per repeat}, of functions {key: function}.

    Every repeat times every function, so that what else the machine does meets all alike. Each is warmed up first;
    one that is short is called several times in a row for one figure. Keys in `once` are called a single time.
    """
    in_a_row, seconds = dict.fromkeys(once, 1), {key: [] for key in calls}
    for key, call in progress(calls.items(), "warm-up"):
        if key in once:
            continue
        duration = _seconds(call, 1, device)
        if duration < _SHORTEST:
            duration = _seconds(call, 1, device)  # the first call also loads libraries and fills caches
        in_a_row[key] = max(1, min(_MOST_CALLS, math.ceil(_SHORTEST / duration)))
    turns = [(repeat, key) for repeat in range(repeats) for key in calls if repeat == 0 or key not in once]
    for _, key in progress(turns, "timing"):
        seconds[key].append(_seconds(calls[key], in_a_row[key], device))
    return seconds


def _seconds(call, count, device):
    _wait(device)
    start = time.perf_counter()
    for _ in range(count):
        call()
    _wait(device)
    return (time.perf_counter() - start) / count


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


# ---- Memory ----


def measure_memory(device, function, *arguments):
    """function(*arguments) where `peak_growth` can be trusted: in a fresh process on the CPU, here on CUDA.

    Returns:
        what `function` returns, or None if memory runs out.
    """
    try:
        if device.type == "cuda":
            return function(*arguments)
        # Freed tensors go back to the system at once, so that what is resident is what is in use.
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # bytes; read by processes that start from here on
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, fresh, signal.signal, (signal.SIGINT, signal.SIG_DFL)) as executor:
            return executor.submit(function, *arguments).result()
    except (torch.OutOfMemoryError, MemoryError, BrokenProcessPool):
        return None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        return None
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def peak_growth(call, device):
    """Bytes by which the memory in use grows at most during call(), its result included.

    On CUDA, of PyTorch's allocator; on the CPU, resident memory of the process, None where /proc does not tell.
    """
    if device.type == "cuda":
        _wait(device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        _wait(device)
        del result
        return torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is resident now
    except OSError:
        return None
    before = _resident_peak()
    result = call()
    after = _resident_peak()
    del result
    return after - before


def _resident_peak():
    """Bytes. Not getrusage's ru_maxrss: a process inherits that from the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


# ---- Floors ----


def measure_rates(device, dtype):
    """What the device can do, measured now: bytes/s copied, multiply-adds/s of float32 and of projections in `dtype`,
    and special functions/s by its data sheet (CUDA, where the clock is known; else None)."""
    on_cuda = device.type == "cuda"
    source = torch.ones(2**28 if on_cuda else 2**26, device=device)  # touched: untouched pages are all the same one
    target = torch.empty_like(source)
    copy = _best(lambda: target.copy_(source), device)
    size = 8192 if on_cuda else 2048

    def multiply_adds(dtype):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        return size**3 / _best(lambda: torch.mm(a, b, out=out), device)

    single = multiply_adds(torch.float32)
    specials = None
    if on_cuda:
        properties = torch.cuda.get_device_properties(device)
        if clock := getattr(properties, "clock_rate", None):  # kHz
            specials = 16.0 * properties.multi_processor_count * clock * 1000  # 16 per clock and multiprocessor
    return {
        "bytes_per_second": 2 * source.nbytes / copy,
        "multiply_adds_per_second": single,
        # On the CPU the compiled scan projects in float32, whatever the dtype of its input.
        "projection_multiply_adds_per_second": multiply_adds(dtype) if on_cuda and dtype != torch.float32 else single,
        "special_functions_per_second": specials,
    }


def _best(call, device, repeats=5):
    """Seconds of the fastest of several calls: what is possible."""
    call()
    return min(_seconds(call, 1, device) for _ in range(repeats))


def scan_floor(size, positions, dtype, device, rates, projection=True):
    """The least time of one cross-scan forward over `positions` = batch * F * J, from what it must move and compute.

    Moved: u, the factors of all directions and y once each, and the weights. Computed, in multiply-adds: per
    direction, position and channel, the step from its R factors and a softplus; per state of these, an exponential,
    2 for the state and 1 for the output; and, if `projection`, the matrix product that gives the factors. A CPU
    computes exponentials with multiply-adds; a GPU has units of their own for them.

    Returns:
        dict: counts, seconds of each term, "seconds" (the longest term) and "bound" (its name).
    """
    inner, rank, lines = size.inner, size.rank, size.rank + 2 * STATE_SIZE
    exponential, softplus = (10, 25) if device.type == "cpu" else (1, 3)  # multiply-adds
    scanned = DIRECTIONS * positions * inner
    weights = DIRECTIONS * inner * (rank + 1 + STATE_SIZE + 1 + (lines if projection else 0))
    bytes_moved = positions * (2 * inner + DIRECTIONS * lines) * dtype.itemsize + 4 * weights
    arithmetic = scanned * (STATE_SIZE * (exponential + 3) + rank + softplus)
    projected = scanned * lines if projection else 0
    seconds = {
        "memory": bytes_moved / rates["bytes_per_second"],
        "arithmetic": arithmetic / rates["multiply_adds_per_second"]
        + projected / rates["projection_multiply_adds_per_second"],
    }
    if special := rates["special_functions_per_second"]:
        seconds["special functions"] = scanned * (STATE_SIZE + 2) / special
    bound = max(seconds, key=seconds.get)
    return {
        "bytes": bytes_moved,
        "multiply_adds": arithmetic,
        "projection_multiply_adds": projected,
        "terms_seconds": seconds,
        "seconds": seconds[bound],
        "bound": bound,
    }


# ---- Results ----


def summary(seconds, peaks):
    """{name: {pass: medians, peaks and their ratios to `REFERENCE`}}.

    seconds: {(name, pass): list}. peaks: {name: {pass: bytes or None}}, or None for a name.
    """
    results = {}
    for name, step in seconds:
        results.setdefault(name, {})[step] = {
            "seconds": seconds[name, step],
            "median_seconds": median(seconds[name, step]),
            "peak_bytes": (peaks[name] or {}).get(step),
        }
    for steps in results.values():
        for step, result in steps.items():
            reference = results.get(REFERENCE, {}).get(step, {})
            for key, of_key in (("median_seconds", "ratio"), ("peak_bytes", "peak_ratio")):
                known = result[key] and reference.get(key)
                result[of_key] = result[key] / reference[key] if known else None
    return results


def machine(device):
    """Where figures come from: what a reader needs to compare them with theirs."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write_json(path, results):
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def conditions(options, machine):
    """For a title: what was computed, on what."""
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    on = machine["gpu"] or f"{machine['cpu']}, {threads}"
    return f"{options.frames} frames x {JOINTS} joints, batch {options.batch}, {on}"


def figures(result, key, ratio, scale, form):
    """Two cells of a table: a number of `summary` and its ratio; "-" for what is not known."""
    number = result[key]
    return ["-" if number is None else format(number * scale, form), _ratio(result[ratio])]


def _ratio(value):
    return "-" if value is None else f"{value:.2f}"


def missing_lines(results):
    return [f"{name}: {result['missing']}" for name, result in results.items() if result["missing"]]


def table(header, rows):
    """Lines of text, the first column flush left, the others flush right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
        for row in (header, *rows)
    ]


@dataclass
class Panel:
    """Bars of one quantity: values, and ratios written behind them, {series: {row: number or None}}.

    floor: {row: number}, a mark on the row's first bar.
    """

    title: str
    values: dict
    ratios: dict
    floor: dict = field(default_factory=dict)


def panel(title, results, steps, key, ratio, scale, floor=()):
    """A `Panel` of numbers of `summary` times scale; floor: pairs of a row and a number."""
    values, ratios = ({step: {row: results[row][step][k] for row in results} for step in steps} for k in (key, ratio))
    scaled = {step: {row: v and v * scale for row, v in of_step.items()} for step, of_step in values.items()}
    return Panel(title, scaled, ratios, dict(floor))


_COLOURS = dict(zip(PASSES, ("#2b6cb0", "#d1495b")))


def write_chart(path, title, rows, panels):
    """A PNG of panels side by side that share their rows."""
    import matplotlib  # here: the processes that memory is measured in have no use for it

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    size = (1.5 + 5 * len(panels), 1.6 + 0.6 * len(rows))
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, layout="constrained", squeeze=False)
    for ax, panel in zip(axes[0], panels):
        _draw(ax, rows, panel)
    axes[0, 0].set_yticks(range(len(rows)), rows)
    axes[0, 0].invert_yaxis()
    figure.suptitle(title, fontsize=11)
    labelled = {label: h for ax in axes[0] for h, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(
        labelled.values(), labelled, loc="outside lower center", ncols=len(labelled), fontsize=9, frameon=False
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def _draw(ax, rows, panel):
    height = 0.8 / len(panel.values)
    for i, (series, values) in enumerate(panel.values.items()):
        for y, row in enumerate(rows):
            value, ratio = values.get(row), panel.ratios[series].get(row)
            at = y + (i - (len(panel.values) - 1) / 2) * height
            if value is None:
                continue
            ax.barh(at, value, 0.92 * height, color=_COLOURS[series], label=series)
            number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            ax.text(value, at, f" {number}" if ratio is None else f" {number}  ({ratio:.3g}x)", va="center", fontsize=8)
            if i == 0 and row in panel.floor:
                ends = at - height / 2, at + height / 2
                ax.vlines(panel.floor[row], *ends, color="black", linewidth=2, label="floor", zorder=3)
    shown = [v for values in (*panel.values.values(), panel.floor) for v in values.values() if v]
    if shown and max(shown) > 20 * min(shown):
        ax.set(xscale="log", xlim=(min(shown) / 2, max(shown) * (max(shown) / min(shown)) ** 0.4))
    elif shown:
        ax.set_xlim(0, 1.35 * max(shown))
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.set_title(panel.title, fontsize=10)
    ax.grid(axis="x", alpha=0.3)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
