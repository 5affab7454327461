"""Random parts of images that training crops show, as ViTPose trains on COCO."""

import numpy as np

from lib.body.layouts import LAYOUTS
from lib.data.crop_maps import shown_part

_SCALE, _SCALES = 0.5, (0.5, 1.5)  # std of the part's size, in units of it, and its bounds
_TURN, _TURNS = np.deg2rad(40), np.deg2rad(80)  # std, and the largest rotation
_TURNED = 0.6  # share of crops that are rotated
_MIRRORED = 0.5
_HALF, _LEAST = 0.3, 8  # share of crops of half a body, of people with more labelled keypoints than that
_UPPER = 0.5  # share of these that show the upper half
_FEWEST = 2  # keypoints of a half
_HALF_PADDING = 1.5
_LOWER_JOINTS = np.array([any(part in name for part in ("hip", "knee", "ankle")) for name in LAYOUTS["coco17"]])


def random_part(rng, centre, width, keypoints, size):
    """Return a random part of an image about a person: centre (2,), width, turn in rad, and -1 if it is mirrored, else 1.

    Args:
        rng: NumPy generator.
        centre, width: (2,) and px, of the part about the whole person.
        keypoints: (17, 3) of COCO, px of the image, and 0 where one is not labelled.
        size: (width, height) of the crop, px.
    """
    labelled = keypoints[:, 2] > 0
    if labelled.sum() > _LEAST and rng.random() < _HALF:
        half = labelled & (_LOWER_JOINTS ^ (rng.random() < _UPPER))
        if half.sum() > _FEWEST:
            low, high = keypoints[half, :2].min(0), keypoints[half, :2].max(0)
            centres, widths = shown_part(np.concatenate([low, high - low])[None], size, _HALF_PADDING)
            centre, width = centres[0], max(1.0, widths[0])
    width = width * np.clip(1 + _SCALE * rng.standard_normal(), *_SCALES)
    turn = np.clip(_TURN * rng.standard_normal(), -_TURNS, _TURNS) * (rng.random() < _TURNED)
    return centre, width, turn, -1.0 if rng.random() < _MIRRORED else 1.0
