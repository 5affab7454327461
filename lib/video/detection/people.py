"""Comparison of people by their joints, in COCO's order."""

import numpy as np

from lib.body.layouts import LAYOUTS

BODY = slice(5, 17)  # shoulders to ankles
SHOULDERS, HIPS = [5, 6], [11, 12]

_OF = {len(LAYOUTS[name]): [LAYOUTS[name].index(j) for j in LAYOUTS["coco17"]] for name in ("mediapipe33", "coco17")}


def coco(joints):
    """Return COCO's joints (17, 3) of MediaPipe's (33, 3) or of COCO's."""
    return joints[_OF[len(joints)]]


def size(joints):
    """Return the longer side of the box of joints, px."""
    return float(np.ptp(joints[:, :2], axis=0).max())


def upwards(joints):
    """Return the unit vector in the image from the hips to the shoulders; straight up if they are in one place."""
    vector = joints[SHOULDERS, :2].mean(0) - joints[HIPS, :2].mean(0)
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else np.array([0.0, -1.0])


def apart(joints, others):
    """Return the median distance between the bodies of two people, in units of the size of the second."""
    distances = np.linalg.norm(joints[BODY, :2] - others[BODY, :2], axis=1)
    return float(np.median(distances)) / max(1e-6, size(others))


def overlap(box, other):
    """Return the intersection over union of two boxes (x0, y0, x1, y1)."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    shared = np.clip(sides, 0, None).prod()
    return float(shared / max(1e-6, (box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod() - shared))


def distinct(people, same):
    """Return people, or poses, without those that are the `same(a, b)` as an earlier one."""
    kept = []
    for person in people:
        if not any(same(person, other) for other in kept):
            kept.append(person)
    return kept
