"""PoseMamba's block: a bidirectional global-local spatio-temporal state space layer and an MLP."""

import math

import torch
import torch.nn.functional as F
from einops import einsum
from selective_scan import selective_scan
from timm.layers import DropPath, Mlp
from torch import nn

from lib.model.scan_orders import LIMB_PARTNER, SCAN_ORDERS

STATE_SIZE = 16  # N
DIRECTIONS = 4  # K
LIMB_GRADIENTS = ("straight_through", "exact")


class BiSTSSM(nn.Module):
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
        projections = [nn.Linear(inner, rank + 2 * STATE_SIZE, bias=False).weight for _ in range(DIRECTIONS)]
        self.x_proj_weight = nn.Parameter(torch.stack(projections).detach())
        self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, inner, rank).uniform_(-(rank**-0.5), rank**-0.5))
        self.dt_projs_bias = nn.Parameter(_step_bias(DIRECTIONS, inner))
        self.A_logs = nn.Parameter(torch.arange(1.0, STATE_SIZE + 1).log().repeat(DIRECTIONS * inner, 1))
        self.Ds = nn.Parameter(torch.ones(DIRECTIONS * inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x):
        """x (B, F, J, C) -> (B, F, J, C)."""
        u, gate = self.in_proj(x).chunk(2, dim=-1)
        u = F.silu(self.conv2d(u.permute(0, 3, 1, 2)))
        y = self.out_norm(self._cross_scan(u)) * F.silu(gate)
        return self.out_proj(y)

    def _cross_scan(self, u):
        """Scans u (B, D, F, J) in all four directions and adds the results: (B, F, J, D)."""
        frames, joints = u.shape[-2:]
        rank = self.dt_projs_weight.shape[-1]
        with_limbs = self._add_limb_partners(u) if any(k.limbs for k in self.order) else None
        sequences = torch.stack([k.flatten(with_limbs if k.limbs else u) for k in self.order], dim=1)
        factors = einsum(sequences, self.x_proj_weight, "b k d l, k c d -> b k c l")
        ranks, B, C = factors.split([rank, STATE_SIZE, STATE_SIZE], dim=2)
        steps = einsum(ranks, self.dt_projs_weight, "b k r l, k d r -> b k d l")
        y = selective_scan(
            sequences.flatten(1, 2),
            steps.flatten(1, 2),
            -self.A_logs.exp(),
            B,
            C,
            self.Ds,
            self.dt_projs_bias.flatten(),
            delta_softplus=True,
        ).unflatten(1, (DIRECTIONS, -1))
        merged = sum(k.unflatten(y[:, i], frames, joints) for i, k in enumerate(self.order))
        return merged.permute(0, 2, 3, 1)

    def _add_limb_partners(self, u):
        if u.shape[-1] != len(LIMB_PARTNER):
            raise ValueError(
                f"scan: limb-wise orders need {len(LIMB_PARTNER)} joints, the input has {u.shape[-1]}; use scan='v2'"
            )
        partners = u[..., list(LIMB_PARTNER)]
        return u + (partners.detach() if self.limb_gradient == "straight_through" else partners)


class BiSTSSMBlock(nn.Module):
    """Pre-norm residual block: the state space layer, then an MLP; (B, F, J, C) -> (B, F, J, C)."""

    def __init__(self, dim, mlp_ratio, drop_path, norm_layer, scan, limb_gradient):
        super().__init__()
        self.norm = norm_layer(dim)
        self.op = BiSTSSM(dim, scan, limb_gradient)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x):
        x = x + self.drop_path(self.op(self.norm(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def _step_bias(*shape, smallest=1e-3, largest=0.1, floor=1e-4):
    """Biases whose softplus is log-uniform in [smallest, largest], at least `floor` (Mamba's initial steps)."""
    steps = torch.empty(shape).uniform_(math.log(smallest), math.log(largest)).exp().clamp(min=floor)
    return steps + torch.log(-torch.expm1(-steps))  # inverse of softplus
