"""Parameters of a layer of selective scans, by their published names, with Mamba's initial values."""

import math

import torch
from torch import nn

STATE_SIZE = 16  # N


def scan_parameters(channels, rank, directions):
    """Return {name: parameter} of `directions` = K scans over D channels, step sizes from R = `rank` projections.

    x_proj_weight (K, R + 2N, D), dt_projs_weight (K, D, R), dt_projs_bias (K, D), A_logs (KD, N), Ds (KD,): the
    arguments of `selective_scan.cross_scan`, with A = -exp(A_logs).
    """
    projections = [nn.Linear(channels, rank + 2 * STATE_SIZE, bias=False).weight for _ in range(directions)]
    found = {
        "x_proj_weight": torch.stack(projections).detach(),
        "dt_projs_weight": torch.empty(directions, channels, rank).uniform_(-(rank**-0.5), rank**-0.5),
        "dt_projs_bias": _step_bias(directions, channels),
        "A_logs": torch.arange(1.0, STATE_SIZE + 1).log().repeat(directions * channels, 1),
        "Ds": torch.ones(directions * channels),
    }
    return {name: nn.Parameter(tensor) for name, tensor in found.items()}


def _step_bias(*shape, smallest=1e-3, largest=0.1, floor=1e-4):
    """Biases whose softplus is log-uniform in [smallest, largest], at least `floor` (Mamba's initial steps)."""
    steps = torch.empty(shape).uniform_(math.log(smallest), math.log(largest)).exp().clamp(min=floor)
    return steps + torch.log(-torch.expm1(-steps))  # inverse of softplus
