"""Stochastic depth (Huang et al., arXiv 1603.09382) that does not compute what it drops."""

import torch


def add_branch(x, branch, rate, training, whole=False):
    """Return x + branch(x), x (B, ...); in training each clip of the batch goes without its branch with probability `rate`.

    whole: of `add_drawn`.
    """
    return add_drawn(x, branch, rate, draw_branches(len(x), rate) if training and rate else None, whole)


def draw_branches(batch, rate):
    """Return (batch,) 1 where a branch stays and 0 with probability `rate`; on the CPU, so that no GPU is waited for."""
    return torch.empty(batch).bernoulli_(1 - rate)


def add_drawn(x, branch, rate, drawn, whole=False):
    """Return x + branch(x) where `drawn` (B,), of `draw_branches`, is 1, there scaled by 1 / (1 - rate); everywhere if it is None.

    A batch that loses all goes through the branch as an empty one, so that gradients are 0, not None.
    Under `torch.compile`, whose graphs have fixed shapes, the same draws become factors and all is computed; also if
    `whole`, for branches with statistics of the batch.
    """
    if drawn is None:
        return x + branch(x)
    scale = 1 / (1 - rate)
    if whole or torch.compiler.is_compiling():
        factors = (drawn * scale).to(x.device, x.dtype, non_blocking=True).view(-1, *[1] * (x.dim() - 1))
        return x + factors * branch(x)
    kept = drawn.nonzero().squeeze(1)
    if len(kept) == len(x):
        return x.add(branch(x), alpha=scale)
    kept = kept.to(x.device, non_blocking=True)
    return x.index_add(0, kept, branch(x.index_select(0, kept)).to(x.dtype), alpha=scale)


def rates_of_blocks(last, count):
    """Return `count` rates that grow linearly from 0 to `last`."""
    return [last * number / max(1, count - 1) for number in range(count)]
