"""PoseMamba's block: a bidirectional global-local spatio-temporal state space layer and an MLP."""

import math

import torch.nn.functional as F
from einops import rearrange
from selective_scan import cross_scan
from torch import nn

from lib.model.mlp import Mlp
from lib.model.recompute import recomputed
from lib.model.scan_layer import ScanLayer
from lib.model.scan_orders import LIMB_GRADIENTS, LIMB_PARTNER, SCAN_ORDERS
from lib.model.stochastic_depth import add_branch

DIRECTIONS = 4  # K


class BiSTSSM(ScanLayer):
    """Four selective scans over the (frame, joint) grid, gated (PoseMamba, arXiv 2408.03540, section 3).

    Args:
        dim: C, width of the input; the inner width is D = 2C and the step rank R = ceil(C / 16).
        scan: a key of `SCAN_ORDERS`.
        limb_gradient: how the gradient passes u + u[limb partner]. "straight_through" treats the sum
            as u, as the published backward pass does; "exact" differentiates both terms.
    """

    def __init__(self, dim, scan="v2_plus_poselimbs", limb_gradient="straight_through"):
        super().__init__()
        if scan not in SCAN_ORDERS:
            raise ValueError(f"scan: {scan!r} is unknown; there are {', '.join(SCAN_ORDERS)}")
        if limb_gradient not in LIMB_GRADIENTS:
            raise ValueError(f"limb_gradient: {limb_gradient!r} is unknown; there are {', '.join(LIMB_GRADIENTS)}")
        self.order = SCAN_ORDERS[scan]
        self.limb_gradient = limb_gradient
        inner = 2 * dim
        rank = math.ceil(dim / 16)

        # Parameters in the published order: a saved optimiser knows them by their number only.
        self.out_norm = nn.LayerNorm(inner)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, kernel_size=3, padding=1, groups=inner)
        self.add_scan_parameters(inner, rank, DIRECTIONS)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x):
        """Return features (B, F, J, C) of x (B, F, J, C)."""
        u, gate = (F.linear(x, half) for half in self.in_proj.weight.chunk(2))  # two: each contiguous
        u = F.silu(self.conv2d(rearrange(u, "b f j d -> b d f j")))
        u = rearrange(u, "b d f j -> b f j d")
        y = cross_scan(u, *self.scan_weights(), self.order, LIMB_PARTNER, exact_limbs=self.limb_gradient == "exact")
        return recomputed(self._gate, y, gate)

    def _gate(self, y, gate):
        return self.out_proj(self.out_norm(y) * F.silu(gate))


class BiSTSSMBlock(nn.Module):
    """Pre-norm residual block: the state space layer, then an MLP; (B, F, J, C) -> (B, F, J, C)."""

    def __init__(self, dim, mlp_ratio, drop_path, norm_layer, scan, limb_gradient):
        super().__init__()
        self.norm = norm_layer(dim)
        self.op = BiSTSSM(dim, scan, limb_gradient)
        self.drop_path = drop_path
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x):
        x = add_branch(x, self._scan, self.drop_path, self.training)
        return add_branch(x, self._feed_forward, self.drop_path, self.training)

    def _scan(self, x):
        return self.op(self.norm(x))

    def _feed_forward(self, x):
        return recomputed(lambda x: self.mlp(self.norm2(x)), x)
