"""Shared by all tests: where things are, how close is close, and a pickle that runs code."""

import os
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
PARITY = ROOT / "tests" / "parity" / "data"


class Trap:
    """Its pickle makes a folder when something reads it that runs what a pickle asks for."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def relative_error(value, expected):
    """Norm of the difference over the norm of what is expected."""
    value, expected = (torch.as_tensor(t).detach().double() for t in (value, expected))
    assert value.shape == expected.shape
    return float((value - expected).norm() / expected.norm().clamp(min=1e-30))
