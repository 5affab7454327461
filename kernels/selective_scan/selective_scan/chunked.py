"""The selective scan in PyTorch, a chunk of time at a time: any device, any dtype.

Inside a chunk, decays, inputs and outputs of all steps are computed by a few large operations and only
`h = input + decay * h` is left in the Python loop. The forward pass keeps one state per chunk; the backward pass
recomputes each chunk from it. What stays in memory between the passes is
(batch, channels, N) * L / CHUNK, not (batch, channels, L, N).

The decays exp(delta * A) are multiplied step by step and never divided, so that large steps underflow to
zero instead of overflowing as the cumulative-sum form of the scan does.
"""

import torch
import torch.nn.functional as F

CHUNK = 32  # steps; of 4 to 64 the fastest or near it, forward and backward, for L = 459 and 4131


def borders_shape(batch, length, directions, channels, states):
    """Of the states that the forward pass keeps for the backward pass."""
    return -(-length // CHUNK), batch, directions, channels, states


def forward(u, delta, A, B, C, D, delta_bias, delta_softplus, borders):
    """See :func:`selective_scan.selective_scan`; fills `borders` unless it is None."""
    sequences, weights = _split(u, delta, A, B, C, D, delta_bias)
    h = weights[0].new_zeros(u.shape[0], *weights[0].shape)
    y = []
    for i, chunk in enumerate(zip(*sequences)):
        if borders is not None:
            borders[i] = h
        y_c, h = _scan_chunk(h, *chunk, *weights, delta_softplus)
        y.append(y_c)
    return torch.cat(y).permute(1, 2, 3, 0).flatten(1, 2).to(u.dtype).contiguous()


def backward(u, delta, A, B, C, D, delta_bias, delta_softplus, borders, dy):
    """Gradients of all seven tensors; None for those that are None."""
    sequences, weights = _split(u, delta, A, B, C, D, delta_bias)
    dys = _time_first(dy.unflatten(1, (B.shape[1], -1)).to(borders.dtype))
    dh = torch.zeros_like(borders[0])
    of_sequences, of_weights = [], [torch.zeros_like(w) for w in weights if w is not None]
    for border, dy_c, *chunk in reversed(list(zip(borders, dys, *sequences))):
        dh, gradients, additions = _differentiate_chunk(dh, dy_c, border, *chunk, *weights, delta_softplus)
        of_sequences.append(gradients)
        for total, addition in zip(of_weights, additions):
            total += addition
    du, ddelta, dB, dC = (torch.cat(gradients[::-1]).permute(1, 2, 3, 0) for gradients in zip(*of_sequences))
    totals = iter(total.flatten(0, 1) for total in of_weights)
    dA, dD, dbias = (None if w is None else next(totals) for w in weights)
    return du.flatten(1, 2), ddelta.flatten(1, 2), dA, dB, dC, dD, dbias


def _split(u, delta, A, B, C, D, delta_bias):
    """Chunks of (L, batch, K, channels or N) of u, delta, B, C; and A, D, delta_bias by group, all of one dtype."""
    dtype = torch.promote_types(u.dtype, torch.float32)
    groups = B.shape[1]
    sequences = [_time_first(t.to(dtype)) for t in (*(t.unflatten(1, (groups, -1)) for t in (u, delta)), B, C)]
    weights = [None if t is None else t.to(dtype).unflatten(0, (groups, -1)) for t in (A, D, delta_bias)]
    return sequences, weights


def _time_first(t):
    return t.permute(3, 0, 1, 2).contiguous().split(CHUNK)


def _scan_chunk(h, x, step, B, C, A, D, bias, softplus):
    """T steps from state h (b, K, d, N): x, step (T, b, K, d), B, C (T, b, K, N) -> y (T, b, K, d) and the last h."""
    delta = _discretise(step, bias, softplus)
    states = _states(h, torch.exp(delta.unsqueeze(-1) * A), delta * x, B)
    y = torch.matmul(torch.stack(states[1:]), C.unsqueeze(-1)).squeeze(-1)
    return (y if D is None else y + D * x), states[-1]


def _discretise(step, bias, softplus):
    step = step if bias is None else step + bias
    return F.softplus(step) if softplus else step


def _states(h, decays, inputs, B):
    """h and the T states after it, (b, K, d, N) each."""
    states = [h]
    for decay, increment in zip(decays.unbind(0), (inputs.unsqueeze(-1) * B.unsqueeze(-2)).unbind(0)):
        states.append(torch.addcmul(increment, decay, states[-1]))
    return states


def _differentiate_chunk(dh, dy, h, x, step, B, C, A, D, bias, softplus):
    """The adjoint of `_scan_chunk`, where the last h has gradient dh.

    Returns:
        the gradient of h; those of x, step, B and C; those of A, D and bias without the ones that are None.
    """
    delta = _discretise(step, bias, softplus)
    inputs = delta * x
    decays = torch.exp(delta.unsqueeze(-1) * A)
    states = torch.stack(_states(h, decays, inputs, B))

    # g_t = C_t dy_t + decay_{t+1} g_{t+1}, the gradient of the state after step t
    direct = dy.unsqueeze(-1) * C.unsqueeze(-2)
    g = [None] * len(dy)
    for t in reversed(range(len(dy))):
        g[t] = dh + direct[t]
        dh = decays[t] * g[t]
    g = torch.stack(g)

    of_inputs = torch.matmul(g, B.unsqueeze(-1)).squeeze(-1)
    of_exponents = g * decays * states[:-1]
    dx = delta * of_inputs
    if D is not None:
        dx = dx + D * dy
    dstep = x * of_inputs + (of_exponents * A).sum(-1)
    dA = torch.einsum("tbkdn,tbkd->kdn", of_exponents, delta)
    if softplus:
        dstep = dstep * torch.sigmoid(step if bias is None else step + bias)
    dB = torch.matmul(inputs.unsqueeze(-2), g).squeeze(-2)
    dC = torch.matmul(dy.unsqueeze(-2), states[1:]).squeeze(-2)
    of_weights = [dA]
    if D is not None:
        of_weights.append((dy * x).sum((0, 1)))
    if bias is not None:
        of_weights.append(dstep.sum((0, 1)))
    return dh, (dx, dstep, dB, dC), of_weights
