"""Running a network that is trained: what inference and evaluation share."""

import torch

from lib.body.skeleton import flip


@torch.no_grad()
def infer(model, x, config):
    """Return what the network makes of x (B, F, J, C); averaged with what it makes of the mirrored x, if `flip`."""
    y = model(x)
    return (y + flip(model(flip(x)))) / 2 if config.flip else y
