"""The fixtures of the networks that PoseMamba is compared with, as tensors and as files in their published layouts."""

import json

import numpy as np
import torch
from conftest import PARITY

PEERS = {  # model: fixture, key of its parameters in published files, overrides that shapes do not tell
    "DSTformer": ("dstformer_fuse", "model_pos", ["num_heads=4"]),
    "MotionAGFormer": ("motionagformer_81", "model", []),
}


def load_peer(model):
    """Return {name: tensor} of a model's fixture, and the arguments of its constructor."""
    with np.load(PARITY / f"{PEERS[model][0]}.npz") as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files if key != "config"}
        return tensors, json.loads(str(arrays["config"]))


def parameters_of_peer(model):
    tensors, _ = load_peer(model)
    return {name.removeprefix("p/"): tensor for name, tensor in tensors.items() if name.startswith("p/")}


def write_published(model, path, without=None):
    """Write the fixture's parameters as a model's authors write theirs, and return the path; without: one of them."""
    parameters = {f"module.{name}": value for name, value in parameters_of_peer(model).items() if name != without}
    torch.save(
        {"epoch": 60, "lr": 2e-4, "optimizer": {}, PEERS[model][1]: parameters, "min_mpjpe": np.float64(39.2)}, path
    )
    return path
