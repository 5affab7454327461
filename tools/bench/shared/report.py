"""Results of the benchmarks: JSON, a table and a chart."""

import json
import os
import platform
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import torch

from lib.files import atomic_path
from tools.bench.shared.implementations import REFERENCE
from tools.bench.shared.sizes import JOINTS

PASSES = ("forward", "training")


def summary(seconds, peaks):
    """Return {name: {pass: medians, peaks and their ratios to `REFERENCE`}}.

    seconds: {(name, pass): list}. peaks: {name: {pass: bytes or None}}.
    """
    results = {}
    for name, step in seconds:
        results.setdefault(name, {})[step] = {
            "seconds": seconds[name, step],
            "median_seconds": median(seconds[name, step]),
            "peak_bytes": peaks[name].get(step),
        }
    for steps in results.values():
        for step, result in steps.items():
            reference = results.get(REFERENCE, {}).get(step, {})
            for key, of_key in (("median_seconds", "ratio"), ("peak_bytes", "peak_ratio")):
                known = result[key] and reference.get(key)
                result[of_key] = result[key] / reference[key] if known else None
    return results


def machine(device):
    """Return a description of the machine, with which readers can compare figures."""
    return {
        "cpu": _cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
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
    """Return the text of a title: the computation and the machine."""
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    on = machine["gpu"] or f"{machine['cpu']}, {threads}"
    return f"{options.frames} frames x {JOINTS} joints, batch {options.batch}, {on}"


def figures(result, key, ratio, scale, form):
    """Return two cells of a table: a number of `summary` and its ratio; "-" if unknown."""
    number = result[key]
    return ["-" if number is None else format(number * scale, form), _ratio(result[ratio])]


def _ratio(value):
    return "-" if value is None else f"{value:.2f}"


def missing_lines(results):
    return [f"{name}: {result['missing']}" for name, result in results.items() if result["missing"]]


def table(header, rows):
    """Return lines of text, the first column flush left, the others flush right."""
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
    """Return a `Panel` of numbers of `summary` times scale; floor: pairs of a row and a number."""
    values, ratios = ({step: {row: results[row][step][k] for row in results} for step in steps} for k in (key, ratio))
    scaled = {step: {row: v and v * scale for row, v in of_step.items()} for step, of_step in values.items()}
    return Panel(title, scaled, ratios, dict(floor))


_COLOURS = dict(zip(PASSES, ("#2b6cb0", "#d1495b")))


def write_chart(path, title, rows, panels):
    """Write a PNG of panels side by side that share their rows."""
    from matplotlib import pyplot as plt  # here: the processes that memory is measured in have no use for it

    from lib.eval.plots import save

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
    save(figure, path)


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
