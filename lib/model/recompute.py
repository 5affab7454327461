"""Activations that are computed again in the backward pass instead of kept (Chen et al., arXiv 1604.06174)."""

import itertools

import torch
from torch.utils.checkpoint import checkpoint


def recomputed(function, *inputs):
    """function(*inputs); what it computes on the way is computed again in the backward pass instead of kept.

    Random draws in `function` would differ the second time: draw before, and pass what was drawn.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def recomputed_in_slices(function, largest, *inputs):
    """function(*inputs), a slice of the first dimension at a time: activations of one slice exist at once in either pass.

    Args:
        function: treats the entries of that dimension alike and apart, as those of a batch.
        largest: entries of a slice.
        inputs: tensors with the same first dimension, or None.
    """
    if len(inputs[0]) <= largest:
        return recomputed(function, *inputs)
    slices = (t.split(largest) if t is not None else itertools.repeat(None) for t in inputs)
    return torch.cat([recomputed(function, *parts) for parts in zip(*slices)])
