"""Pinhole cameras: rotations, the pose of a camera that looks at something, projection.

Camera axes are x right, y down, z forward; world axes have z up. Functions take arrays or tensors where not said otherwise.
"""

import numpy as np
import torch

NEAREST = 0.1  # m: points nearer than this, or behind the camera, are projected as if they were at this depth


def project(points, focal, centre=0.0):
    """Return the image positions (..., 2) of points (..., 3) in camera axes, m.

    focal, centre: the focal length and the principal point, in the unit of the result; broadcast against it.
    """
    return points[..., :2] / points[..., 2:].clip(min=NEAREST) * focal + centre


def orbit_rotation(yaw, elevation):
    """Return rotations (..., 3, 3) from world to camera axes for level cameras on a sphere that look at its centre.

    yaw, elevation: (...), rad: where the camera is, seen from the centre; yaw from x towards y, elevation above the plane.
    """
    library, cross = (torch, torch.linalg.cross) if isinstance(yaw, torch.Tensor) else (np, np.cross)
    sin, cos, stack = library.sin, library.cos, library.stack
    forward = -stack([cos(elevation) * cos(yaw), cos(elevation) * sin(yaw), sin(elevation)], -1)
    right = stack([-sin(yaw), cos(yaw), library.zeros_like(yaw)], -1)
    return stack([right, cross(forward, right), forward], -2)


def look_at_rotation(centre, focal):
    """Return rotations (..., 3, 3) from a camera's axes to those of one turned to look at `centre` without rolling.

    Args:
        centre: (..., 2), image position from the principal point, in the unit of `focal`.
    """
    if isinstance(centre, torch.Tensor):
        stack, sqrt, (x, y) = torch.stack, torch.sqrt, (centre / focal).to(centre.dtype).unbind(-1)
    else:
        stack, sqrt, (x, y) = np.stack, np.sqrt, np.moveaxis(centre / focal, -1, 0)
    level, length = sqrt(1 + x * x), sqrt(1 + x * x + y * y)
    right = stack([1 / level, 0 * x, -x / level], -1)
    down = stack([-x * y / (level * length), level / length, -y / (level * length)], -1)
    forward = stack([x / length, y / length, 1 / length], -1)
    return stack([right, down, forward], -2)


def rotate(vectors, axis, angle):
    """Return vectors (..., 3) rotated about unit axes (..., 3) by angles (..., 1), rad (Rodrigues' formula); tensors."""
    axis = axis.expand_as(vectors)
    along = (vectors * axis).sum(-1, keepdim=True) * axis
    return along + angle.cos() * (vectors - along) + angle.sin() * torch.linalg.cross(axis, vectors)
