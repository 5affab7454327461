"""Reference implementations to test the fast ones against: a loop over time, and the cross-scan by copies."""

import torch
import torch.nn.functional as F


def selective_scan_loop(u, delta, A, B, C, D=None, delta_bias=None, delta_softplus=False):
    """Return the output of :func:`selective_scan.selective_scan`; keeps every state (batch, channels, N) for the gradient."""
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
        step_size = delta[:, :, t, None]
        h = torch.exp(step_size * A) * h + step_size * B[..., t] * x[:, :, t, None]
        y.append((C[..., t] * h).sum(-1))
    out = torch.stack(y, dim=-1)
    if D is not None:
        out = out + D.to(dtype)[:, None] * x
    return out.to(u.dtype)


def cross_scan_by_copies(
    scan, u, x_proj_weight, dt_projs_weight, dt_projs_bias, A, D, directions, limb_partners, exact
):
    """Return the output of :func:`selective_scan.cross_scan`; `scan` is the plain scan to use.

    One copy of the activations per direction, as in the published implementation: an input, step sizes and an
    output of (batch, K * channels, L) each.
    """
    frames, joints = u.shape[1:3]
    rank, states = dt_projs_weight.shape[2], A.shape[1]
    u = u.permute(0, 3, 1, 2)
    with_limbs = u
    if any(d.limbs for d in directions):
        partners = u[..., list(limb_partners)]
        with_limbs = u + (partners if exact else partners.detach())
    sequences = torch.stack([d.flatten(with_limbs if d.limbs else u) for d in directions], dim=1)
    projections = torch.einsum("bkdl,kcd->bkcl", sequences, x_proj_weight.to(u.dtype))
    ranks, B, C = projections.split([rank, states, states], dim=2)
    step_sizes = torch.einsum("bkrl,kdr->bkdl", ranks, dt_projs_weight.to(u.dtype))
    y = scan(sequences.flatten(1, 2), step_sizes.flatten(1, 2), A, B, C, D, dt_projs_bias.flatten(), True)
    y = y.unflatten(1, (len(directions), -1))
    merged = sum(d.unflatten(y[:, k], frames, joints) for k, d in enumerate(directions))
    return merged.permute(0, 2, 3, 1)
