"""Vertical direction from buildings: straight lines in an image that are nearly upright by a first estimate.

The plane through the camera and an upright line holds the world's up, so its normal is square to it. Up is the direction
that is most nearly so to all lines that are not far off (iteratively reweighted least squares), and near to what people
say. Where nothing is built, few lines are found and people decide alone.
"""

import cv2
import numpy as np

_SHORTEST = 0.03  # of the longer side of the image, a line
_NEAR = (5, 5, 5, 4, 3, 2.5, 2.5, 2.5)  # degrees that a line may be off in each round: others are not upright
_ERROR = 1.5  # degrees that a line is off and counts half
_PEOPLE = 0.02  # what people say, in lines as long as the image's longer side


def lines(image, focal):
    """Return the normals (n, 3) of the planes through the camera and straight lines, and the lines' lengths (n,).

    Args:
        image: (H, W, 3) uint8, RGB.
        focal: px.

    Lengths are in units of the longer side of the image.
    """
    found = cv2.createLineSegmentDetector().detect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    if found is None:
        return np.empty((0, 3)), np.empty(0)
    ends = found.reshape(-1, 2, 2).astype(float)
    lengths = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1) / max(image.shape[:2])
    ends, lengths = ends[lengths > _SHORTEST], lengths[lengths > _SHORTEST]
    centred = (ends - np.array(image.shape[1::-1]) / 2) / focal
    rays = np.concatenate([centred, np.ones((*centred.shape[:2], 1))], axis=-1)
    normals = np.cross(rays[:, 0], rays[:, 1])
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True), lengths


def refine(up, normals, lengths):
    """Return up (3,), camera axes, a unit vector, moved to what the `lines` of an image say."""
    people = _PEOPLE * (np.eye(3) - np.outer(up, up))
    for near in _NEAR:
        off = np.degrees(np.arcsin(np.clip(normals @ up, -1, 1)))
        weights = lengths * (np.abs(off) < near) / (1 + (off / _ERROR) ** 2)
        direction = np.linalg.eigh((normals * weights[:, None]).T @ normals + people)[1][:, 0]
        up = direction * np.sign(direction @ up)
    return up
