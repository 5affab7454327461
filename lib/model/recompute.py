"""Activations that are computed again in the backward pass instead of kept (Chen et al., arXiv 1604.06174)."""

import itertools

import torch
from torch.utils.checkpoint import checkpoint

SLICE = {"cpu": 2**19, "cuda": 2**21}  # numbers of an activation; a GPU needs more to be busy


def recomputed(function, *inputs):
    """Return function(*inputs), whose intermediate results are computed again in the backward pass instead of kept.

    Random draws in `function` would differ the second time: draw before, and pass what was drawn.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def slices_for(numbers, device):
    """Return how many slices an activation of so many numbers is cut into, so that each has about `SLICE` of them."""
    return max(1, -(-numbers // SLICE.get(device.type, max(SLICE.values()))))


def recomputed_in_slices(function, count, *inputs):
    """Return function(*inputs), a slice of the first dimension at a time: activations of one slice exist at once in either pass.

    Args:
        function: treats the entries of that dimension alike and apart, as those of a batch.
        count: of slices, if there are as many entries.
        inputs: tensors with the same first dimension, or None.
    """
    if count == 1 or len(inputs[0]) == 1:
        return recomputed(function, *inputs)
    slices = (itertools.repeat(None) if t is None else t.chunk(count) for t in inputs)
    return torch.cat([recomputed(function, *parts) for parts in zip(*slices)])
