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
        embedding = self.embedding
        if x.shape[1:3] != GRID:
            grid = rearrange(embedding, "1 h w c -> 1 c h w")
            grid = F.interpolate(grid, x.shape[1:3], mode="bilinear", align_corners=False)
            embedding = rearrange(grid, "1 c h w -> 1 h w c")
        return x + embedding
