"""From images to tokens: convolutions to stride 8, or the patches of a vision transformer to stride 16."""

import math

from einops.layers.torch import Rearrange
from torch import nn


class ConvStem(nn.Sequential):
    """Three 3x3 convolutions with stride 2, GroupNorm and GELU; (B, N, H, W) -> (B, H / 8, W / 8, C).

    Args:
        in_channels: N.
        channels: C; the first two convolutions have a quarter and a half of it.
    """

    def __init__(self, in_channels, channels):
        layers = []
        for width in (channels // 4, channels // 2, channels):
            layers += [
                nn.Conv2d(in_channels, width, kernel_size=3, stride=2, padding=1, bias=False),
                nn.GroupNorm(math.gcd(width, 8), width),
                nn.GELU(),
            ]
            in_channels = width
        super().__init__(*layers, Rearrange("b c h w -> b h w c"))


class PatchStem(nn.Sequential):
    """Linear embedding of patches of 16 x 16 px; (B, N, H, W) -> (B, H / 16, W / 16, C)."""

    def __init__(self, in_channels, channels):
        super().__init__(
            nn.Conv2d(in_channels, channels, kernel_size=16, stride=16),
            Rearrange("b c h w -> b h w c"),
        )
