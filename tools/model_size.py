"""Count parameters and multiply-accumulates of PoseMamba S, B and L: all of them, and as published.

The published counts are those of a profiler that sees only Linear, Conv and norm layers: bare parameters
(`x_proj_weight`, `dt_projs_*`, `A_logs`, `Ds`, position embeddings) and the scans are not in them.

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
from lib.model.bistssm import DIRECTIONS, STATE_SIZE, BiSTSSM
from lib.model.registry import build_model, model_of

SEEN_BY_PROFILERS = (nn.Linear, nn.Conv2d, nn.LayerNorm)
CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "pose3d"


def module_macs(model, clip):
    """Return the multiply-accumulates of Linear and Conv layers for one clip (1, F, J, 2)."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    def count_in_projection(op, inputs, output):  # computed in two halves, not by calling the module
        nonlocal total
        total += output[..., 0].numel() * op.in_proj.weight.numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    hooks += [m.register_forward_hook(count_in_projection) for m in model.modules() if isinstance(m, BiSTSSM)]
    with torch.no_grad():
        model(clip)
    for hook in hooks:
        hook.remove()
    return total


def scan_macs(model, positions):
    """Return the multiply-accumulates of all scans over `positions` = F * J: their projections and 3 per state and step."""
    total = 0
    for op in model.modules():
        if isinstance(op, BiSTSSM):
            _, inner, rank = op.dt_projs_weight.shape
            per_step = inner * (rank + 2 * STATE_SIZE) + inner * rank + 3 * inner * STATE_SIZE + inner
            total += DIRECTIONS * positions * per_step
    return total


def main():
    Parser(description=__doc__.splitlines()[0]).parse()
    table = Table()
    for title in ("model", "parameters", "in modules only", "GMAC", "in modules only"):
        table.add_column(title, justify="right")
    for size in "SBL":
        config = load_config(CONFIGS / f"PoseMamba_train_h36m_{size}.yaml")
        model = build_model(config).eval()
        clip = model_of(config.backbone).example(config)
        modules = module_macs(model, clip)
        every = modules + scan_macs(model, config.maxlen * config.num_joints)
        seen = sum(
            p.numel() for m in model.modules() if isinstance(m, SEEN_BY_PROFILERS) for p in m.parameters(recurse=False)
        )
        parameters = sum(p.numel() for p in model.parameters())
        table.add_row(size, f"{parameters:,}", f"{seen:,}", f"{every / 1e9:.1f}", f"{modules / 1e9:.1f}")
    Console().print(table)


if __name__ == "__main__":
    run(main)
