"""Random arguments of a selective scan, and all its results for them."""

import torch
from selective_scan import selective_scan

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def arguments(batch, groups, channels, length, states, dtype=torch.float32):
    """Random arguments by name; `channels` is per group."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    total = groups * channels
    values = {
        "u": draw(batch, total, length),
        "delta": draw(batch, total, length) - 2,
        "A": -draw(total, states).exp(),
        "B": draw(batch, groups, states, length),
        "C": draw(batch, groups, states, length),
        "D": draw(total),
        "delta_bias": draw(total) * 0.1,
    }
    return {name: value.to(dtype) for name, value in values.items()}


def outputs_and_gradients(values, implementation, softplus=True):
    """{"y": y, name: gradient of every argument}; the arguments are leaves with the strides they came with."""
    leaves = {n: v.detach().requires_grad_() for n, v in values.items() if v is not None}
    y = selective_scan(**{**values, **leaves}, delta_softplus=softplus, implementation=implementation)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).cos().view(y.shape)
    gradients = torch.autograd.grad((y * weight).sum(), list(leaves.values()))
    return {"y": y, **dict(zip(leaves, gradients))}
