"""Choice of the device that a network runs on."""

import re

import torch

from lib.errors import UserError


def choose_device(name=None):
    """Return the `torch.device` of a name, "cpu", "cuda" or "cuda:1"; None: CUDA if it is there.

    Raises:
        UserError: there is no such device.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"(cpu|cuda)(:\d+)?", name):
        raise UserError(f"device: {name!r}: expected cpu, cuda, cuda:1, ...")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: {name}: there are {torch.cuda.device_count()} GPUs here, counted from 0")
    return device
