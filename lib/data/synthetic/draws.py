"""Random numbers of clips, all from torch's global generator."""

import torch


def between(count, low, high):
    """Return (count,) numbers, uniform from low to high."""
    return low + (high - low) * torch.rand(count)


def some(count, share):
    """Return (count,) bool: a share of clips."""
    return torch.rand(count) < share


def where(chosen, a, b):
    """Return a where a clip is chosen (B,), else b; both (B, ...)."""
    return torch.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b)
