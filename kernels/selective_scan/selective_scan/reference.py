"""The selective scan as a loop over time: slow, obviously right, what every fast form is tested against."""

import torch
import torch.nn.functional as F


def selective_scan_loop(u, delta, A, B, C, D=None, delta_bias=None, delta_softplus=False):
    """See :func:`selective_scan.selective_scan`. Keeps every state (batch, channels, N) for the gradient."""
    channels = u.shape[1]
    dtype = torch.promote_types(u.dtype, torch.float32)
    x, delta, A, B, C = (t.to(dtype) for t in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    B, C = (t.repeat_interleave(channels // t.shape[1], dim=1) for t in (B, C))

    h = x.new_zeros(*x.shape[:2], A.shape[1])
    y = []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        h = torch.exp(step * A) * h + step * B[..., t] * x[:, :, t, None]
        y.append((C[..., t] * h).sum(-1))
    y = torch.stack(y, dim=-1)
    if D is not None:
        y = y + D.to(dtype)[:, None] * x
    return y.to(u.dtype)
