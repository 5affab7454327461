"""Whether an image shows a joint: decided by the part of the body, or the thing, that is drawn at its place."""

import numpy as np

from lib.data.synthetic.body import SEGMENTS
from lib.data.synthetic.render import NOTHING

SEEN, HIDDEN, OUTSIDE = range(3)
OTHERS = 254  # in a segmentation: another person or a thing

_INSIDE = 0.18  # m, largest depth of a visible joint below the skin
_ON_SKIN = {"nose": 0.05, "left eye": 0.05, "right eye": 0.05, "left ear": 0.07, "right ear": 0.07}  # m, likewise


def _around():
    """Return {joint: the segments around it}."""
    joints = {
        "pelvis": ("pelvis", "left thigh", "right thigh"),
        "spine": ("waist", "chest", "pelvis"),
        "thorax": ("chest", "neck"),
        "head top": ("head", "neck"),
        **dict.fromkeys(_ON_SKIN, ("head",)),
    }
    for side in ("left", "right"):
        arm, forearm, hand, thigh, shin, foot = (
            f"{side} {part}" for part in ("upper arm", "forearm", "hand", "thigh", "shin", "foot")
        )
        joints |= {
            f"{side} shoulder": ("chest", arm, "neck"), f"{side} elbow": (arm, forearm), f"{side} wrist": (forearm, hand),
            f"{side} hip": ("pelvis", thigh), f"{side} knee": (thigh, shin), f"{side} ankle": (shin, foot),
        }  # fmt: skip
    return joints


class Visibility:
    """Decision for joints of these names.

    on_skin: whether eyes, ears and nose are hidden by the head itself.
    """

    def __init__(self, names, on_skin=True):
        around = _around()
        self._own = np.zeros((len(names), NOTHING + 1), bool)
        for joint, name in enumerate(names):
            self._own[joint, [SEGMENTS.index(part) for part in around[name]]] = True
        self._below = np.array([_ON_SKIN.get(name, _INSIDE) if on_skin else _INSIDE for name in names], np.float32)

    def __call__(self, segments, depth, joints, keypoints):
        """Return (J,) of SEEN, HIDDEN and OUTSIDE of the image.

        Args:
            segments: (H, W) uint8: the number of a segment, OTHERS or NOTHING.
            depth: (H, W) m, of what is drawn.
            joints: (J, 3) m, camera axes; keypoints: (J, 2) px.
        """
        height, width = depth.shape
        x, y = np.floor(keypoints).astype(int).T
        outside = (x < 0) | (y < 0) | (x >= width) | (y >= height)
        x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
        there, surface, joint = segments[y, x], depth[y, x], joints[:, 2]
        beside = (there >= OTHERS) & (surface > joint)  # just past the body's outline
        at_surface = self._own[np.arange(len(joints)), there] & (surface > joint - self._below)
        return np.where(outside, OUTSIDE, np.where(beside | at_surface, SEEN, HIDDEN))
