"""The keypoints that a lifting network is called with."""

import torch


def example(config, batch=1):
    """Return an input (batch, maxlen, J, C) of zeros, in a tuple."""
    return (torch.zeros(batch, config.maxlen, config.num_joints, config.in_chans),)


def refuse_wrong_keypoints(x, frames, joints, channels, shorter=True):
    """Raise ValueError unless x is (B, F, joints, channels) with 1 <= F <= frames, or F == frames if not `shorter`."""
    fits = x.dim() == 4 and x.shape[2:] == (joints, channels) and 0 < x.shape[1] <= frames
    if not fits or (not shorter and x.shape[1] < frames):  # in this order, so that an export keeps F free
        expected = f"(B, F, {joints}, {channels}) with 1 <= F <= {frames}"
        if not shorter:
            expected = f"(B, {frames}, {joints}, {channels})"
        raise ValueError(f"x: expected {expected}, got {tuple(x.shape)}")
