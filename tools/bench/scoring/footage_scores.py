"""Scores of an `Estimate` of a view, and their mean over people and views."""

import numpy as np

from lib.body.skeleton import root_relative
from tools.bench.scoring import pose_errors
from tools.bench.scoring.matching import match

MISSING = 250.0  # mm that a frame counts in which a person was not found
ANKLE = 0.08  # m above the ground
ANKLES = [3, 6]

DEFINITIONS = {  # of people, then of views
    "frames": "frames in which at least 8 of the person's joints have believed truth; all else is of these",
    "found": "share with a pose near the person: median distance of believed joints below 1/16 of the longer side",
    "found_well": "share in which that median is below 8 % of the person's height",
    "pck5": "share of joints within 5 % of the height (from legs and trunk, at the person's distance)",
    "error_px": "mean over frames of the mean distance of joints, found frames only",
    "median_px": "median distance of joints, found frames only",
    "p_mpjpe": "mm after the best rotation, translation and scale of each frame; 250 where not found",
    "p_mpjpe_found": "the same over found frames",
    "mpjpe_scaled": "mm, root-relative, camera axes, after one scale of the person in the view; found frames",
    "scale": "that scale",
    "acceleration_error": "m/s^2, root-relative, after that scale; truth smoothed to 6 Hz, for it shakes itself",
    "lag_2d": "frames that keypoints follow late: where movements correlate most; null where unclear; mean: the median",
    "lag_3d": "the same of root-relative joints",
    "feet": "m: 5, 50, 95 % of the ankle's height above 0.08 m on the ground of the result while the foot stands",
    "feet_off": "m: 95 % of the absolute value of that height",
    "up_error": "degrees between the result's up and the truth's",
    "false": "people a frame where nobody is",
    "duplicates": "second poses of one person a frame",
    "bystanders": "people a frame who are there but have no truth",
}


def score_view(estimate, view):
    """Return {"people": [...], and the keys of views in `DEFINITIONS`} of an `Estimate`."""
    chosen, counts = match(estimate, view)
    people = [_score_person(estimate, view, person, chosen[person]) for person in range(len(chosen))]
    up = None if estimate.up is None else pose_errors.angle(estimate.up, view.up)
    return {"people": people, "up_error": up, **counts._asdict()}


def mean(views):
    """Return the mean of each figure over all people of all views {name: as `score_view`}; unknown ones left out."""
    people = [person for view in views.values() for person in view["people"]]
    keys = [key for key in DEFINITIONS if key in people[0] and key != "feet"]
    means = {key: (_median if key.startswith("lag") else _mean)([person[key] for person in people]) for key in keys}
    rest = ("up_error", "false", "duplicates", "bystanders")
    return means | {key: _mean([view[key] for view in views.values()]) for key in rest}


def _score_person(estimate, view, person, chosen):
    """Return the figures of one person; chosen: (F,) their poses, -1 for none."""
    judged = view.believed[person].any(-1)
    found = judged & (chosen >= 0)
    known = view.believed[person][..., None]
    keypoints = np.where(known, view.keypoints[person], np.nan)
    truth = np.where(known, view.poses[person], np.nan)
    seen, poses = (np.where(found[:, None, None], a[chosen], np.nan) if len(a) else np.full_like(b, np.nan)
                   for a, b in ((estimate.keypoints, keypoints), (estimate.poses, truth)))  # fmt: skip
    off = pose_errors.distances(seen, keypoints)[found]
    heights = view.heights[person]
    aligned = pose_errors.procrustes_errors(poses, truth) * 1e3
    scale = pose_errors.fit_scale(poses, truth)
    moved, moves = scale * root_relative(poses), root_relative(truth)
    steady = root_relative(np.where(known, view.steady[person], np.nan))
    return {
        "frames": int(judged.sum()),
        "found": _share(found[judged]),
        "found_well": _share((np.nanmedian(off, 1) < 0.08 * heights[found]), judged.sum()),
        "pck5": pose_errors.pck(seen, keypoints, 0.05 * heights),
        "error_px": _mean(np.nanmean(off, 1)),
        "median_px": _number(np.nanmedian(off)) if len(off) else None,
        "p_mpjpe": _mean(np.where(found, aligned, MISSING)[judged]),
        "p_mpjpe_found": _mean(aligned[found]),
        "mpjpe_scaled": _mean(pose_errors.scaled_errors(poses, truth, scale) * 1e3),
        "scale": _number(scale),
        "acceleration_error": _mean(pose_errors.acceleration_errors(moved, steady, view.fps)),
        "lag_2d": pose_errors.lag(seen, keypoints),
        "lag_3d": pose_errors.lag(moved, moves),
        **_feet(estimate, view, person, np.where(found, chosen, -1), scale),
    }


def _feet(estimate, view, person, chosen, scale):
    heights = np.zeros(0)
    if estimate.levels is not None and (chosen >= 0).any():
        known = view.believed[person][:, ANKLES]
        feet = np.where(known[..., None], view.poses[person][:, ANKLES], np.nan)
        levels = np.where(known, view.levels[person][:, ANKLES], np.nan)
        stands = pose_errors.contacts(feet, levels, view.fps) & (chosen >= 0)[:, None]
        heights = scale * estimate.levels[chosen][:, ANKLES][stands] - ANKLE
    if not len(heights):
        return {"feet": None, "feet_off": None}
    return {"feet": np.percentile(heights, [5, 50, 95]).tolist(), "feet_off": float(np.percentile(abs(heights), 95))}


def _mean(values):
    """Return the mean of what is known, or None."""
    return _number(np.mean(known)) if len(known := _known(values)) else None


def _median(values):
    return _number(np.median(known)) if len(known := _known(values)) else None


def _known(values):
    values = np.array([value for value in np.ravel(values) if value is not None], float)
    return values[np.isfinite(values)]


def _share(true, of=None):
    count = len(true) if of is None else of
    return float(true.sum() / count) if count else None


def _number(value):
    return float(value) if np.isfinite(value) else None
