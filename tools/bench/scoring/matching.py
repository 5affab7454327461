"""Matching of estimated people in a view with those of the ground truth, by their keypoints."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NEAR = 120 / 1920  # of the image's longer side: median distance of joints up to which a pose is a person's


@dataclass(frozen=True)
class Estimate:
    """Poses estimated in a view: n poses, of any people and frames."""

    frames: np.ndarray  # (n,) int, numbers from 0
    keypoints: np.ndarray  # (n, 17, 2) px of the film
    poses: np.ndarray  # (n, 17, 3) m, camera axes; root-relative or not
    levels: np.ndarray | None = None  # (n, 17) m: height of each joint above the ground that it says
    up: np.ndarray | None = None  # (3,) camera axes: the up that it says


class Counts(NamedTuple):
    """Unmatched poses per frame, in frames in which the truth of all people is reliable."""

    false: float  # nobody is there
    duplicates: float  # a second pose of one person
    bystanders: float  # people without truth


def estimate_of(poses, scale=1.0):
    """Return the `Estimate` of `lib.video`'s `Poses`; scale: of their px over those of the film."""
    joined = {
        name: np.concatenate([np.zeros((0, *shape)), *(getattr(person, name) for person in poses.people)])
        for name, shape in (("frames", ()), ("keypoints", (17, 3)), ("camera", (17, 3)), ("world", (17, 3)))
    }
    return Estimate(
        joined["frames"].astype(int),
        joined["keypoints"][..., :2] / scale,
        joined["camera"],
        joined["world"][..., 2],
        poses.rotation[2],
    )


def nobody():
    """Return the `Estimate` of a view in which nobody was found."""
    return Estimate(np.zeros(0, int), np.zeros((0, 17, 2)), np.zeros((0, 17, 3)))


def match(estimate, view):
    """Return which pose is whose, (P, F) int, -1 where a person was not found, and the `Counts` of the others.

    A person's pose is the one whose believed joints are nearest to theirs in the image by the median, within `NEAR`.
    """
    distances = _distances(estimate, view)  # (P, n)
    people, frames = view.believed.shape[:2]
    chosen = np.full((people, frames), -1)
    for frame in range(frames):
        here = np.flatnonzero(estimate.frames == frame)
        if len(here):
            nearest = here[np.nan_to_num(distances[:, here], nan=np.inf).argmin(1)]
            close = distances[np.arange(people), nearest] < NEAR * view.longer_side
            chosen[close, frame] = nearest[close]
    return chosen, _count_others(estimate, view, chosen, distances)


def _distances(estimate, view):
    """Return median distances (P, n), px, of each pose to each person in its frame, over believed joints; NaN without any."""
    off = np.linalg.norm(estimate.keypoints - view.keypoints[:, estimate.frames], axis=-1)
    off = np.ma.masked_array(off, ~view.believed[:, estimate.frames])
    return np.ma.filled(np.ma.median(off, axis=-1).astype(float), np.nan)


def _count_others(estimate, view, chosen, distances):
    judged = view.believed.any(-1).all(0)
    other = judged[estimate.frames]
    other[chosen[chosen >= 0]] = False
    near = (distances < NEAR * view.longer_side).any(0)
    middle = (estimate.keypoints.min(1) + estimate.keypoints.max(1)) / 2
    low, high = view.bystanders[:, None, :2], view.bystanders[:, None, 2:]
    inside = ((middle > low) & (middle < high)).all(-1).any(0)
    kinds = ~near & ~inside, near, ~near & inside
    return Counts(*(float((other & kind).sum() / max(1, judged.sum())) for kind in kinds))
