"""Count parameters and multiply-accumulates of PoseMamba, MambaPose and PoseMamba's peers: all of them, and as published.

The published counts are those of a profiler that sees only Linear, Conv and norm layers: bare parameters
(`x_proj_weight`, `dt_projs_*`, `A_logs`, `Ds`, position embeddings), scans, attention and graphs are not in them.

python tools/model_size.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from lib.cli import Parser, run
from lib.config import load_config
from lib.model.facts import macs_of, parameters_of
from lib.model.mambapose.sizes import SIZES
from lib.model.registry import build_model, model_of
from tools.peers import RECIPES, recipe_of

SEEN_BY_PROFILERS = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm)


def main():
    Parser(description=__doc__.splitlines()[0]).parse()
    print_table("PoseMamba", map(of_posemamba, "SBL"))
    print_table("MambaPose, 256 x 192 px", map(of_mambapose, SIZES))
    print_table("peers: clips of 243 frames, MotionAGFormer-XS 27, -S 81", map(of_peer, RECIPES))


def print_table(title, rows):
    table = Table(title=title)
    for column in ("model", "parameters", "in modules only", "GMAC", "in modules only"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def of_posemamba(size):
    return row(size, recipe_of(f"PoseMamba-{size}"))


def of_mambapose(size):
    return row(size, load_config(overrides=["backbone=MambaPose", f"size={size}", "streams=rgb"]))


def of_peer(peer):
    config = recipe_of(peer)
    with torch.device("meta"):  # shapes are enough to count
        return row(peer, config)


def row(name, config):
    model = build_model(config).eval()
    modules, others = macs_of(model, model_of(config.backbone).example(config))
    seen = sum(
        p.numel() for m in model.modules() if isinstance(m, SEEN_BY_PROFILERS) for p in m.parameters(recurse=False)
    )
    macs = (f"{count / 1e9:.1f}" for count in (modules + others, modules))
    return name, f"{parameters_of(model):,}", f"{seen:,}", *macs


if __name__ == "__main__":
    run(main)
