"""Least time that a scan can take: its memory traffic and arithmetic at the rates of the machine."""

import torch

from lib.model.bistssm import DIRECTIONS
from lib.model.scan_layer import STATE_SIZE
from tools.bench.shared.measuring import fastest


def measure_rates(device, dtype):
    """Return measured rates of the device: bytes/s copied, multiply-adds/s of float32 and of projections in `dtype`,
    and special functions/s by its data sheet (CUDA, where the clock is known; else None)."""
    on_cuda = device.type == "cuda"
    source = torch.ones(2**28 if on_cuda else 2**26, device=device)  # touched: untouched pages are all the same one
    target = torch.empty_like(source)
    copy = fastest(lambda: target.copy_(source), device)
    size = 8192 if on_cuda else 2048

    def multiply_adds(dtype):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        return size**3 / fastest(lambda: torch.mm(a, b, out=out), device)

    single = multiply_adds(torch.float32)
    specials = None
    if on_cuda:
        properties = torch.cuda.get_device_properties(device)
        if clock := getattr(properties, "clock_rate", None):  # kHz
            specials = 16.0 * properties.multi_processor_count * clock * 1000  # 16 per clock and multiprocessor
    return {
        "bytes_per_second": 2 * source.nbytes / copy,
        "multiply_adds_per_second": single,
        # On the CPU the compiled scan projects in float32, whatever the dtype of its input.
        "projection_multiply_adds_per_second": multiply_adds(dtype) if on_cuda and dtype != torch.float32 else single,
        "special_functions_per_second": specials,
    }


def scan_floor(size, positions, dtype, device, rates, projection=True):
    """Return the least time of one cross-scan forward over `positions` = batch * F * J, from its traffic and arithmetic.

    Moved: u, the factors of all directions and y once each, and the weights. Computed, in multiply-adds: per
    direction, position and channel, the step from its R factors and a softplus; per state of these, an exponential,
    2 for the state and 1 for the output; and, if `projection`, the matrix product that gives the factors. A CPU
    computes exponentials with multiply-adds; a GPU has units of their own for them.

    Returns:
        dict: counts, seconds of each term, "seconds" (the longest term) and "bound" (its name).
    """
    inner, rank, lines = size.inner, size.rank, size.rank + 2 * STATE_SIZE
    exponential, softplus = (10, 25) if device.type == "cpu" else (1, 3)  # multiply-adds
    scanned = DIRECTIONS * positions * inner
    weights = DIRECTIONS * inner * (rank + 1 + STATE_SIZE + 1 + (lines if projection else 0))
    bytes_moved = positions * (2 * inner + DIRECTIONS * lines) * dtype.itemsize + 4 * weights
    arithmetic = scanned * (STATE_SIZE * (exponential + 3) + rank + softplus)
    projected = scanned * lines if projection else 0
    seconds = {
        "memory": bytes_moved / rates["bytes_per_second"],
        "arithmetic": arithmetic / rates["multiply_adds_per_second"]
        + projected / rates["projection_multiply_adds_per_second"],
    }
    if special := rates["special_functions_per_second"]:
        seconds["special functions"] = scanned * (STATE_SIZE + 2) / special
    bound = max(seconds, key=seconds.get)
    return {
        "bytes": bytes_moved,
        "multiply_adds": arithmetic,
        "projection_multiply_adds": projected,
        "terms_seconds": seconds,
        "seconds": seconds[bound],
        "bound": bound,
    }
