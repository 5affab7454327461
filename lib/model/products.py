"""Matrix products of float32 on a CPU: whose are used."""

from contextlib import contextmanager
from functools import cache

import torch

_ROUNDING = 1e-5  # relative error: float32 stays far below it, bfloat16 far above


@contextmanager
def fast_products():
    """Let oneDNN compute products of float32 matrices on the CPU within the block, if it is as exact as PyTorch's usual.

    PyTorch asks MKL, which uses half of the vector width of AMD's CPUs. It asks oneDNN only if products may be rounded
    to bfloat16. oneDNN does that on few CPUs (those with AMX, and some of Arm's): there nothing changes.
    """
    if not _exact_by_onednn():
        yield
        return
    matmul = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


@cache
def _exact_by_onednn():
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if not torch.backends.mkldnn.is_available() or not hasattr(matmul, "fp32_precision"):  # PyTorch before 2.9
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 256, 256, generator=generator, dtype=torch.float64)
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        product = a.float() @ b.float()
    finally:
        matmul.fp32_precision = before
    exact = a @ b
    return bool((product - exact).norm() < _ROUNDING * exact.norm())
