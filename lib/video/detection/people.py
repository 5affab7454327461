"""Comparing people by their joints, in COCO's order."""

import numpy as np

from lib.video.detection.joints import LAYOUTS

BODY = slice(5, 17)  # shoulders to ankles
SHOULDERS, HIPS = [5, 6], [11, 12]

_OF = {len(LAYOUTS[name]): [LAYOUTS[name].index(j) for j in LAYOUTS["coco17"]] for name in ("mediapipe33", "coco17")}


def coco(joints):
    """Return COCO's joints (17, 3) of MediaPipe's (33, 3) or of COCO's."""
    return joints[_OF[len(joints)]]


def size(joints):
    """Return the longer side of the box of joints, px."""
    return float(np.ptp(joints[:, :2], axis=0).max())


def apart(joints, others):
    """Return the median distance between the bodies of two people, in units of the size of the second."""
    distances = np.linalg.norm(joints[BODY, :2] - others[BODY, :2], axis=1)
    return float(np.median(distances)) / max(1e-6, size(others))


def distinct(items, joints_of, least):
    """Return items without those whose joints are less than `least` apart from an earlier one's."""
    kept = []
    for item in items:
        if all(apart(joints_of(item), joints_of(other)) >= least for other in kept):
            kept.append(item)
    return kept
