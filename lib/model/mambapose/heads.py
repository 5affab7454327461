"""From features to heatmaps of joints, and on to joints in space.

Places and depths are sums and not products of matrices, which autocast would round to half precision.
"""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from torch import nn

from lib.model.mambapose.block import Block

STRIDE = 4  # of heatmaps
BLOCKS = 2  # over joints


class HeatmapHead(nn.Module):
    """Logits of heatmaps (B, J, H / 4, W / 4) from features at strides 8 and 16, or of any backbone at stride 16.

    Every token gives the logits of the cells below it: a Linear layer and a rearrangement (pixel shuffle, Shi et al.,
    arXiv 1609.05158); the strides are summed.

    Args:
        channels: of the features, the coarsest (stride 16) last.
    """

    def __init__(self, channels, joints):
        super().__init__()
        self.strides = [16 >> number for number in reversed(range(len(channels)))]
        self.logits = nn.ModuleList(
            nn.Linear(width, joints * (stride // STRIDE) ** 2) for width, stride in zip(channels, self.strides)
        )

    def forward(self, features):
        """features: (B, h, w, C) each."""
        found = [
            rearrange(logits(x), "b h w (j p q) -> b j (h p) (w q)", p=stride // STRIDE, q=stride // STRIDE)
            for logits, x, stride in zip(self.logits, features, self.strides, strict=True)
        ]
        return sum(found)


class PoseHead(nn.Module):
    """Joints in space (B, J, 3), m, relative to the root, x right and y down as in the image, z away from the camera.

    A joint's token is made of what its own heatmap points at: the mean of features, place and depth under it, the place
    in heights of the image from its centre. Blocks over the grid of frames and joints follow.

    Args:
        channels: of the features, the coarsest (stride 16) last.
        frames: T; the batch is (B * T).
    """

    def __init__(self, channels, joints, frames, width):
        super().__init__()
        self.frames = frames
        self.embed = nn.Linear(sum(channels) + 4, width)
        self.joints = nn.Parameter(nn.init.trunc_normal_(torch.empty(joints, width), std=0.02))
        self.blocks = nn.Sequential(*(Block(width, recompute=False) for _ in range(BLOCKS)))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3))

    def forward(self, features, heatmaps, depth=None, shown=None):
        """features as of `HeatmapHead`, which made `heatmaps`; depth (B, 1, H, W), shown (B,) 0 where it is hidden."""
        share = heatmaps.flatten(2).float().softmax(-1).view_as(heatmaps)
        pooled = [_under(share, x) for x in features]
        parts = [*pooled, _places(share), _depth(share, depth, shown)]
        x = self.embed(torch.cat(parts, dim=-1)) + self.joints
        x = self.blocks(rearrange(x, "(b t) j c -> b t j c", t=self.frames))
        return self.out(rearrange(x, "b t j c -> (b t) j c"))


def _under(share, features):
    """Return the mean of features (B, h, w, C) weighted by each heatmap (B, J, H, W): (B, J, C)."""
    times = share.shape[2] // features.shape[1]
    share = reduce(share, "b j (h p) (w q) -> b j h w", "sum", p=times, q=times)
    return einsum(share, features.float(), "b j h w, b h w c -> b j c")


def _places(share):
    """Return the mean place under each heatmap, x and y in its heights from its centre: (B, J, 2)."""
    height, width = share.shape[2:]
    rows, columns = (
        (torch.arange(size, device=share.device, dtype=share.dtype) - (size - 1) / 2) / height
        for size in (height, width)
    )
    return torch.stack([(share.sum(2) * columns).sum(-1), (share.sum(3) * rows).sum(-1)], dim=-1)


def _depth(share, depth, shown):
    """Return the mean depth under each heatmap, and 1; 0 and 0 where there is none: (B, J, 2)."""
    if depth is None:
        return share.new_zeros(*share.shape[:2], 2)
    mean = (share * F.avg_pool2d(depth.to(share), STRIDE)).sum((2, 3))
    found = torch.stack([mean, torch.ones_like(mean)], dim=-1)
    return found if shown is None else found * shown.to(found, non_blocking=True).view(-1, 1, 1)
