"""Whether an image shows a joint: decided by the part of the body, or the thing, that is drawn at its place."""

import numpy as np

from lib.data.synthetic.body import NOTHING, SEGMENTS, SOMEONE

SEEN, HIDDEN, OUTSIDE = range(3)

_INSIDE = 0.18  # m, largest depth of a visible joint below what is drawn
_FACE = {"nose": 0.05, "left eye": 0.05, "right eye": 0.05, "left ear": 0.07, "right ear": 0.07}  # m, likewise
_BELOW = _FACE | dict.fromkeys(("pelvis", "spine", "thorax", "left hip", "right hip"), 0.25)


def _around():
    """Return {joint: the segments around it}."""
    joints = {
        "pelvis": ("pelvis", "left thigh", "right thigh"),
        "spine": ("waist", "chest", "pelvis"),
        "thorax": ("chest", "neck"),
        "head top": ("head", "neck"),
        **dict.fromkeys(_FACE, ("head",)),
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

    as_measured: as configs/noise was measured: all joints lie equally deep, the waist does not show hips and pelvis.
    """

    def __init__(self, names, as_measured=False):
        around, below = _around(), {} if as_measured else _BELOW
        if not as_measured:
            around |= {name: (*around[name], "waist") for name in ("pelvis", "left hip", "right hip")}
        self._own = np.zeros((len(names), NOTHING + 1), bool)
        for joint, name in enumerate(names):
            self._own[joint, [SEGMENTS.index(part) for part in around[name]]] = True
        self._below = np.array([below.get(name, _INSIDE) for name in names], np.float32)

    def __call__(self, segments, depth, joints, keypoints):
        """Return (J,) of SEEN, HIDDEN and OUTSIDE of the image.

        Args:
            segments: (H, W) uint8: the number of a segment, SOMEONE, THING or NOTHING.
            depth: (H, W) m, of what is drawn.
            joints: (J, 3) m, camera axes; keypoints: (J, 2) px.
        """
        height, width = depth.shape
        x, y = np.floor(keypoints).astype(int).T
        outside = (x < 0) | (y < 0) | (x >= width) | (y >= height)
        x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
        there, surface, joint = segments[y, x], depth[y, x], joints[:, 2]
        beside = (there >= SOMEONE) & (surface > joint)  # just past the body's outline
        at_surface = self._own[np.arange(len(joints)), there] & (surface > joint - self._below)
        return np.where(outside, OUTSIDE, np.where(beside | at_surface, SEEN, HIDDEN))
