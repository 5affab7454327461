"""Peak memory and time of one network in one process of its own."""

import gc
import resource
import time
from typing import NamedTuple

import torch

from lib.model.facts import parameters_of
from tools.bench.shared.image_networks import PASSES, build
from tools.bench.shared.measuring import forget_resident_peak, memory_figure

SMALL = (64, 48)  # height and width of the image of the first call, which makes the optimiser's state


class Point(NamedTuple):
    """Point that is measured: a network of a size, in one of `PASSES`, on images of height x width px."""

    size: str
    network: str
    doing: str
    height: int
    width: int
    batch: int


def measure_point(point, device, amp, repeats, threads, limit):
    """Return the figures of a `Point`, in a process that has done nothing else.

    The peak is that above the state before the network was built, when a small network had loaded the libraries. A
    first step on a small image makes the state of the optimiser, so that the steps measured are second ones.

    Args:
        limit: bytes that the process may take more than it has, on a CPU.

    Returns:
        dict: "parameters", "state_bytes" (weights; in training gradients and the optimiser's state too), "peak_bytes",
        "seconds" and "cpu_seconds" (lists, of each repeat).
    """
    torch.set_num_threads(threads)
    if device.type == "cpu":
        limits = (memory_figure("VmData") + limit,) * 2
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    _prepared(point._replace(size="nano"), device, amp)
    gc.collect()

    before = _in_use(device)
    call, state = _prepared(point, device, amp)
    images = torch.rand(point.batch, 3, point.height, point.width, device=device)
    _forget_peak(device)
    seconds, cpu_seconds = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        call(images)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start[0])
        cpu_seconds.append(time.process_time() - start[1])
    return {
        "parameters": parameters_of(call.model),
        "state_bytes": state,
        "peak_bytes": _peak(device) - before,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
    }


def _prepared(point, device, amp):
    """Return the pass of a point, called once on a small image, and the bytes of its state."""
    call = PASSES[point.doing](build(point.network, point.size).to(device), amp)
    call(torch.rand(1, 3, *SMALL, device=device))
    state = sum(tensor.nbytes for tensor in call.state())
    call.model.zero_grad()
    return call, state


def _in_use(device):
    return torch.cuda.memory_allocated() if device.type == "cuda" else memory_figure("VmRSS")


def _forget_peak(device):
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        forget_resident_peak()  # where the system does not, the peak since the start is the same or little higher


def _peak(device):
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else memory_figure("VmHWM")
