"""Filters of keypoints of unknown origin: joints far outside of the image, people of hardly any joint."""

import numpy as np

from lib.body.layouts import MEANS
from lib.body.skeleton import JOINTS

LEAST_JOINTS = 3  # of a person, to be lifted
_OWN = [joint for joint in range(len(JOINTS)) if joint not in MEANS]


def unsee_strays(keypoints, width, height):
    """Return keypoints in which joints farther outside of the image than it is large are not seen.

    Joints that are not seen are put amid those that are, so that nothing is drawn far from the person.

    Args:
        keypoints: (..., K, 3): x, y in px, confidence; finite, any layout.
        width, height: px, of the image.

    Returns:
        Keypoints, and which people (...) had strays, bool.
    """
    places, confidence = keypoints[..., :2], keypoints[..., 2:]
    size = np.array([width, height], np.float32)
    strays = ((places < -size) | (places > 2 * size)).any(-1, keepdims=True) & (confidence > 0)
    seen = (confidence > 0) & ~strays
    middle = (places * seen).sum(-2, keepdims=True) / np.maximum(seen.sum(-2, keepdims=True), 1)
    kept = np.concatenate([np.where(seen, places, middle), np.where(seen, confidence, 0)], axis=-1)
    return kept.astype(keypoints.dtype), strays.any((-2, -1))


def enough_seen(keypoints):
    """Return whether at least `LEAST_JOINTS` of Human3.6M's joints (..., 17, 3) are seen, without means of others."""
    return (keypoints[..., _OWN, 2] > 0).sum(-1) >= LEAST_JOINTS
