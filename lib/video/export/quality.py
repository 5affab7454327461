"""Quality of poses without ground truth: constancy of limb lengths, acceleration of joints."""

from typing import NamedTuple

import numpy as np

from lib.body.skeleton import limb_vectors
from lib.video.track.gaps import blocks


class Quality(NamedTuple):
    """Quality of one person's poses."""

    limb_deviation: float  # mm: mean over limbs of the standard deviation of their length
    acceleration: float  # m/s^2: mean over joints and frames, in camera axes


def quality(person, fps):
    """Return the `Quality` of a `Person`, read block by block."""
    count, total, squares, accelerations, of = 0, 0.0, 0.0, 0.0, 0
    for segment in person.segments():
        for part in blocks(segment):
            block = np.asarray(person.camera[part], np.float64)
            lengths = np.linalg.norm(limb_vectors(block), axis=-1)
            count, total, squares = count + len(block), total + lengths.sum(0), squares + (lengths**2).sum(0)
            if len(block) > 2:
                second = np.linalg.norm(np.diff(block, 2, axis=0), axis=-1) * fps**2
                accelerations, of = accelerations + second.sum(), of + second.size
    deviation = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0)).mean()
    return Quality(float(deviation * 1e3), float(accelerations / max(1, of)))
