"""MPJPE and P-MPJPE, and Human3.6M's protocols 1 and 2, without a Python loop over frames."""

from typing import NamedTuple

import numpy as np

from lib.body.skeleton import ROOT, root_relative
from lib.data.datasets.h36m import EXCLUDED_SOURCES
from lib.data.store import BLOCK
from lib.errors import UserError
from lib.eval import scores


class Errors(NamedTuple):
    """Mean errors in mm: `mpjpe` (protocol 1), `p_mpjpe` (protocol 2)."""

    mpjpe: float
    p_mpjpe: float


class _ScoresH36M(NamedTuple):
    mpjpe: float
    p_mpjpe: float
    per_action: dict


class Scores(scores.PoseScores, _ScoresH36M):
    """Errors in mm: means over actions, and `per_action` {action: Errors}."""


def mpjpe(predicted, target):
    """Return the mean per-joint position error of each pose: (..., J, 3) twice -> (...), in their unit."""
    return np.linalg.norm(predicted - target, axis=-1).mean(-1)


def p_mpjpe(predicted, target):
    """Return the MPJPE after the best rotation, translation and scale (Procrustes, never a reflection).

    (n, J, 3) twice -> (n,), in their unit. A predicted pose whose joints all coincide has no best
    rotation or scale and is only translated.
    """
    target_mean = target.mean(1, keepdims=True)
    x = predicted - predicted.mean(1, keepdims=True)
    y = target - target_mean
    u, s, vt = np.linalg.svd(np.swapaxes(x, 1, 2) @ y)
    sign = np.sign(np.linalg.det(u @ vt))
    u[:, :, -1] *= sign[:, None]
    s[:, -1] *= sign
    size = (x**2).sum((1, 2))
    scale = np.divide(s.sum(-1), size, out=np.ones_like(size), where=size > 0)
    aligned = scale[:, None, None] * (x @ (u @ vt)) + target_mean
    return mpjpe(aligned, target)


def evaluate_h36m(predictions, reader, rootrel=True):
    """Return Human3.6M's protocol 1 (MPJPE) and protocol 2 (P-MPJPE) of predicted test clips.

    Poses are denormalised, brought to mm by `2.5d_factor` and made root-relative. A frame that several
    clips cover counts once, with its mean error; where one clip holds a frame several times (a
    resampled one), the last of them counts, as in the published evaluation. Sources with wrong labels
    are left out, then errors are averaged over the frames of an action and over the actions that have
    frames left.

    Args:
        predictions: (clips, n_frames, 17, 3) normalised poses of the reader's test clips.
        reader: the `DataReaderH36M` that cut them.
        rootrel: poses are root-relative (the recipe's `rootrel: True`): whatever was predicted for the
            root counts as zero, as in the published evaluation.

    Returns:
        `Scores` in mm.

    Raises:
        ValueError: shapes do not fit.
        UserError: no frame is left to score.
    """
    _, clips = reader.get_split_id()
    sources = reader.array("test", "source", clips[:, 0])
    kept = np.flatnonzero(~np.any([np.char.startswith(sources, name) for name in EXCLUDED_SOURCES], axis=0))
    if not len(kept):
        raise UserError(
            f"{reader.path}: every test clip is of a source with wrong labels ({', '.join(EXCLUDED_SOURCES)})"
        )
    predictions = np.asarray(predictions).reshape(*clips.shape, 17, 3)
    total, count = np.zeros((2, reader.count("test"))), np.zeros(reader.count("test"))
    for chosen in np.array_split(kept, -(-len(kept) * clips.shape[1] // BLOCK)):
        frames, errors = _errors(predictions[chosen], reader, chosen, rootrel)
        np.add.at(count, frames, 1)
        for sums, values in zip(total, errors):
            np.add.at(sums, frames, values)

    covered = np.flatnonzero(count)
    names, action = np.unique(reader.array("test", "action", covered), return_inverse=True)
    per_action = _mean_by(action, total[:, covered] / count[covered], len(names))
    first, second = per_action.mean(1).tolist()
    errors = {name: Errors(*values) for name, values in zip(names.tolist(), per_action.T.tolist())}
    return Scores(first, second, errors)


def _errors(predictions, reader, chosen, rootrel):
    """Row numbers (n,) of the frames of some test clips, and MPJPE and P-MPJPE of each in mm (2, n)."""
    clips = reader.get_split_id()[1][chosen]
    if rootrel:
        predictions[:, :, ROOT] = 0
    counted = _last_of_each_frame(clips)
    frames = clips.ravel()[counted]
    poses = reader.denormalize(predictions, chosen).reshape(-1, 17, 3)[counted]
    factor = reader.array("test", "2.5d_factor", frames).astype(np.float64)
    predicted = root_relative(poses * factor[:, None, None])
    target = root_relative(reader.array("test", "joints_2.5d_image", frames).astype(np.float64))
    return frames, np.stack([mpjpe(predicted, target), p_mpjpe(predicted, target)])


def _last_of_each_frame(clips):
    """Return, of frame numbers (clips, F), whether each is not met again later in its clip, (clips * F,) bool."""
    last = np.ones(clips.shape, bool)
    last[:, :-1] = clips[:, 1:] != clips[:, :-1]
    return last.ravel()


def _mean_by(group, values, groups):
    """Return the means of values (m, n) over equal entries of group (n,): (m, groups), 0 where a group is empty."""
    count = np.maximum(np.bincount(group, minlength=groups), 1)
    return np.stack([np.bincount(group, row, minlength=groups) for row in values]) / count
