"""Placement of people before the camera.

An image alone does not tell how large things are, nor the camera's focal length. People are taken as of standard size,
the focal length as that of an image 54 degrees wide along its longer side, unless it is given.
"""

import numpy as np

from lib.video.lift.smoothing import penalised

FOCAL = 0.98  # in units of the image's longer side
_DEPTH_CUTOFF = 0.75  # Hz, of the smoothing of depths
_LEAST_DEPTH = 0.3  # m


def roots(poses, keypoints, width, height, focal):
    """Return the roots (n, 3) m, camera axes, with which poses fit their keypoints best.

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


def steady(found, times, smoothed=True):
    """Return roots (n, 3) of one segment with their depths smoothed; frames of NaN are filled from those around.

    The depth follows from the size in the image, which errors of a few px change by some percent; the place in the
    image is kept.

    Args:
        times: (n,) s.
        smoothed: whether depths are.
    """
    frame, known = np.arange(len(found)), np.isfinite(found).all(1)
    if not known.any():
        return np.tile([0.0, 0.0, 4.0], (len(found), 1))
    direction = found[known, :2] / found[known, 2:]
    direction = np.stack([np.interp(frame, frame[known], column) for column in direction.T], axis=1)
    depth = np.interp(frame, frame[known], np.log(found[known, 2]))
    if smoothed and len(depth) > 2:
        depth = penalised(depth[:, None], known, times, _DEPTH_CUTOFF)[:, 0]
    depth = np.exp(depth)
    return np.concatenate([direction * depth[:, None], depth[:, None]], axis=1)
