"""Selective scan: the recurrence of Mamba, behind one function.

:func:`selective_scan` is what models call. `reference.py` holds the loop that is obviously right;
`chunked.py` is the PyTorch form that runs on any device; `cpu.py` is compiled for the CPU and used there where
it could be built. A compiled form is one more entry of `IMPLEMENTATIONS`, a function of the same arguments.
`python -m selective_scan` tells which ones an installation has.
"""

import os

import torch

from selective_scan import cpu
from selective_scan.chunked import selective_scan_chunked
from selective_scan.reference import selective_scan_loop

__all__ = ["IMPLEMENTATIONS", "default_implementation", "selective_scan", "why_unavailable"]

IMPLEMENTATIONS = {
    "torch": selective_scan_chunked,
    "loop": selective_scan_loop,
    "cpu": cpu.selective_scan_cpu,
}
DEFAULT_VARIABLE = "SELECTIVE_SCAN_IMPLEMENTATION"


def selective_scan(u, delta, A, B, C, D=None, delta_bias=None, delta_softplus=False, implementation=None):
    """Selective scan (Gu and Dao 2023, equations 2a and 2b with the discretisation of the published kernels).

    For channel d of group k, with b = B[:, k], c = C[:, k] and h_0 = 0:

        delta_t = softplus(delta_t + delta_bias)            (softplus if `delta_softplus`)
        h_t = exp(delta_t * A) * h_{t-1} + delta_t * b_t * u_t
        y_t = <c_t, h_t> + D * u_t

    The state h and all arithmetic are float32 (float64 where u is), also under autocast; y has the
    dtype of u.

    Args:
        u: (batch, K * channels, L) input sequences.
        delta: (batch, K * channels, L) step sizes.
        A: (K * channels, N) decay rates, negative.
        B, C: (batch, K, N, L) input and output projections, one per group of channels.
        D: (K * channels,) skip weight, or None.
        delta_bias: (K * channels,) added to delta before the softplus, or None.
        delta_softplus: whether steps go through softplus.
        implementation: a key of `IMPLEMENTATIONS`, used as named or not at all (but "cpu" gives float64 to
            "torch"). None stands for what the
            environment variable SELECTIVE_SCAN_IMPLEMENTATION names, and without it for the fastest form
            that fits: "cpu" for tensors on the CPU where it is available and u is not float64, else "torch".

    Returns:
        y: (batch, K * channels, L), differentiable in every tensor argument.

    Raises:
        ValueError: a shape, dtype or device does not fit (the message names the argument), or
            `implementation` is unknown or not available (the message tells why).
    """
    if implementation is None:
        implementation = default_implementation(u.device.type, u.dtype)
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation: {implementation!r} is unknown; there are {', '.join(IMPLEMENTATIONS)}")
    if reason := why_unavailable(implementation, u.device.type):
        raise ValueError(f"implementation: {implementation!r} is not available: {reason}")
    _check_arguments(u, delta, A, B, C, D, delta_bias)
    with torch.autocast(u.device.type, enabled=False):
        return IMPLEMENTATIONS[implementation](u, delta, A, B, C, D, delta_bias, delta_softplus)


def default_implementation(device_type="cpu", dtype=torch.float32):
    """The key of `IMPLEMENTATIONS` that `selective_scan` uses for u of this device type and dtype."""
    if named := os.environ.get(DEFAULT_VARIABLE):
        return named
    fits = dtype != torch.float64 and not why_unavailable("cpu", device_type)
    return "cpu" if fits else "torch"


def why_unavailable(implementation, device_type="cpu"):
    """Why a key of `IMPLEMENTATIONS` cannot run on tensors of this device type; "" if it can."""
    if implementation != "cpu":
        return ""
    if device_type != "cpu":
        return f"it takes tensors on the CPU, not on {device_type}"
    return cpu.available()[1]


def _check_arguments(u, delta, A, B, C, D, delta_bias):
    if u.dim() != 3 or u.shape[2] == 0:
        raise ValueError(f"u: expected (batch, channels, L) with L >= 1, got {tuple(u.shape)}")
    batch, channels, length = u.shape
    if A.dim() != 2 or A.shape[0] != channels:
        raise ValueError(f"A: expected ({channels}, N) to go with u, got {tuple(A.shape)}")
    if B.dim() != 4 or B.shape[1] == 0 or channels % B.shape[1]:
        raise ValueError(f"B: expected (batch, K, N, L) with K dividing {channels}, got {tuple(B.shape)}")
    per_group = (batch, B.shape[1], A.shape[1], length)
    expected = {
        "delta": (delta, (batch, channels, length)),
        "B": (B, per_group),
        "C": (C, per_group),
        "D": (D, (channels,)),
        "delta_bias": (delta_bias, (channels,)),
        "A": (A, tuple(A.shape)),
        "u": (u, tuple(u.shape)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: expected {shape}, got {tuple(tensor.shape)}")
        if tensor.device != u.device:
            raise ValueError(f"{name}: is on {tensor.device} but u is on {u.device}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name}: expected a floating-point tensor, got {tensor.dtype}")
