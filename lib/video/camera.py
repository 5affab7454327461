"""Where people are before the camera, and which way is up.

A picture alone does not tell how large things are, nor the camera's focal length. People are taken as of standard size,
the focal length as that of a picture 54 degrees wide along its longer side, unless it is given.
"""

import numpy as np
from scipy.ndimage import gaussian_filter1d

FOCAL = 0.98  # in units of the picture's longer side
_DEPTH_SPAN = 0.25  # s, std of the Gaussian that smooths depths
_STRAIGHT = np.cos(np.radians(25))  # legs and trunk of someone who stands
_LEVEL_FRAMES = 5  # frames of standing people that a level camera counts as
_ROLL = 0.25  # how much of a lean to the side is the camera's: people sway, cameras are held level
_ANKLE = 0.08  # m above the floor
_ANKLES = [3, 6]
_LEAST_DEPTH = 0.3  # m


def roots(poses, keypoints, width, height, focal):
    """Where the root is that poses fit their keypoints best: (n, 3) m, camera axes.

    Linear least squares of f (X + x) = u (Z + z), weighted by confidence, in each frame; NaN where fewer than three
    joints were seen.

    Args:
        poses: (n, 17, 3) root-relative, m.
        keypoints: (n, 17, 3) px, confidence.
    """
    centred = (keypoints[..., :2] - (width / 2, height / 2)) / focal
    weight = keypoints[..., 2].astype(np.float64)
    equations = np.zeros((len(poses), 17, 2, 3))
    equations[:, :, 0, 0] = equations[:, :, 1, 1] = 1
    equations[..., 2] = -centred
    known = centred * poses[..., 2:] - poses[..., :2]
    weighted = equations * weight[..., None, None]
    gram = np.einsum("njci,njck->nik", weighted, equations)
    moment = np.einsum("njci,njc->ni", weighted, known)
    enough = (weight > 0).sum(1) >= 3
    gram[~enough] = np.eye(3)
    found = np.linalg.solve(gram + 1e-9 * np.eye(3), moment[..., None])[..., 0]
    found[~enough | (found[:, 2] < _LEAST_DEPTH)] = np.nan
    return found


def steady(found, fps):
    """Roots (n, 3) of one segment with smooth depths, their place in the picture kept; frames of NaN are filled.

    The depth follows from the size in the picture, which errors of a few px change by some percent.
    """
    frame, known = np.arange(len(found)), np.isfinite(found).all(1)
    if not known.any():
        return np.tile([0.0, 0.0, 4.0], (len(found), 1))
    direction = found[known, :2] / found[known, 2:]
    direction = np.stack([np.interp(frame, frame[known], column) for column in direction.T], axis=1)
    depth = np.exp(np.interp(frame, frame[known], np.log(found[known, 2])))
    depth = np.exp(gaussian_filter1d(np.log(depth), _DEPTH_SPAN * fps, mode="nearest"))
    return np.concatenate([direction * depth[:, None], depth[:, None]], axis=1)


class World:
    """Which way is up, and where the floor is, from people who stand; fed block by block."""

    def __init__(self):
        self._up = np.array([0.0, -_LEVEL_FRAMES, 0.0])
        self._feet, self._all_feet = {}, {}

    def add(self, camera):
        """Poses (n, 17, 3) m of one person, consecutive frames."""
        up, straight = _standing(camera)
        self._up += (up[straight] / np.linalg.norm(up[straight], axis=-1, keepdims=True)).sum(0)

    def stand(self, person, camera):
        """Poses (n, 17, 3) m of a person: how low their lower foot is; after all of `add`."""
        heights = (camera[:, _ANKLES] @ self.rotation()[2]).min(1)
        self._all_feet.setdefault(person, []).append(heights)
        self._feet.setdefault(person, []).append(heights[_standing(camera)[1]])

    def rotation(self):
        """(3, 3): camera axes -> world axes (x right, y ahead, z up)."""
        up = self._up * (_ROLL, 1, 1)
        up /= np.linalg.norm(up)
        right = np.array([1.0, 0, 0]) - up[0] * up
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(up, right), up])

    def shift(self):
        """(3,) m: brings the feet of the lowest of those who stand, or of all, to their height above the floor."""
        standing, everyone = (
            [np.concatenate(parts) for parts in feet.values()] for feet in (self._feet, self._all_feet)
        )
        standing = [heights for heights in standing if len(heights) >= _LEVEL_FRAMES]
        return np.array([0, 0, _ANKLE - min(np.percentile(heights, 10) for heights in standing or everyone)])


def _standing(camera):
    """From feet to neck (n, 3), and whether legs and trunk are along it, (n,) bool."""
    thighs = camera[:, [1, 4]] - camera[:, [2, 5]]
    shins = camera[:, [2, 5]] - camera[:, [3, 6]]
    trunk = camera[:, 8] - camera[:, 0]
    up = camera[:, 8] - camera[:, _ANKLES].mean(1)
    parts = [thighs[:, 0], thighs[:, 1], shins[:, 0], shins[:, 1], trunk]
    return up, np.all([_cosine(part, up) > _STRAIGHT for part in parts], axis=0)


def _cosine(a, b):
    return (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-9)
