"""The selective scan in PyTorch, a chunk of time at a time: any device, any dtype.

Inside a chunk, decays, inputs and outputs of all steps are computed by a few large operations and only
`h = input + decay * h` is left in the Python loop. The forward pass keeps one state per chunk; the backward pass
recomputes each chunk from it. Memory between the passes is
(batch, channels, N) * L / CHUNK, not (batch, channels, L, N).

The decays exp(delta * A) are multiplied step by step and never divided, so that large step sizes underflow to
zero instead of overflowing as the cumulative-sum form of the scan does.
"""

import torch
import torch.nn.functional as F

CHUNK = 32  # steps; of 4 to 64 the fastest or near it, forward and backward, for L = 459 and 4131


def saved_states_shape(batch, length, directions, channels, states):
    """Return the shape of the states that the forward pass saves for the backward pass."""
    return -(-length // CHUNK), batch, directions, channels, states


def forward(u, delta, A, B, C, D, delta_bias, delta_softplus, saved_states):
    """Return the output of :func:`selective_scan.selective_scan`; fill `saved_states` unless it is None."""
    sequences, weights = _split(u, delta, A, B, C, D, delta_bias)
    h = weights[0].new_zeros(u.shape[0], *weights[0].shape)
    y = []
    for i, chunk in enumerate(zip(*sequences)):
        if saved_states is not None:
            saved_states[i] = h
        y_c, h = _scan_chunk(*(h, *chunk, *weights, delta_softplus))
        y.append(y_c)
    return torch.cat(y).permute(1, 2, 3, 0).flatten(1, 2).to(u.dtype).contiguous()


def backward(u, delta, A, B, C, D, delta_bias, delta_softplus, saved_states, dy):
    """Return the gradients of all seven tensors; None for those that are None."""
    sequences, weights = _split(u, delta, A, B, C, D, delta_bias)
    dys = _time_first(dy.unflatten(1, (B.shape[1], -1)).to(saved_states.dtype))
    dh = torch.zeros_like(saved_states[0])
    of_sequences, of_weights = [], [torch.zeros_like(w) for w in weights if w is not None]
    for saved, dy_c, *chunk in reversed(list(zip(saved_states, dys, *sequences))):
        dh, gradients, additions = _differentiate_chunk(*(dh, dy_c, saved, *chunk, *weights, delta_softplus))
        of_sequences.append(gradients)
        for total, addition in zip(of_weights, additions):
            total += addition
    du, ddelta, dB, dC = (torch.cat(gradients[::-1]).permute(1, 2, 3, 0) for gradients in zip(*of_sequences))
    totals = iter(total.flatten(0, 1) for total in of_weights)
    dA, dD, dbias = (None if w is None else next(totals) for w in weights)
    return du.flatten(1, 2), ddelta.flatten(1, 2), dA, dB, dC, dD, dbias


def _split(u, delta, A, B, C, D, delta_bias):
    """Return chunks of (L, batch, K, channels or N) of u, delta, B, C; and A, D, delta_bias by group, all of one dtype."""
    dtype = torch.promote_types(u.dtype, torch.float32)
    groups = B.shape[1]
    sequences = [_time_first(t.to(dtype)) for t in (*(t.unflatten(1, (groups, -1)) for t in (u, delta)), B, C)]
    weights = [None if t is None else t.to(dtype).unflatten(0, (groups, -1)) for t in (A, D, delta_bias)]
    return sequences, weights


def _time_first(t):
    return t.permute(3, 0, 1, 2).contiguous().split(CHUNK)


def _scan_chunk(h, x, step_size, B, C, A, D, bias, softplus):
    """Return y (T, b, K, d) of T steps from state h (b, K, d, N), and the last state.

    x, step_size: (T, b, K, d); B, C: (T, b, K, N).
    """
    delta = _discretise(step_size, bias, softplus)
    states = _states(h, torch.exp(delta.unsqueeze(-1) * A), delta * x, B)
    y = torch.matmul(torch.stack(states[1:]), C.unsqueeze(-1)).squeeze(-1)
    return (y if D is None else y + D * x), states[-1]


def _discretise(step_size, bias, softplus):
    step_size = step_size if bias is None else step_size + bias
    return F.softplus(step_size) if softplus else step_size


def _states(h, decays, inputs, B):
    """Return h and the T states after it, (b, K, d, N) each."""
    states = [h]
    for decay, increment in zip(decays.unbind(0), (inputs.unsqueeze(-1) * B.unsqueeze(-2)).unbind(0)):
        states.append(torch.addcmul(increment, decay, states[-1]))
    return states


def _differentiate_chunk(dh, dy, h, x, step_size, B, C, A, D, bias, softplus):
    """Return the gradients of `_scan_chunk`, where dh is that of the last state.

    Returns:
        the gradient of h; those of x, step_size, B and C; those of A, D and bias without the ones that are None.
    """
    delta = _discretise(step_size, bias, softplus)
    inputs = delta * x
    decays = torch.exp(delta.unsqueeze(-1) * A)
    states = torch.stack(_states(h, decays, inputs, B))

    # g_t = C_t dy_t + decay_{t+1} g_{t+1}, the gradient of the state after step t
    direct = dy.unsqueeze(-1) * C.unsqueeze(-2)
    gradients = []
    for t in reversed(range(len(dy))):
        gradients.append(dh + direct[t])
        dh = decays[t] * gradients[-1]
    g = torch.stack(gradients[::-1])

    of_inputs = torch.matmul(g, B.unsqueeze(-1)).squeeze(-1)
    of_exponents = g * decays * states[:-1]
    dx = delta * of_inputs
    if D is not None:
        dx = dx + D * dy
    dstep_size = x * of_inputs + (of_exponents * A).sum(-1)
    dA = torch.einsum("tbkdn,tbkd->kdn", of_exponents, delta)
    if softplus:
        dstep_size = dstep_size * torch.sigmoid(step_size if bias is None else step_size + bias)
    dB = torch.matmul(inputs.unsqueeze(-2), g).squeeze(-2)
    dC = torch.matmul(dy.unsqueeze(-2), states[1:]).squeeze(-2)
    of_weights = [dA]
    if D is not None:
        of_weights.append((dy * x).sum((0, 1)))
    if bias is not None:
        of_weights.append(dstep_size.sum((0, 1)))
    return dh, (dx, dstep_size, dB, dC), of_weights
