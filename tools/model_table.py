"""Print the table of lifting networks: counted here, measured here, and as published; `--write` puts it into README.md.

Parameters and multiply-accumulates are counted; times and memory are those that `tools/bench/model.py` wrote; published
figures and the pages of weights are in `benchmarks/published.yaml`.

python tools/model_table.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

import json
import re

import torch

from lib.cli import Parser, run
from lib.errors import UserError
from lib.files import PROJECT, atomic_path
from lib.model.facts import macs_of, parameters_of
from lib.model.registry import build_model, model_of
from lib.yaml_files import read_yaml
from tools.peers import recipe_of

BEGIN, END = "<!-- written by tools/model_table.py -->", "<!-- end -->"
HEADER = (
    "model", "frames", "parameters", "as published", "GMAC", "as published", "P1 as published, mm", "P1 here",
    "forward, s", "training step, GB", "weights",
)  # fmt: skip


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    parser.add_argument("--measured", type=Path, default=PROJECT / "benchmarks/cpu/model.json", metavar="FILE")
    options = parser.parse()
    published = read_yaml(PROJECT / "benchmarks/published.yaml")
    measured = json.loads(options.measured.read_text()) if options.measured.exists() else {}
    table = table_of(published, measured)
    if options.write:
        write(PROJECT / "README.md", table)
    print(table)


def table_of(published, measured):
    """Return the table as Markdown, and under it what others say of the same models and the machine of the times."""
    rows = [HEADER, ["---"] * len(HEADER), *(row_of(name, entry, measured) for name, entry in published.items())]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    notes = [
        f"{name}: " + ", ".join(f"{what} {value} mm" for what, value in entry["others"].items())
        for name, entry in published.items()
        if "others" in entry
    ]
    if machine := measured.get("machine"):
        on = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} threads"
        notes.append(f"times (one clip) and memory (4 clips) on {on}, PyTorch {machine['torch']}")
    return "\n".join([*lines, "", "; ".join(notes) + "."])


def row_of(name, entry, measured):
    """Return the cells of a model."""
    config = recipe_of(name)
    with torch.device("meta"):  # shapes are enough to count
        model = build_model(config).eval()
        modules, others = macs_of(model, model_of(config.backbone).example(config))
    return [
        name,
        str(config.maxlen),
        f"{parameters_of(model):,}",
        f"{entry['parameters']} M",
        f"{(modules + others) / 1e9:.1f}",
        f"{entry['gmac']:.1f}",
        f"{entry['p1']:.1f}",
        "",
        *times_of(name, measured),
        f"[page]({entry['weights']})",
    ]


def times_of(name, measured):
    """Return the cells of time and memory, empty where a model was not measured."""
    family, _, size = name.partition("-")
    if family == "PoseMamba":
        found = measured.get("sizes", {}).get(size, {}).get("implementations", {}).get("fused", {})
    else:
        found = measured.get("peers", {}).get(name, {})
    if not found or found.get("missing"):
        return ["", ""]
    peak = found["training"]["peak_bytes"]
    return [f"{found['forward']['median_seconds']:.2f}", f"{peak / 1e9:.1f}" if peak else ""]


def write(page, table):
    """Put a table between the two marks of a page.

    Raises:
        UserError: the marks are not there.
    """
    text = page.read_text()
    found = re.sub(f"{BEGIN}\n.*?{END}", lambda _: f"{BEGIN}\n\n{table}\n\n{END}", text, flags=re.S)
    if BEGIN not in text or END not in text:
        raise UserError(f"{page}: has no place for the table; put {BEGIN} and {END} there, a line each")
    with atomic_path(page) as temporary:
        temporary.write_text(found)


if __name__ == "__main__":
    run(main)
