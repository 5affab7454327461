"""ViTPose in the registry of models."""

import torch

from lib.errors import UserError, needing
from lib.model.mambapose.entry import EXAMPLE, GROWS
from lib.model.vitpose.sizes import SIZES

__all__ = ["GROWS", "build", "config_of", "example"]


def build(config):
    """Return the untrained model of a config.

    Raises:
        UserError: transformers is not installed, or a key asks for what ViTPose cannot do.
    """
    if config.streams != "rgb":
        raise UserError(f"streams: {config.streams}: ViTPose sees images alone; set streams: rgb")
    if config.frames != 1:
        raise UserError(f"frames: {config.frames}: ViTPose sees each image alone; set frames: 1")
    with needing("backbone ViTPose", "requirements-mambapose.txt"):
        from lib.model.vitpose.network import ViTPose
    return ViTPose(config.size, config.head, config.num_joints, config.attention, config.recompute)


def config_of(parameters):
    """Return the config keys that the shapes of a ViTPose's parameters {name: tensor} tell.

    Raises:
        KeyError, ValueError, IndexError: they are not a ViTPose's.
    """
    channels = len(parameters["backbone.layernorm.weight"])
    sizes = [name for name, size in SIZES.items() if size.channels == channels]
    if not sizes:
        raise ValueError(f"no size has {channels} channels")
    return {
        "size": sizes[0],
        "head": "3d" if "pose.embed.weight" in parameters else "2d",
        "streams": "rgb",
        "frames": 1,
        "num_joints": len(parameters["decoder.conv.weight"]),
    }


def example(config, batch=1):
    """Return RGB images of zeros, of 256 x 192 px (height x width), in a tuple with None for the other streams."""
    return torch.zeros(batch, 3, *EXAMPLE), None, None
