"""Attention over the joints of a frame or the frames of a joint, and the adaptive fusion of two streams."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from lib.errors import UserError

_SPLIT = {  # where the three projections of (B, F, J, 3 H C) go: N sequences of tokens that see each other
    "spatial": "b f j (qkv h c) -> qkv (b f) h j c",
    "temporal": "b f j (qkv h c) -> qkv (b j) h f c",
}
_JOIN = {"spatial": "(b f) h j c -> b f j (h c)", "temporal": "(b j) h f c -> b f j (h c)"}


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al., arXiv 1706.03762) over one axis of the (frame, joint) grid.

    Args:
        dim: C; heads have dim / num_heads channels.
        mode: "spatial", over the joints of each frame, or "temporal", over the frames of each joint.
        qk_scale: factor of the products of queries and keys; None: 1 / sqrt(channels of a head).
        attn_drop, proj_drop: dropout of attention weights, and of the result.

    Raises:
        UserError: the channels cannot be shared out among so many heads.
    """

    def __init__(self, dim, num_heads, mode, qkv_bias=False, qk_scale=None, attn_drop=0.0, proj_drop=0.0):
        super().__init__()
        if dim % num_heads:
            raise UserError(f"num_heads: {num_heads}: the {dim} channels cannot be shared out among so many heads")
        self.num_heads, self.mode, self.scale, self.attn_drop = num_heads, mode, qk_scale, attn_drop
        self.proj = nn.Linear(dim, dim)  # before qkv, as published: a saved optimiser knows parameters by their number
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x):
        """Return features (B, F, J, C) of x (B, F, J, C)."""
        q, k, v = rearrange(self.qkv(x), _SPLIT[self.mode], qkv=3, h=self.num_heads)
        dropout = self.attn_drop if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=self.scale)
        y = rearrange(y, _JOIN[self.mode], f=x.shape[1], j=x.shape[2])  # not b, which stochastic depth makes 0
        return self.proj_drop(self.proj(y))


def fusion(dim):
    """Return the linear layer that weighs two streams of `dim` channels in `fused`; it begins with their plain mean."""
    layer = nn.Linear(2 * dim, 2)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, 0.5)
    return layer


def fused(layer, first, second):
    """Return the mean (..., C) of two streams (..., C), weighted for each token by a softmax of what `layer` makes of both.

    MotionBERT, arXiv 2210.06551, section 3.2; MotionAGFormer, arXiv 2310.16288, section 3.2.
    """
    of_first, of_second = layer(torch.cat([first, second], dim=-1)).softmax(dim=-1).split(1, dim=-1)
    return of_first * first + of_second * second
