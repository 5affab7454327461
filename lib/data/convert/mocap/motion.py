"""A moving skeleton and where its points are: forward kinematics of all frames at once."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

LEAST_FPS, MOST_FPS = 1, 1000  # frames per second that a recording can have


@dataclass(frozen=True)
class Skeleton:
    """P points, each fixed to the frame of its parent, which comes before it.

    names: P names; a bone's or joint's own name is where it starts, "NAME.end" is the free end of one.
    parents: P indices, -1 for the root.
    offsets: (P, 3), from the parent, in the parent's frame, in the file's unit.
    """

    names: tuple
    parents: tuple
    offsets: np.ndarray


@dataclass(frozen=True)
class Motion:
    """Of n frames.

    rotations: {point: Rotation of n} relative to the parent; a point without one does not turn.
    translations: {point: (n, 3)} in place of the point's offset, in the file's unit.
    fps: frames per second, None where the file does not say.
    """

    skeleton: Skeleton
    frames: int
    rotations: dict
    translations: dict
    fps: float | None = None


def point_positions(motion):
    """Positions (n, P, 3) of all points in the file's unit and axes.

    With G the rotation and x the position of a point in the world, R its own rotation and t its offset:
    x = x_parent + G_parent t and G = G_parent R.
    """
    skeleton = motion.skeleton
    positions = np.empty((motion.frames, len(skeleton.names), 3))
    turned = []
    for point, parent in enumerate(skeleton.parents):
        offset = motion.translations.get(point, skeleton.offsets[point])
        own = motion.rotations.get(point)
        if parent < 0:
            positions[:, point] = offset
            turned.append(Rotation.identity() if own is None else own)
        else:
            positions[:, point] = positions[:, parent] + turned[parent].apply(offset)
            turned.append(turned[parent] if own is None else turned[parent] * own)
    return positions


def resample(positions, source_fps, fps):
    """Positions (n, ..., 3) at `source_fps` as (m, ..., 3) at `fps`, starting with the same frame.

    Every k-th frame where the rates' ratio is a whole number k (to 0.1 %: files round their frame time), else
    linear interpolation, which shortens fast bones a little.
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
