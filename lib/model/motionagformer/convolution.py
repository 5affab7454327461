"""Convolutions over the frames of a joint, at several scales, and their maximum."""

import torch
from einops import rearrange
from torch import nn

_KERNEL = 5  # frames
_DILATIONS = (1, 2)


class MultiScaleTCN(nn.Module):
    """Four branches of C / 4 channels, (1, 5 frames), (2, 5 frames), maximum of 3 frames, none, with a residual.

    Of MS-G3D (Liu et al., arXiv 2003.14111), as MotionAGFormer's ablation has it in place of graphs of frames.
    """

    def __init__(self, dim):
        super().__init__()
        count = len(_DILATIONS) + 2
        if dim % count:
            raise ValueError(f"dim_feat: {dim}: the channels cannot be shared out among {count} branches")
        part = dim // count

        def reduced(*rest):
            return nn.Sequential(nn.Conv2d(dim, part, kernel_size=1), nn.BatchNorm2d(part), *rest)

        maximum = nn.MaxPool2d(kernel_size=(3, 1), stride=1, padding=(1, 0))
        self.branches = nn.ModuleList(reduced(nn.ReLU(), TemporalConv(part, dilation)) for dilation in _DILATIONS)
        self.branches.append(reduced(nn.ReLU(), maximum, nn.BatchNorm2d(part)))
        self.branches.append(reduced())

    def forward(self, x):
        """Return features (B, F, J, C) of x (B, F, J, C)."""
        x = rearrange(x, "b f j c -> b c f j")
        y = x + torch.cat([branch(x) for branch in self.branches], dim=1)
        return rearrange(y, "b c f j -> b f j c")


class TemporalConv(nn.Module):
    """Convolution over frames, with dilation, and its norm; (B, C, F, J) -> (B, C, F, J)."""

    def __init__(self, channels, dilation):
        super().__init__()
        padding = dilation * (_KERNEL - 1) // 2
        self.conv = nn.Conv2d(channels, channels, (_KERNEL, 1), padding=(padding, 0), dilation=(dilation, 1))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.bn(self.conv(x))
