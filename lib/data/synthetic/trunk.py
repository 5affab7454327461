"""Axes of a person's trunk."""

import torch
from torch.nn.functional import normalize

from lib.body.skeleton import ROOT

_THORAX, _HIPS, _SHOULDERS = 8, (1, 4), (14, 11)  # right, left


def trunk_axes(joints):
    """Return rotations (..., 3, 3) whose rows are the trunk's right, up and back, of joints (..., 17, 3)."""
    up = normalize(joints[..., _THORAX, :] - joints[..., ROOT, :], dim=-1)
    across = sum(joints[..., right, :] - joints[..., left, :] for right, left in (_HIPS, _SHOULDERS))
    right = normalize(across - (across * up).sum(-1, keepdim=True) * up, dim=-1)
    return torch.stack([right, up, torch.linalg.cross(right, up)], dim=-2)
