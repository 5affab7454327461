"""Shared by all tests: where things are, and how close is close."""

from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
PARITY = ROOT / "tests" / "parity"


def relative_error(value, expected):
    """Norm of the difference over the norm of what is expected."""
    value, expected = (torch.as_tensor(t).detach().double() for t in (value, expected))
    assert value.shape == expected.shape
    return float((value - expected).norm() / expected.norm().clamp(min=1e-30))
