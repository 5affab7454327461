"""MambaPose's block: a cross-scan over a grid of tokens and an MLP, recomputed in the backward pass."""

import math

import torch.nn.functional as F
from einops import rearrange
from selective_scan import cross_scan
from torch import nn

from lib.model.bistssm import DIRECTIONS
from lib.model.mlp import Mlp
from lib.model.recompute import recomputed, recomputed_in_slices, slices_for
from lib.model.scan_layer import ScanLayer
from lib.model.scan_orders import SCAN_ORDERS
from lib.model.stochastic_depth import add_drawn, draw_branches

MLP_RATIO = 4
LARGEST_RANK = 32  # that the CUDA kernel is compiled for


class GridScan(ScanLayer):
    """Linear, depthwise 3x3 convolution, SiLU, four scans (rows, columns, both reversed), LayerNorm, Linear.

    VMamba's SS2D (arXiv 2401.10166) as wide as its input and without gate; (B, H, W, C) -> (B, H, W, C).
    """

    def __init__(self, channels):
        super().__init__()
        self.in_proj = nn.Linear(channels, channels, bias=False)
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels)
        self.add_scan_parameters(channels, rank_of(channels), DIRECTIONS)
        self.norm = nn.LayerNorm(channels)
        self.out_proj = nn.Linear(channels, channels, bias=False)

    def forward(self, x):
        return self.leave(self.scanned(self.enter(x)))

    def enter(self, x):
        u = rearrange(self.in_proj(x), "b h w c -> b c h w")
        return rearrange(F.silu(self.conv(u)), "b c h w -> b h w c")

    def scanned(self, u):
        return cross_scan(u, *self.scan_weights(), SCAN_ORDERS["v2"])

    def leave(self, y):
        return self.out_proj(self.norm(y))


class Block(nn.Module):
    """Pre-norm residual block: `GridScan`, then an MLP; (B, H, W, C) -> (B, H, W, C).

    Args:
        drop_path: the share of samples that each of the two leaves out in training.
        recompute: in training, keep the input alone and compute the block again in the backward pass.
    """

    def __init__(self, channels, drop_path=0.0, recompute=True):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.scan = GridScan(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, MLP_RATIO * channels)
        self.drop_path = drop_path
        self.recompute = recompute

    def forward(self, x):
        drawn = None
        if self.training and self.drop_path:
            drawn = draw_branches(2 * len(x), self.drop_path).view(-1, 2)
        if not self.recompute:
            return self._branches(x, drawn)
        return recomputed_in_slices(self._branches, slices_for(x.numel(), x.device), x, drawn)

    def _branches(self, x, drawn):
        of_scan, of_mlp = (None, None) if drawn is None else drawn.unbind(1)
        x = add_drawn(x, self._scan, self.drop_path, of_scan)
        return add_drawn(x, self._feed_forward, self.drop_path, of_mlp)

    def _scan(self, x):
        if self._slices(x) == 1:
            return self.scan(self.norm(x))
        y = self.scan.scanned(recomputed(self._enter_scan, x))  # one large sample: before and after its scan
        return recomputed(self.scan.leave, y)

    def _enter_scan(self, x):
        return self.scan.enter(self.norm(x))

    def _feed_forward(self, x):
        slices = self._slices(x)
        if slices == 1:
            return self._mlp(x)
        return recomputed_in_slices(self._mlp, slices, x.flatten(0, 2)).view_as(x)  # one large sample: of its tokens

    def _slices(self, x):
        """Return how many slices one large sample is cut into; 1: x is small, or several samples, or all is kept."""
        return slices_for(x.numel(), x.device) if self.recompute and len(x) == 1 else 1

    def _mlp(self, x):
        return self.mlp(self.norm2(x))


def rank_of(channels):
    """Return the number of projections that step sizes are made from: Mamba's ceil(C / 16), as far as kernels take it."""
    return min(LARGEST_RANK, math.ceil(channels / 16))
