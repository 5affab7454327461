"""What can be said of poses without knowing the truth: how constant limbs are, how jerky joints move."""

from typing import NamedTuple

import numpy as np

from lib.body.skeleton import limb_vectors
from lib.video.track.gaps import blocks


class Quality(NamedTuple):
    """Of one person."""

    limb_deviation: float  # mm: mean over limbs of the standard deviation of their length
    acceleration: float  # m/s^2: mean over joints and frames, before the camera


def quality(person, fps):
    """`Quality` of a `Person`, read block by block."""
    count, total, squares, accelerations, of = 0, 0.0, 0.0, 0.0, 0
    for segment in person.segments():
        for rows in blocks(segment):
            block = np.asarray(person.camera[rows], np.float64)
            lengths = np.linalg.norm(limb_vectors(block), axis=-1)
            count, total, squares = count + len(block), total + lengths.sum(0), squares + (lengths**2).sum(0)
            if len(block) > 2:
                second = np.linalg.norm(np.diff(block, 2, axis=0), axis=-1) * fps**2
                accelerations, of = accelerations + second.sum(), of + second.size
    deviation = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0)).mean()
    return Quality(float(deviation * 1e3), float(accelerations / max(1, of)))
