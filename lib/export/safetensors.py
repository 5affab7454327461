"""A model to give away: parameters and config in one safetensors file, which cannot hold code."""

import json

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lib.engine.checkpoint import Checkpoint, read_checkpoint
from lib.errors import UserError, describe
from lib.files import atomic_path, require_file

SUFFIX = ".safetensors"


def write_weights(path, checkpoint):
    """Writes a `Checkpoint`'s parameters as float32, with its config and epoch as metadata.

    Raises:
        UserError: the file cannot be written.
    """
    tensors = {name: value.to(torch.float32).contiguous() for name, value in checkpoint.model.items()}
    metadata = {"config": json.dumps(checkpoint.config), "epoch": str(checkpoint.epoch)}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def read_weights(path):
    """The `Checkpoint` of a safetensors file, or of any that `lib.engine.checkpoint` reads.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    path = require_file(path)
    if path.suffix != SUFFIX:
        return read_checkpoint(path)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            metadata = file.metadata() or {}
        config, epoch = dict(json.loads(metadata.get("config", "{}"))), int(metadata.get("epoch", 0))
    except (SafetensorError, ValueError, TypeError) as error:
        raise UserError(f"{path}: is truncated or not a safetensors file of a model ({describe(error)})") from error
    return Checkpoint(path=str(path), model=tensors, epoch=epoch, config=config)
