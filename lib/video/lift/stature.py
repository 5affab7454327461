"""Body height of a person from the lengths of the limbs, whatever the posture."""

import numpy as np

from lib.video.track.gaps import blocks

_CHAIN = ((1, 2), (2, 3), (4, 5), (5, 6)), ((0, 7), (7, 8), (8, 10))  # both legs, then trunk, neck and head
_UPRIGHT = (
    1.015  # body height in units of the chain: 0.975 of it from ankles to vertex (CMU motion), 0.039 below (Winter)
)


def stature(person):
    """Return the body height, m, that the camera poses of a `Person` have: the median of all frames."""
    chains = [_chain(person.camera[block]) for block in blocks(slice(0, len(person.frames)))]
    return _UPRIGHT * float(np.median(np.concatenate(chains)))


def _chain(camera):
    legs, body = (sum(np.linalg.norm(camera[:, a] - camera[:, b], axis=-1) for a, b in limbs) for limbs in _CHAIN)
    return legs / 2 + body
