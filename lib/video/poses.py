"""Poses of a video's people: positions of the joints in the image, in camera axes and in the world.

Axes. Camera: x right, y down, z forward, the camera at the origin. World: x right, y forward, z up, z = 0 at the ground
(`lib.video.lift.world`); a turn and a shift of the camera's axes, the same for all people and frames.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Person:
    """Track of one person through n frames of the video; a gap too long to bridge is left out, so frames may jump.

    Arrays may be memory-mapped: a long video has many.
    """

    id: int  # from 1, in order of appearance; or the number that the source of detections gives them
    frames: np.ndarray  # (n,) int, numbers of the video's frames from 0, ascending
    keypoints: np.ndarray  # (n, 17, 3) float32: x, y in px of the upright image, confidence 0 to 1
    bridged: np.ndarray  # (n,) bool: no detection, the pose is interpolated
    camera: np.ndarray  # (n, 17, 3) float32, m
    world: np.ndarray  # (n, 17, 3) float32, m

    def segments(self):
        """Return slices of the arrays in which frames are consecutive."""
        ends = np.flatnonzero(np.diff(self.frames) > 1) + 1
        edges = [0, *ends.tolist(), len(self.frames)]
        return [slice(a, b) for a, b in zip(edges[:-1], edges[1:]) if b > a]


@dataclass(frozen=True)
class Poses:
    """Poses of all people of a video."""

    source: str  # the video's name
    times: np.ndarray  # (F,) seconds of every frame from the first
    width: int  # px, of the upright image
    height: int
    focal: float  # px, assumed or given
    rotation: np.ndarray  # (3, 3), camera axes -> world axes
    shift: np.ndarray  # (3,) m: world = rotation @ camera + shift
    people: list[Person] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # what of them a user should know, a line each
    detection_fps: float | None = None  # frames per second at which a detector found people, where one did

    @property
    def fps(self):
        """Return the mean rate, frames per second."""
        return mean_rate(self.times)


def mean_rate(times, of_one=25.0):
    """Return the frames per second of times (F,) in s; of_one: the rate of a single frame."""
    return (len(times) - 1) / float(times[-1] - times[0]) if len(times) > 1 else of_one
