"""Measurement of time and peak memory."""

import math
import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

_SHORTEST = 0.02  # s; shorter calls are timed several at once
_MOST_CALLS = 100
_WITHOUT_MEMORY = ("can't allocate memory", "could not create a", "bad_alloc")  # PyTorch's, oneDNN's, C++'s


def progress(items, doing):
    return tqdm(items, desc=doing, leave=False, disable=None)


def time_in_turn(calls, repeats, device, once=()):
    """Return seconds per call, {key: a list, one per repeat}, of functions {key: function}.

    Every repeat times every function, so that what else the machine does meets all alike. Each is warmed up first;
    one that is short is called several times in a row for one figure. Keys in `once` are called a single time.
    """
    in_a_row, seconds = dict.fromkeys(once, 1), {key: [] for key in calls}
    for key, call in progress(calls.items(), "warm-up"):
        if key in once:
            continue
        duration = seconds_of(call, 1, device)
        if duration < _SHORTEST:
            duration = seconds_of(call, 1, device)  # the first call also loads libraries and fills caches
        in_a_row[key] = max(1, min(_MOST_CALLS, math.ceil(_SHORTEST / duration)))
    turns = [(repeat, key) for repeat in range(repeats) for key in calls if repeat == 0 or key not in once]
    for _, key in progress(turns, "timing"):
        seconds[key].append(seconds_of(calls[key], in_a_row[key], device))
    return seconds


def seconds_of(call, count, device):
    """Return the mean seconds of `count` calls."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(count):
        call()
    _wait(device)
    return (time.perf_counter() - start) / count


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def fastest(call, device, repeats=5):
    """Return the seconds of the fastest of several calls."""
    call()
    return min(seconds_of(call, 1, device) for _ in range(repeats))


def measure_memory(names, device, function, *arguments, doing="memory"):
    """Return function(name, *arguments) of each, where `peak_growth` is reliable.

    Returns:
        {name: what `function` returned}, {name: why it did not}.
    """
    peaks, failed = {}, {}
    for name in progress(names, doing):
        try:
            peaks[name] = _measured_apart(device, function, name, *arguments)
        except Failed as reason:
            failed[name] = str(reason)
    return peaks, failed


class Failed(Exception):
    """Reason why there is no figure."""


def _measured_apart(device, function, *arguments):
    """Return function(*arguments), called in a new process on the CPU, here on CUDA."""
    if device.type != "cuda":
        return in_new_process(function, *arguments)
    try:
        with _failing_without_memory():
            return function(*arguments)
    finally:
        torch.cuda.empty_cache()


def in_new_process(function, *arguments, preloaded=None):
    """Return function(*arguments), called in a new process whose freed memory goes back to the system at once.

    Args:
        preloaded: names of modules that take long to load; all processes are then copies of one that has done only that.

    Raises:
        Failed: memory did not suffice.
    """
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):  # so that what is resident is what is in use
        os.environ[name] = "65536"  # bytes; read by processes that start from here on
    fresh = multiprocessing.get_context("forkserver" if preloaded else "spawn")
    if preloaded:
        fresh.set_forkserver_preload(["__main__", *preloaded])
    with (
        _failing_without_memory(),
        ProcessPoolExecutor(1, fresh, signal.signal, (signal.SIGINT, signal.SIG_DFL)) as executor,
    ):
        return executor.submit(function, *arguments).result()


@contextmanager
def _failing_without_memory():
    try:
        yield
    except BrokenProcessPool:
        raise Failed("out of memory, it seems: its process was killed") from None
    except (torch.OutOfMemoryError, MemoryError):
        raise Failed("out of memory") from None
    except RuntimeError as error:
        if not any(text in str(error) for text in _WITHOUT_MEMORY):
            raise
        raise Failed("out of memory") from None


def peak_growth(call, device):
    """Return the peak growth in bytes of the memory in use during call(), its result included.

    On CUDA, of PyTorch's allocator; on the CPU, resident memory of the process, None where /proc does not tell.
    """
    if device.type == "cuda":
        _wait(device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        _wait(device)
        del result
        return torch.cuda.max_memory_allocated() - before
    if not forget_resident_peak():
        return None
    before = resident_peak()
    result = call()
    after = resident_peak()
    del result
    return after - before


def forget_resident_peak():
    """Let the peak start from what is resident now; return whether the system does."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def resident_peak():
    """Return the peak resident bytes of this process (getrusage's ru_maxrss is inherited from the parent process)."""
    return memory_figure("VmHWM")


def memory_figure(name):
    """Return a figure of this process's memory in bytes: VmHWM (peak resident), VmRSS (resident), VmData (private)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024
