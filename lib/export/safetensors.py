"""A model to give away: parameters and config in one safetensors file, which cannot hold code."""

import json

import torch
from safetensors.torch import save

from lib.files import atomic_path


def write_weights(path, checkpoint):
    """Write a `Checkpoint`'s parameters as float32, with its config and epoch as metadata.

    Raises:
        UserError: the file cannot be written.
    """
    tensors = {name: value.to(torch.float32).contiguous() for name, value in checkpoint.model.items()}
    metadata = {"config": json.dumps(checkpoint.config), "epoch": str(checkpoint.epoch)}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))
