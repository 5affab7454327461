"""Implementations that the benchmarks compare: ours of the cross-scan, and those of others where they are installed."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from selective_scan import cross_scan, cross_scan_unfused, how_to_get, why_unavailable
from selective_scan.reference import cross_scan_by_copies
from torch.nn import functional as F

from lib.errors import UserError, describe

REFERENCE = "fused"  # what ratios are relative to
NAMES = (REFERENCE, "copies", "torch", "loop", "mamba-ssm", "mambapy")
SLOW = ("loop",)  # called once, whatever the repeats: time and memory of its gradient grow with L * L


@dataclass(frozen=True)
class Implementation:
    """Implementation of the cross-scan: `function` takes the arguments of `selective_scan.cross_scan`.

    missing: why it cannot run here; "" if it can.
    recomputes: whether a whole model computes cheap activations again in its backward pass, as ours do; the others
        keep all of them, as the published implementation does.
    """

    description: str
    function: Callable
    missing: str = ""
    recomputes: bool = False


def implementations(device_type):
    """Return {name of `NAMES`: Implementation} on this type of device."""
    no_compiled = why_unavailable(device_type, device_type)
    if no_compiled and (fix := how_to_get(device_type)):
        no_compiled += f"; {fix}"
    copies = partial(cross_scan_unfused, implementation=device_type)
    found = (
        Implementation("one pass, no copies", partial(cross_scan, implementation=device_type), no_compiled, True),
        Implementation("copies per direction, our compiled scan", copies, no_compiled),
        Implementation("copies per direction, PyTorch scan", partial(cross_scan_unfused, implementation="torch")),
        Implementation("copies per direction, loop over time", partial(cross_scan_unfused, implementation="loop")),
        Implementation(
            "copies per direction, mamba-ssm's scan",
            partial(_by_copies, _mamba_ssm_scan),
            _why_not("mamba_ssm.ops.selective_scan_interface") or ("" if device_type == "cuda" else "needs CUDA"),
        ),
        Implementation(
            "copies per direction, mambapy's parallel scan",
            partial(_by_copies, _mambapy_scan),
            _why_not("mambapy.pscan"),
        ),
    )
    return dict(zip(NAMES, found))


def chosen(names, device_type, without=()):
    """Return the named implementations, or all but `without`; missing ones are kept, to be reported.

    Raises:
        UserError: a named one is missing.
    """
    known = implementations(device_type)
    for name in names or ():
        if known[name].missing:
            raise UserError(f"--implementations: {name} cannot run on {device_type}: {known[name].missing}")
    return {name: found for name, found in known.items() if (name in names if names else name not in without)}


def _why_not(module):
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        return "not installed" if error.name == package else f"does not import: {describe(error)}"
    except (ImportError, OSError) as error:
        return f"does not import: {describe(error)}"
    return ""


def _by_copies(
    scan, u, x_proj_weight, dt_projs_weight, dt_projs_bias, A, D, directions, limb_partners=(), exact_limbs=False
):
    weights = (x_proj_weight, dt_projs_weight, dt_projs_bias, A, D)
    return cross_scan_by_copies(scan, u, *weights, directions, limb_partners, exact_limbs)


def _mamba_ssm_scan(u, delta, A, B, C, D, delta_bias, delta_softplus):
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus)


def _mambapy_scan(u, delta, A, B, C, D, delta_bias, delta_softplus):
    """Return the scan as in mambapy's `MambaBlock.selective_scan`, for K groups: every state (batch, L, K * channels, N) in memory."""
    from mambapy.pscan import pscan

    x, delta, B, C = (t.float() for t in (u, delta, B, C))
    delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    B, C = (t.repeat_interleave(u.shape[1] // t.shape[1], dim=1).permute(0, 3, 1, 2) for t in (B, C))
    step = delta.mT[..., None]
    h = pscan(torch.exp(step * A), step * B * x.mT[..., None])
    y = (h * C).sum(-1).mT + D[:, None] * x
    return y.to(u.dtype)
