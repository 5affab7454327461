"""Whether images are turned: the bodies of most people, hips to shoulders, point elsewhere than up.

Somebody who lies or stands on their hands looks the same, so it is said and nothing is turned.
"""

import numpy as np

_PELVIS, _THORAX = 0, 8
_SIDES = {
    "left": (-1, 0, 90),
    "bottom": (0, 1, 180),
    "right": (1, 0, 270),
}  # x, y in the image; turn, degrees clockwise
_NEAR = np.cos(np.radians(40))
_MOST = 0.75  # of all people's frames


def where_heads_point(people):
    """Return the side of the image to which most bodies point, and the turn, degrees clockwise, that mends it, or None.

    Args:
        people: arrays (n, 17, 3) of keypoints, all people's in all frames.
    """
    directions = np.array([side[:2] for side in _SIDES.values()])
    pointing, total = np.zeros(len(_SIDES)), 0
    for keypoints in people:
        body = keypoints[:, _THORAX, :2] - keypoints[:, _PELVIS, :2]
        along = body @ directions.T > _NEAR * np.linalg.norm(body, axis=1, keepdims=True)
        pointing, total = pointing + along.sum(0), total + len(along)
    for (side, (_, _, turn)), count in zip(_SIDES.items(), pointing):
        if count > _MOST * total:
            return side, turn
    return None
