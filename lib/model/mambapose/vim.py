"""The encoder `vim`: plain bidirectional Vision Mamba (arXiv 2401.09417), without class token."""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from selective_scan import selective_scan
from torch import nn

from lib.model.mambapose.block import rank_of
from lib.model.mambapose.positions import Positions
from lib.model.mambapose.stem import PatchStem
from lib.model.recompute import recomputed_in_slices, slices_for
from lib.model.scan_layer import STATE_SIZE, ScanLayer
from lib.model.stochastic_depth import add_drawn, draw_branches, rates_of_blocks

WIDTH = 4  # of the causal convolution
DIRECTIONS = 2


class SequenceScan(ScanLayer):
    """Mamba's gated layer along a sequence and along its reverse, each with its own convolution, projections, A and D.

    The published form v2: one input projection and one output projection, the mean of the two directions;
    (B, L, C) -> (B, L, C), inner width D = 2C.
    """

    def __init__(self, channels, depth):
        super().__init__()
        inner = 2 * channels
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = nn.Conv1d(DIRECTIONS * inner, DIRECTIONS * inner, WIDTH, groups=DIRECTIONS * inner)
        self.add_scan_parameters(inner, rank_of(channels), DIRECTIONS)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        with torch.no_grad():
            self.out_proj.weight /= depth**0.5

    def forward(self, x):
        u, gate = self.in_proj(x).chunk(2, dim=-1)
        u = rearrange(u, "b l d -> b d l")
        u = F.silu(self.conv(F.pad(torch.cat([u, u.flip(-1)], 1), (WIDTH - 1, 0))))  # each direction sees its past
        y = self._scans(u)
        forward, backward = rearrange(y, "b (k d) l -> k b l d", k=DIRECTIONS)
        return self.out_proj((forward + backward.flip(1)) / DIRECTIONS * F.silu(gate))

    def _scans(self, u):
        """u (B, KD, L), direction after direction, each in its own order -> the same."""
        x_proj_weight, dt_projs_weight, dt_projs_bias, A, D = self.scan_weights()
        sequences = rearrange(u, "b (k d) l -> b k d l", k=DIRECTIONS)
        projections = einsum(sequences, x_proj_weight, "b k d l, k c d -> b k c l")
        ranks, B, C = projections.split([dt_projs_weight.shape[2], STATE_SIZE, STATE_SIZE], dim=2)
        steps = rearrange(einsum(ranks, dt_projs_weight, "b k r l, k d r -> b k d l"), "b k d l -> b (k d) l")
        return selective_scan(u, steps, A, B, C, D, dt_projs_bias.flatten(), delta_softplus=True)


class VimBlock(nn.Module):
    """Pre-norm residual block of `SequenceScan`; (B, L, C) -> (B, L, C). Arguments as of `block.Block`."""

    def __init__(self, channels, depth, drop_path, recompute):
        super().__init__()
        self.norm = nn.RMSNorm(channels, eps=1e-5)
        self.scan = SequenceScan(channels, depth)
        self.drop_path = drop_path
        self.recompute = recompute

    def forward(self, x):
        drawn = draw_branches(len(x), self.drop_path) if self.training and self.drop_path else None
        if not self.recompute:
            return self._branch(x, drawn)
        return recomputed_in_slices(self._branch, slices_for(x.numel(), x.device), x, drawn)

    def _branch(self, x, drawn):
        return add_drawn(x, lambda x: self.scan(self.norm(x)), self.drop_path, drawn)


class Vim(nn.Module):
    """Tokens at stride 16 (B, H / 16, W / 16, C) -> features (B, H / 16, W / 16, C). Arguments as of `TwoStage`."""

    Stem = PatchStem

    def __init__(self, size, drop_path, recompute=True):
        super().__init__()
        width, depth = size.vim
        self.positions = Positions(width)
        rates = rates_of_blocks(drop_path, depth)
        self.blocks = nn.Sequential(*(VimBlock(width, depth, rate, recompute) for rate in rates))
        self.norm = nn.RMSNorm(width, eps=1e-5)

    @staticmethod
    def channels(size):
        return size.vim[:1]

    def forward(self, x):
        height = x.shape[1]
        x = self.blocks(rearrange(self.positions(x), "b h w c -> b (h w) c"))
        return (rearrange(self.norm(x), "b (h w) c -> b h w c", h=height),)
