"""Running a trained network: what inference and evaluation share."""

import torch

from lib.body.skeleton import flip
from lib.model.products import fast_products


@torch.no_grad()
def infer(model, x, config):
    """Return poses (B, F, J, 3) of keypoints x (B, F, J, C), averaged with those of the mirror image if `flip_test`."""
    with fast_products():
        y = model(x)
        return (y + flip(model(flip(x)))) / 2 if config.averages_flips else y
