"""Parameters of a layer of selective scans, by their published names, with Mamba's initial values."""

import math

import torch
from torch import nn

STATE_SIZE = 16  # N


class ScanLayer(nn.Module):
    """A layer with K scans over D channels, step sizes from R projections."""

    x_proj_weight: nn.Parameter  # (K, R + 2N, D)
    dt_projs_weight: nn.Parameter  # (K, D, R)
    dt_projs_bias: nn.Parameter  # (K, D)
    A_logs: nn.Parameter  # (KD, N)
    Ds: nn.Parameter  # (KD,)

    def add_scan_parameters(self, channels, rank, directions):
        projections = [nn.Linear(channels, rank + 2 * STATE_SIZE, bias=False).weight for _ in range(directions)]
        self.x_proj_weight = nn.Parameter(torch.stack(projections).detach())
        self.dt_projs_weight = nn.Parameter(torch.empty(directions, channels, rank).uniform_(-(rank**-0.5), rank**-0.5))
        self.dt_projs_bias = nn.Parameter(_step_bias(directions, channels))
        self.A_logs = nn.Parameter(torch.arange(1.0, STATE_SIZE + 1).log().repeat(directions * channels, 1))
        self.Ds = nn.Parameter(torch.ones(directions * channels))

    def scan_weights(self):
        """Return the weights that `selective_scan.cross_scan` takes, in its order."""
        return self.x_proj_weight, self.dt_projs_weight, self.dt_projs_bias, -self.A_logs.exp(), self.Ds


def _step_bias(*shape, smallest=1e-3, largest=0.1, floor=1e-4):
    """Return biases whose softplus is log-uniform in [smallest, largest], at least `floor` (Mamba's initial steps)."""
    steps = torch.empty(shape).uniform_(math.log(smallest), math.log(largest)).exp().clamp(min=floor)
    return steps + torch.log(-torch.expm1(-steps))  # inverse of softplus
