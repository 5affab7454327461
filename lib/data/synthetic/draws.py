"""Random numbers of clips, all from torch's global generator."""

from contextlib import contextmanager

import torch


@contextmanager
def seeded(rng):
    """Let torch's global generator of the CPU continue from a NumPy generator in the block, and afterwards as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**31)))  # torch.manual_seed is slow: it asks for devices
        yield


def between(count, low, high):
    """Return (count,) numbers, uniform from low to high."""
    return low + (high - low) * torch.rand(count)


def some(count, share):
    """Return (count,) bool: a share of clips."""
    return torch.rand(count) < share


def where(chosen, a, b):
    """Return a where a clip is chosen (B,), else b; both (B, ...)."""
    return torch.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b)
