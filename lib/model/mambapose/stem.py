"""From images to tokens: convolutions to stride 8, or the patches of a vision transformer to stride 16."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import nn

from lib.model.recompute import recomputed, slices_for


def slices_of(images, channels):
    """Return how many slices of images (B, N, H, W) a stem to C channels is recomputed in.

    It keeps a quarter as many numbers, in units of its first output, as a block does in units of its input.
    """
    first_output = channels // 4 * images[:, 0].numel() // 4
    return slices_for(first_output // 4, images.device)


class ConvStem(nn.Sequential):
    """Three 3x3 convolutions with stride 2, GroupNorm and GELU; (B, N, H, W) -> (B, H / 8, W / 8, C).

    Args:
        in_channels: N.
        channels: C; the first two convolutions have a quarter and a half of it.
        recompute: compute the activations of one large image again, a stride at a time, instead of keeping them.
    """

    def __init__(self, in_channels, channels, recompute=False):
        layers = []
        for width in (channels // 4, channels // 2, channels):
            layers += [
                nn.Conv2d(in_channels, width, kernel_size=3, stride=2, padding=1, bias=False),
                nn.GroupNorm(math.gcd(width, 8), width),
                nn.GELU(),
            ]
            in_channels = width
        super().__init__(*layers)
        self.channels = channels
        self.recompute = recompute

    def forward(self, x):
        by_strides = self.recompute and len(x) == 1 and slices_of(x, self.channels) > 1
        x = x.contiguous(
            memory_format=torch.channels_last
        )  # convolutions of few channels are faster so, and tokens free
        layers = list(self)
        for first in range(0, len(layers), 3):
            step = layers[first : first + 3]
            if by_strides and not x.requires_grad:  # an image: of a gradient each slice would have one of its own
                x = _in_groups(x, *step)
            else:
                x = recomputed(_through, x, *step) if by_strides else _through(x, *step)
        return rearrange(x, "b c h w -> b h w c")


def _through(x, *layers):
    for layer in layers:
        x = layer(x)
    return x


def _in_groups(x, conv, norm, _):
    """Return GELU(norm(conv(x))), recomputed by the groups of channels that GroupNorm treats apart."""
    groups = zip(*(t.chunk(norm.num_groups) for t in (conv.weight, norm.weight, norm.bias)))
    return torch.cat([recomputed(_group, x, *group, norm.eps) for group in groups], dim=1)


def _group(x, weight, scale, shift, eps):
    return F.gelu(F.group_norm(F.conv2d(x, weight, stride=2, padding=1), 1, scale, shift, eps))


class PatchStem(nn.Sequential):
    """Linear embedding of patches of 16 x 16 px; (B, N, H, W) -> (B, H / 16, W / 16, C)."""

    def __init__(self, in_channels, channels, recompute=False):
        super().__init__(
            nn.Conv2d(in_channels, channels, kernel_size=16, stride=16),
            Rearrange("b c h w -> b h w c"),
        )
