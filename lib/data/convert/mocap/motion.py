"""Motion of a skeleton and its forward kinematics, for all frames at once."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

LEAST_FPS, MOST_FPS = 1, 1000  # range of a recording's frames per second


@dataclass(frozen=True)
class Skeleton:
    """Skeleton of P points, each fixed to the axes of its parent, which comes before it.

    names: P names; the name of a bone or joint is its start, "NAME.end" its free end.
    parents: P indices, -1 for the root.
    offsets: (P, 3), from the parent, in the parent's axes, in the file's unit.
    """

    names: tuple
    parents: tuple
    offsets: np.ndarray


@dataclass(frozen=True)
class Motion:
    """Motion of a skeleton in n frames.

    rotations: {point: Rotation of n} relative to the parent; a point without one does not rotate.
    translations: {point: (n, 3)} in place of the point's offset, in the file's unit.
    fps: frames per second; None if the file does not state it.
    """

    skeleton: Skeleton
    frames: int
    rotations: dict
    translations: dict
    fps: float | None = None


def point_positions(motion):
    """Return positions (n, P, 3) of all points in the file's unit and axes.

    With G the rotation and x the position of a point in the world, R its own rotation and t its offset:
    x = x_parent + G_parent t and G = G_parent R.
    """
    skeleton = motion.skeleton
    positions = np.empty((motion.frames, len(skeleton.names), 3))
    rotations = []
    for point, parent in enumerate(skeleton.parents):
        offset = motion.translations.get(point, skeleton.offsets[point])
        own = motion.rotations.get(point)
        if parent < 0:
            positions[:, point] = offset
            rotations.append(Rotation.identity() if own is None else own)
        else:
            positions[:, point] = positions[:, parent] + rotations[parent].apply(offset)
            rotations.append(rotations[parent] if own is None else rotations[parent] * own)
    return positions


def resample(positions, source_fps, fps):
    """Return positions (n, ..., 3) at `source_fps` resampled to (m, ..., 3) at `fps`, starting with the same frame.

    The frames are subsampled with stride k where the rates' ratio is an integer k (to 0.1 %: files round their frame
    time), else interpolated linearly, which shortens fast bones a little.
    """
    ratio = source_fps / fps
    step = round(ratio)
    if step and abs(ratio - step) <= 1e-3 * step:
        return positions[::step]
    last = len(positions) - 1
    time = np.arange(int(last / ratio + 1e-9) + 1) * ratio  # in source frames
    before = np.minimum(time.astype(int), max(last - 1, 0))
    after = np.minimum(before + 1, last)
    share = (time - before).reshape(-1, *[1] * (positions.ndim - 1))
    return positions[before] * (1 - share) + positions[after] * share
