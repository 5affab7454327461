"""Learned positions of a grid of tokens."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

GRID = (16, 12)  # rows and columns of an image of 256 x 192 px (height x width) at stride 16


class Positions(nn.Module):
    """Adds to tokens (B, H, W, C) an embedding of their place, learned on `GRID` and bilinear between its cells."""

    def __init__(self, channels):
        super().__init__()
        self.embedding = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, *GRID, channels), std=0.02))

    def forward(self, x):
        return x + on_grid(self.embedding, x.shape[1:3])


def on_grid(embedding, size):
    """Return an embedding (1, h, w, C) on a grid of another size, bilinear between its cells: (1, *size, C)."""
    if embedding.shape[1:3] == size:
        return embedding
    grid = rearrange(embedding, "1 h w c -> 1 c h w")
    grid = F.interpolate(grid, size, mode="bilinear", align_corners=False)
    return rearrange(grid, "1 c h w -> 1 h w c")
