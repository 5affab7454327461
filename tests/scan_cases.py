"""Random arguments of scans, all results for them, and the implementations to test."""

import pytest
import torch
from selective_scan import cross_scan, selective_scan, why_unavailable

from lib.model.scan_orders import LIMB_PARTNER, SCAN_ORDERS

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def compiled(name, *marks):
    reason = why_unavailable(name)
    return pytest.param(name, marks=[*marks, pytest.mark.skipif(bool(reason), reason=f"{name} scan: {reason}")])


COMPILED = [compiled("cpu"), compiled("cuda", pytest.mark.cuda)]
FAST = ["torch", *COMPILED]


def arguments(batch, groups, channels, length, states, dtype=torch.float32):
    """Random arguments of `selective_scan` by name; `channels` is per group."""
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


def cross_arguments(batch, frames, channels, rank, states, dtype=torch.float32, directions=4, joints=17):
    """Random tensor arguments of `cross_scan` by name."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    values = {
        "u": draw(batch, frames, joints, channels),
        "x_proj_weight": draw(directions, rank + 2 * states, channels) / channels**0.5,
        "dt_projs_weight": draw(directions, channels, rank) / rank**0.5,
        "dt_projs_bias": draw(directions, channels) - 2,
        "A": -draw(directions * channels, states).exp(),
        "D": draw(directions * channels),
    }
    return {name: value.to(dtype) for name, value in values.items()}


def cross_scan_of(values, order, implementation, exact_limbs=False, function=cross_scan):
    return function(
        **values,
        directions=SCAN_ORDERS[order],
        limb_partners=LIMB_PARTNER,
        exact_limbs=exact_limbs,
        implementation=implementation,
    )


def outputs_and_gradients(values, implementation, softplus=True):
    """{"y": y, name: gradient of every argument}; the arguments are leaves with the strides they came with."""

    def scan(**leaves):
        return selective_scan(**{**values, **leaves}, delta_softplus=softplus, implementation=implementation)

    return differentiate(scan, values, "cuda" if implementation == "cuda" else "cpu")


def differentiate(function, values, device="cpu"):
    leaves = {n: v.detach().to(device).requires_grad_() for n, v in values.items() if v is not None}
    y = function(**leaves)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).cos().view(y.shape).to(device)
    gradients = torch.autograd.grad((y * weight).sum(), list(leaves.values()))
    return {n: t.cpu() for n, t in {"y": y, **dict(zip(leaves, gradients))}.items()}


def doubled(values):
    return {n: None if v is None else v.double() for n, v in values.items()}
