"""Stochastic depth (Huang et al., arXiv 1603.09382) that does not compute what it drops."""

import torch


def add_branch(x, branch, rate, training):
    """Return x + branch(x), x (B, ...); in training each clip of the batch goes without its branch with probability `rate`.

    The branches that stay are scaled by 1 / (1 - rate). Which ones they are is drawn on the CPU on every device: no
    GPU is waited for. A batch that loses all goes through the branch as an empty one, so that gradients are 0, not None.
    Under `torch.compile`, whose graphs have fixed shapes, the same draws become factors and all is computed.
    """
    if not training or not rate:
        return x + branch(x)
    scale = 1 / (1 - rate)
    drawn = torch.empty(len(x)).bernoulli_(1 - rate)
    if torch.compiler.is_compiling():
        factors = (drawn * scale).to(x.device, x.dtype, non_blocking=True).view(-1, *[1] * (x.dim() - 1))
        return x + factors * branch(x)
    kept = drawn.nonzero().squeeze(1)
    if len(kept) == len(x):
        return x.add(branch(x), alpha=scale)
    kept = kept.to(x.device, non_blocking=True)
    return x.index_add(0, kept, branch(x.index_select(0, kept)).to(x.dtype), alpha=scale)
