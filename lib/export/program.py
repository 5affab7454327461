"""What exporters share: inputs, batches of any size and clips of any length that the model takes, and quiet."""

import logging
import warnings
from contextlib import contextmanager

import torch

from lib.errors import UserError
from lib.model.registry import MODELS, model_of

MOST = 4096  # clips at a time


def program_arguments(opened):
    """Return, for `torch.export`, inputs of an `Opened` model, and which of their sizes are left free.

    Raises:
        UserError: the model is none that lifts keypoints.
    """
    config = opened.config
    if MODELS[config.backbone].task != "lifting":
        raise UserError(f"{opened.checkpoint.path}: is a {config.backbone}; networks that lift keypoints are exported")
    if opened.checkpoint.network is not None:
        raise UserError(f"{opened.checkpoint.path}: is exported already; name the checkpoint that it was made from")
    inputs = model_of(config.backbone).example(config, batch=2)  # sizes of 1 would be taken for fixed ones
    free = {0: torch.export.Dim("batch", min=1, max=MOST)}
    if not getattr(opened.model, "frames", 0):
        free[1] = torch.export.Dim("frames", min=1, max=config.maxlen)
    return inputs, tuple(free for _ in inputs)


@contextmanager
def quietly():
    """Keep what libraries say of their own insides from a user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
