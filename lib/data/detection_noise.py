"""Errors as a detector makes them, added to true 2D positions.

The noise model is MotionBERT's (arXiv 2210.06551, its released trainer): at key frames the error of each joint is a sample of a
mixture of a Gaussian and a uniform part, errors in between are interpolated linearly in time, each frame adds a small
Gaussian of its own, and the confidence follows from the distance d that results, a / (d + a) + b d + N(mean, std) in
[0, 1]. Its parameters are those of a YAML file, such as configs/noise/detections.yaml:

    key_spacing: 9.3                    frames from one key frame to the next
    uniform_range: 0.28                 width of the uniform part; an error in x or y is up to half of it
    confidence: {a, b, mean, std}
    joints:                             all 17, by the names of lib/body/skeleton.py
      pelvis: {mean: [x, y], std: [x, y], gaussian: share of the Gaussian part, jitter: std of a frame's own error}

Lengths are in units of half the image's width.
"""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from lib.body.skeleton import JOINTS
from lib.data.joint_tables import Strict, read_joint_table
from lib.files import PROJECT, require_file

_Length = Annotated[float, Field(ge=0)]


class _Joint(Strict):
    mean: tuple[float, float]
    std: tuple[_Length, _Length]
    gaussian: Annotated[float, Field(ge=0, le=1)]
    jitter: _Length


class _Confidence(Strict):
    a: Annotated[float, Field(gt=0)]
    b: float
    mean: float
    std: _Length


class _Parameters(Strict):
    key_spacing: Annotated[float, Field(gt=0)]
    uniform_range: _Length
    confidence: _Confidence
    joints: dict[str, _Joint]


class DetectionNoise:
    """Model of a detector's errors of true 2D positions; all random numbers are from torch's global generator.

    Args:
        path: YAML file of the parameters; a relative path that does not exist is resolved in the project's folder.

    Raises:
        UserError: the file is missing, not YAML or not such a table; names the key.
    """

    def __init__(self, path):
        self.parameters = _read(path)
        joints = [self.parameters.joints[name] for name in JOINTS]
        self._mean = torch.tensor([joint.mean for joint in joints])
        self._std = torch.tensor([joint.std for joint in joints])
        self._gaussian = torch.tensor([joint.gaussian for joint in joints])[:, None]
        self._jitter = torch.tensor([joint.jitter for joint in joints])[:, None]

    def __call__(self, keypoints):
        """Return keypoints (B, F, 17, 2 or 3) with errors; the third channel becomes the confidence that fits them.

        A joint of confidence 0 has no position and stays as it is.
        """
        error = self.errors(*keypoints.shape[:2])
        noisy = keypoints[..., :2] + error
        if keypoints.shape[-1] == 2:
            return noisy
        noisy = torch.cat([noisy, self.confidence(error.norm(dim=-1, keepdim=True))], dim=-1)
        return torch.where(keypoints[..., 2:] > 0, noisy, keypoints)

    def errors(self, clips, frames):
        """Return errors (clips, frames, 17, 2)."""
        keys = 1 + max(1, round((frames - 1) / self.parameters.key_spacing))
        shape = (clips, keys, len(JOINTS), 2)
        gaussian = torch.randn(shape) * self._std + self._mean
        uniform = (torch.rand(shape) - 0.5) * self.parameters.uniform_range
        at_keys = torch.where(torch.rand(*shape[:-1], 1) < self._gaussian, gaussian, uniform)
        position = torch.linspace(0, keys - 1, frames)
        before = position.long().clamp(max=keys - 2)
        share = (position - before)[:, None, None]
        drift = torch.lerp(at_keys[:, before], at_keys[:, before + 1], share)
        return drift + torch.randn(clips, frames, len(JOINTS), 2) * self._jitter

    def confidence(self, distance):
        """Return the confidence of joints whose error is `distance`, of the same shape."""
        p = self.parameters.confidence
        shift = torch.randn(distance.shape) * p.std + p.mean
        return (p.a / (distance + p.a) + p.b * distance + shift).clamp(0, 1)


def _read(path):
    path = Path(path)
    path = require_file(path if path.is_absolute() or path.is_file() else PROJECT / path, "; set noise_path")
    return read_joint_table(path, _Parameters)
