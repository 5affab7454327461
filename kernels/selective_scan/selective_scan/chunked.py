"""The selective scan in PyTorch, a chunk of time at a time: any device, any dtype, gradients by autograd.

Inside a chunk, decays, inputs and outputs of all steps are computed by a few large operations and only
`h = input + decay * h` is left in the Python loop. Each chunk is recomputed in the backward pass
(`torch.utils.checkpoint`), so what stays in memory between the passes is one state per chunk, not one per
step: (batch, channels, N) * L / CHUNK instead of (batch, channels, L, N).

The decays exp(delta * A) are multiplied step by step and never divided, so that large steps underflow to
zero instead of overflowing as the cumulative-sum form of the scan does.
"""

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 32  # steps; of 4 to 64 the fastest or near it, forward and backward, for L = 459 and 4131


def selective_scan_chunked(u, delta, A, B, C, D=None, delta_bias=None, delta_softplus=False):
    """See :func:`selective_scan.selective_scan`."""
    groups = B.shape[1]
    dtype = torch.promote_types(u.dtype, torch.float32)
    x, step = u.to(dtype), delta.to(dtype)
    if delta_bias is not None:
        step = step + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        step = F.softplus(step)

    A = A.to(dtype).unflatten(0, (groups, -1))
    # Time first and contiguous, (L, batch, K, channels or N), cut by one `split` each: the gradient of a
    # split is one concatenation, that of many slices one full-length sum per slice.
    chunks = zip(
        *(
            t.permute(3, 0, 1, 2).contiguous().split(CHUNK)
            for t in (
                x.unflatten(1, (groups, -1)),
                step.unflatten(1, (groups, -1)),
                B.to(dtype),
                C.to(dtype),
            )
        )
    )
    h = x.new_zeros(x.shape[0], *A.shape)
    y = []
    for x_c, step_c, B_c, C_c in chunks:
        arguments = (h, x_c, step_c, A, B_c, C_c)
        if torch.is_grad_enabled():
            y_c, h = checkpoint(_scan_chunk, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            y_c, h = _scan_chunk(*arguments)
        y.append(y_c)
    y = torch.cat(y).permute(1, 2, 3, 0).flatten(1, 2)
    if D is not None:
        y = y + D.to(dtype)[:, None] * x
    return y.to(u.dtype)


def _scan_chunk(h, x, step, A, B, C):
    """T steps from state h (b, K, d, N): x, step (T, b, K, d), B, C (T, b, K, N) -> y (T, b, K, d) and the last h."""
    decays = torch.exp(step.unsqueeze(-1) * A)
    inputs = (step * x).unsqueeze(-1) * B.unsqueeze(-2)
    states = []
    for decay, increment in zip(decays.unbind(0), inputs.unbind(0)):
        h = torch.addcmul(increment, decay, h)
        states.append(h)
    y = torch.matmul(torch.stack(states), C.unsqueeze(-1)).squeeze(-1)
    return y, h
