"""Graph convolution over the joints of a frame or the frames of a joint."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from lib.body.skeleton import LIMBS
from lib.errors import UserError

_ONE_WAY = ((0, 4), (8, 11), (8, 14))  # limbs whose first joint does not see the second in the published graph
_SPLIT = {"spatial": "b f j c -> (b f) j c", "temporal": "b f j c -> (b j) f c"}
_JOIN = {"spatial": "(b f) j c -> b f j c", "temporal": "(b j) f c -> b f j c"}


class GCN(nn.Module):
    """Graph convolution y = relu(x + norm(A V(x) + U(x))), A normalised by degrees (MotionAGFormer, equation 7).

    Args:
        dim: C.
        num_nodes: J or F; each node has its own statistics in the norm, so no other number will do.
        mode: "spatial", over the joints of each frame, along limbs, or "temporal", over the frames of each joint.
        neighbour_num: of a frame, those most similar to it.
        use_temporal_similarity: frames see their neighbours; else they see the `temporal_connection_len` after them.

    Raises:
        UserError: a clip has fewer frames than neighbours are asked for.
    """

    def __init__(self, dim, num_nodes, mode, neighbour_num=4, use_temporal_similarity=True, temporal_connection_len=1):
        super().__init__()
        self.mode, self.neighbour_num = mode, neighbour_num
        self.U = nn.Linear(dim, dim)
        self.V = nn.Linear(dim, dim)
        self.batch_norm = nn.BatchNorm1d(num_nodes)
        for linear in (self.U, self.V):
            nn.init.normal_(linear.weight, std=math.sqrt(2 / dim))
        fixed = None
        if mode == "spatial":
            fixed = _normalised(_limbs(num_nodes))
        elif not use_temporal_similarity:
            fixed = _normalised(torch.ones(num_nodes, num_nodes).triu().tril(temporal_connection_len))
        elif neighbour_num > num_nodes:
            raise UserError(f"neighbour_num: {neighbour_num} is more than the {num_nodes} frames of a clip")
        self.register_buffer("fixed", fixed, persistent=False)

    def forward(self, x):
        """Return features (B, F, J, C) of x (B, F, J, C)."""
        batch = x.shape[0]
        x = rearrange(x, _SPLIT[self.mode])
        graph = self.fixed if self.fixed is not None else _normalised(self._similar(x))
        y = F.relu(x + self.batch_norm(graph @ self.V(x) + self.U(x)))
        return rearrange(y, _JOIN[self.mode], b=batch)

    def _similar(self, x):
        """Return (N, F, F) 1 where a frame is as similar as the `neighbour_num`-th most similar, else 0; x: (N, F, C)."""
        similarity = x @ x.mT
        least = similarity.topk(self.neighbour_num, dim=-1).values[..., -1:]
        return (similarity >= least).to(x.dtype)


def _limbs(joints):
    """Return the adjacency (J, J) of the joints: row i is 1 at those that i sees."""
    seen = torch.zeros(joints, joints)
    for parent, child in LIMBS:
        seen[child, parent] = 1
        seen[parent, child] = (parent, child) not in _ONE_WAY
    return seen


def _normalised(adjacency):
    """Return D^-1/2 A D^-1/2 of A (..., n, n), D its sums of rows."""
    scale = adjacency.sum(dim=-1).rsqrt()
    return scale[..., :, None] * adjacency * scale[..., None, :]
