"""Shared by all tests: where things are, how close is close, a pickle that runs code, and whether a chart shows anything."""

import os
import subprocess
from pathlib import Path

import forked
import matplotlib.image
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
PARITY = ROOT / "tests" / "parity" / "data"


@pytest.fixture(scope="session")
def forks():
    """Commands that start in a tenth of a second; see `forked`."""
    return forked.shared()


def project_files(*patterns):
    """Return the paths of the project's files, without what git ignores; none where there is no git."""
    command = ["git", "ls-files", "-co", "--exclude-standard", *patterns]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True).stdout.splitlines()


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


def is_drawn(path, coloured=0.002):
    """Assert that a PNG can be decoded and shows something: enough ink on its background, and colours in it.

    coloured: the smallest share of pixels whose red, green and blue differ.
    """
    image = matplotlib.image.imread(path)[..., :3]
    background = image[0, 0]
    ink = (np.abs(image - background).max(-1) > 0.1).mean()
    colour = (np.ptp(image, axis=-1) > 0.15).mean()
    assert min(image.shape[:2]) >= 100, f"{path}: {image.shape[1]} x {image.shape[0]}"
    assert 0.005 < ink < 0.95, f"{path}: {ink:.2%} of it differ from the background"
    assert colour > coloured, f"{path}: {colour:.2%} of it are coloured"
