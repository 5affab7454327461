"""Errors of one person's poses against truth, over time; joints without truth or frames without a pose are NaN.

Lengths are in the unit of what is given.
"""

import numpy as np

from lib.body.skeleton import ROOT, root_relative
from lib.eval.h36m import p_mpjpe

_MOVING = 3  # frames, over which movements are compared
_LEAST_OVERLAP = 0.5  # of the frames, that two series must share for a lag to be tried


def distances(found, truth):
    """Return distances (F, J) of joints (F, J, D) from the truth."""
    return np.linalg.norm(found - truth, axis=-1)


def pck(found, truth, limits):
    """Return the share of true joints with a found one within a limit; joints that were not found count as wrong.

    Args:
        found, truth: (F, J, D).
        limits: (F,).
    """
    known = np.isfinite(truth).all(-1)
    with np.errstate(invalid="ignore"):
        right = distances(found, truth) < limits[:, None]
    return float(right[known].mean()) if known.any() else np.nan


def procrustes_errors(found, truth):
    """Return P-MPJPE (F,) of poses (F, J, 3) over the joints that both have; NaN with fewer than three."""
    errors = np.full(len(truth), np.nan)
    both = np.isfinite(found).all(-1) & np.isfinite(truth).all(-1)
    for frame in np.flatnonzero(both.sum(1) >= 3):
        joints = both[frame]
        errors[frame] = p_mpjpe(found[frame, joints][None], truth[frame, joints][None])[0]
    return errors


def fit_scale(found, truth):
    """Return the one factor that brings root-relative poses (F, J, 3) nearest to the truth, by least squares."""
    found, truth = root_relative(found), root_relative(truth)
    both = np.isfinite(found) & np.isfinite(truth)
    norm = (found[both] ** 2).sum()
    return float((found[both] * truth[both]).sum() / norm) if norm else np.nan


def scaled_errors(found, truth, scale):
    """Return root-relative errors (F, J) of poses (F, J, 3) after a scale; the root, 0 in both, is left out."""
    errors = distances(scale * root_relative(found), root_relative(truth))
    errors[:, ROOT] = np.nan
    return errors


def acceleration_errors(found, truth, fps):
    """Return norms (F - 2, J) of the difference of accelerations, per s^2, of positions (F, J, D)."""
    return np.linalg.norm(np.diff(found - truth, 2, axis=0), axis=-1) * fps**2


def lag(found, truth, most=8):
    """Return by how many frames series (F, ...) follow the truth late: where movements correlate most.

    Movements over a few frames, since errors that last would hide in positions what moves. A parabola through the highest value and its neighbours gives fractions of a frame. None where the truth does
    not move, too few frames are there, or the correlation has no maximum within `most` frames.
    """
    found, truth = (np.asarray(series, float).reshape(len(series), -1) for series in (found, truth))
    found, truth = (series[_MOVING:] - series[:-_MOVING] for series in (found, truth))
    most = min(most, len(truth) - 1)
    if most < 1:
        return None
    shifts = np.arange(-most, most + 1)
    values = np.array([_correlation(*_shifted(found, truth, shift)) for shift in shifts])
    if not np.isfinite(values).any():
        return None
    best = int(np.nanargmax(values))
    if best in (0, len(shifts) - 1) or not np.isfinite(values[best - 1 : best + 2]).all():
        return None
    before, peak, after = values[best - 1 : best + 2]
    bend = before - 2 * peak + after
    return float(shifts[best] + (0.5 * (before - after) / bend if bend < 0 else 0.0))


def _shifted(found, truth, shift):
    """Return the frames of both series that meet when the truth comes `shift` frames later."""
    if shift >= 0:
        return found[shift:], truth[: len(truth) - shift]
    return found[:shift], truth[-shift:]


def _correlation(found, truth):
    """Return the normalised correlation of all columns together, each without its mean."""
    both = np.isfinite(found) & np.isfinite(truth)
    enough = both.sum(0) >= max(3, _LEAST_OVERLAP * len(truth))
    if not enough.any():
        return np.nan
    found, truth = (np.where(both, series, np.nan)[:, enough] for series in (found, truth))
    found, truth = found - np.nanmean(found, 0), truth - np.nanmean(truth, 0)
    norm = np.sqrt(np.nansum(found**2) * np.nansum(truth**2))
    return np.nansum(found * truth) / norm if norm > 0 else np.nan


def angle(a, b):
    """Return the angle between two directions (3,), degrees."""
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def contacts(feet, levels, fps, slow=0.2, rise=0.05):
    """Return when each of N feet stands, (F, N) bool.

    A foot stands where it is slower than `slow` m/s and at most `rise` m above the height that it seldom goes below.

    Args:
        feet: (F, N, 3) m, true places, any axes that do not move.
        levels: (F, N) m, true heights.
    """
    speed = np.linalg.norm(np.gradient(feet, axis=0), axis=-1) * fps
    with np.errstate(invalid="ignore"):
        return (speed < slow) & (levels < np.nanpercentile(levels, 10, axis=0) + rise)
