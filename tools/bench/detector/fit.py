"""Fit of the parameters of lib/data/synthetic/simulated_detector.py to a detector's errors against ground truth.

Two kinds of tracks go in: real footage, whose truth comes from the same network, so that errors common to all views are
not in it; and drawn people, whose truth is exact but who look less like people. Sizes are those of both together, with
footage counted `FOOTAGE` times; definitions and what depends on visibility come from drawn people alone.

Robust throughout: sizes are medians and ratios of quantiles, outliers are judged apart. Left and right joints count as
one. Tracks are cut into pieces of `PIECE` seconds at about 30 frames per second: what a network sees at a time.
"""

import warnings
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import curve_fit, least_squares
from scipy.stats import norm

from lib.body.layouts import MEANS
from lib.body.skeleton import FLIPPED, JOINTS
from lib.data.synthetic.detector_parameters import GROUPS, STATES
from lib.data.synthetic.simulated_detector import SIDES
from lib.errors import UserError

OWN = [joint for joint in range(len(JOINTS)) if joint not in MEANS]  # joints that the detector itself has
OUTLIER = 0.45  # of the person's size: errors from here on are outliers
LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24)  # frames at 30 per second

_PIECE, _FPS = 1 / 3, 30.0  # s
FOOTAGE = 4  # times that its few tracks count
_RANKS = (0, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 1)  # of the quantiles of a confidence table
_EDGES = (0.03, 0.06, 0.12, 0.25, 0.45)  # errors that share one
_ENOUGH = 50  # values that something of its own needs
_QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.97)  # of errors, that sizes are fitted to
_MEDIAN = np.sqrt(2 * np.log(2))  # of the length of a Gaussian vector in the plane
_SWAPPED = 0.6  # mean distance from the joints of the other side over that from their own
_APART = 0.2  # mean distance of left from right, of the person's size, at which sides can be told apart

# Offsets of these say more about the drawn body than about the detector: motion capture's nose is another point, and
# hips and shoulders are as far apart as the body's maker put them.
_OTHER_POINT, _WIDTH_OF_BODY = (9,), (1, 4, 11, 14)


class Sample(NamedTuple):
    """All measurements: P pieces of at most F frames; NaN and -1 where a piece is shorter."""

    errors: np.ndarray  # (P, F, 17, 2) in units of the person's size, without what the detector means otherwise
    confidence: np.ndarray  # (P, F, 17)
    state: np.ndarray  # (P, F, 17) int, numbers of `STATES`
    fps: float


def fit(footage, drawn):
    """Return the parameters of lib/data/synthetic/simulated_detector.py, as plain numbers, from `Track`s of both kinds.

    Raises:
        UserError: too little was measured.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing: joints that are never in a state
        return _fit(footage, drawn)


def _fit(footage, drawn):
    offsets = definitions(drawn)
    cut, long = pieces(footage), [at_fps(track) for track in footage]
    both = pool(*[sample(cut, offsets)] * FOOTAGE, sample(drawn, offsets))
    sizes = fit_sizes(both)
    by_group = [(structure(sample(long, offsets), members), structure(both, members)) for members in GROUPS.values()]
    time, variances = fit_time(np.nanmean(by_group, axis=1), np.array(LAGS) / _FPS)
    swapped = {name: np.mean([swaps(track)[name].any() for track in [*cut, *drawn]]) for name in SIDES}
    return {
        "correlation_time": time,
        "parts": dict(zip(GROUPS, np.sqrt(variances))),
        "common": fit_common(both, sizes),
        "outlier_size": fit_outliers(both),
        "swaps": swapped,
        "confidence": fit_confidence(both),
        "joints": {
            name: {"definition": offsets[joint], **{key: values[joint] for key, values in sizes.items()}}
            for joint, name in enumerate(JOINTS)
        },
    }


def pool(*samples):
    """Return one `Sample` of several of the same length and frame rate."""
    return samples[0]._replace(
        **{key: np.concatenate([getattr(one, key) for one in samples]) for key in ("errors", "confidence", "state")}
    )


def at_fps(track):
    """Return a `Track` at about `_FPS` frames per second."""
    stride = max(1, round(track.fps / _FPS))
    return _every(track, slice(None, None, stride), stride)


def pieces(tracks):
    """Return `Track`s of `_PIECE` seconds at about `_FPS` frames per second."""
    cut = []
    for track in map(at_fps, tracks):
        frames = round(_PIECE * track.fps)
        cut += [
            _every(track, slice(first, first + frames)) for first in range(0, len(track.found) - frames + 1, frames)
        ]
    return cut


def _every(track, frames, stride=1):
    parts = {key: getattr(track, key)[frames] for key in ("found", "truth", "visible", "axes")}
    return replace(track, fps=track.fps / stride, **parts)


def swaps(track):
    """Return {key of `SIDES`: (F,) bool}: frames of a `Track` in which left is taken for right."""
    found, truth = track.found[..., :2], track.truth
    other, swapped = truth[:, list(FLIPPED)], {}
    for name, joints in SIDES.items():
        own, wrong, apart = (
            np.ma.masked_invalid(np.linalg.norm(a[:, joints] - b[:, joints], axis=-1)).mean(1).filled(np.nan)
            for a, b in ((found, truth), (found, other), (truth, other))
        )
        swapped[name] = (wrong < _SWAPPED * own) & (apart > _APART * track.size) & ~swapped.get("all", np.array(False))
    return swapped


def definitions(tracks):
    """Return (17, 3) m to the trunk's right, up and back: where the detector means joints, on a body of standard size.

    The offset that leaves the least absolute errors of joints that are seen.
    """
    offsets = np.zeros((len(JOINTS), 3))
    for joint in set(OWN) - set(_OTHER_POINT):
        rows, values = [], []
        for track in tracks:
            for index, mirror in {joint: 1, FLIPPED[joint]: -1}.items():
                error = (track.found[:, index, :2] - track.truth[:, index]) / track.size
                seen = (track.visible[:, index] == 0) & np.isfinite(track.axes[:, index]).all((1, 2))
                seen &= np.linalg.norm(error, axis=-1) < OUTLIER
                if seen.any():
                    rows.append(track.axes[seen, index].mean(0) / track.size * [mirror, 1, 1])
                    values.append(error[seen].mean(0))
        if rows:
            offsets[joint] = _least_absolute(np.concatenate(rows), np.concatenate(values))
    offsets[list(_WIDTH_OF_BODY), 0] = 0
    return offsets


def _least_absolute(rows, values, rounds=10):
    weights = np.ones(len(values))
    for _ in range(rounds):
        found = np.linalg.lstsq(rows * weights[:, None], values * weights, rcond=None)[0]
        weights = np.maximum(np.abs(values - rows @ found), 0.01) ** -0.5
    return found


def sample(tracks, offsets):
    """Return the `Sample` of tracks of one frame rate, of which `offsets` of `definitions` are taken out."""
    longest = max(len(track.found) for track in tracks)
    errors, confidence, state = [], [], []
    for track in tracks:
        meant = np.nan_to_num(track.axes) @ offsets[..., None]
        error = (track.found[..., :2] - track.truth - meant[..., 0]) / track.size
        swapped = swaps(track)
        for name, joints in SIDES.items():
            error[np.ix_(swapped[name], joints)] = np.nan
        blank = ((0, longest - len(error)), (0, 0))
        errors.append(np.pad(error, (*blank, (0, 0)), constant_values=np.nan))
        confidence.append(np.pad(track.found[..., 2], blank, constant_values=np.nan))
        state.append(np.pad(track.visible, blank))
    return Sample(np.array(errors), np.array(confidence), np.array(state), tracks[0].fps)


def structure(sampled, joints, lags=LAGS):
    """Return medians of |e(t + lag) - e(t)| (len(lags),) of joints that are seen at both times, NaN where there are none.

    Each joint is in units of its own median error; outliers are left out.
    """
    length = np.linalg.norm(sampled.errors, axis=-1)
    kept = (sampled.state == 0) & (length < OUTLIER)
    error = np.where(kept[..., None], sampled.errors, np.nan)[:, :, list(joints)]
    error = error / np.nanmedian(np.linalg.norm(error, axis=-1), axis=(0, 1))[:, None]
    changes = []
    for lag in lags:
        change = np.linalg.norm(error[:, lag:] - error[:, :-lag], axis=-1)
        changes.append(np.nanmedian(change) if np.isfinite(change).any() else np.nan)
    return np.array(changes)


def fit_time(changes, seconds):
    """Return the correlation time (s) of all groups and each one's shares (G, 3): constant, lasting and jitter variance.

    changes: (G, L) as of `structure`, at lags of `seconds` (L,): their squares are
    2 (jitter + lasting (1 - exp(-seconds / time))).
    """
    groups = len(changes)
    known = np.isfinite(changes)

    def model(_, time, *shares):
        lasting, jitter = np.reshape(shares, (2, groups, 1))
        return np.sqrt(2 * (jitter + lasting * (1 - np.exp(-seconds / time))))[known]

    low, high, start = (
        [time, *[lasting] * groups, *[jitter] * groups]
        for time, lasting, jitter in ((0.05, 0.1, 0.001), (0.5, 0.98, 0.5), (0.2, 0.5, 0.05))
    )
    (time, *shares), _ = curve_fit(model, None, changes[known], start, bounds=(low, high))
    lasting, jitter = np.reshape(shares, (2, groups))
    parts = np.stack([np.maximum(0.02, 1 - lasting - jitter), lasting, jitter], axis=1)
    return time, parts / parts.sum(1, keepdims=True)


def fit_sizes(sampled):
    """Return {"error": std a coordinate, "spread": its log-std, "outliers": their share}, each (17, states).

    What is too rare counts as one with its group, or with all joints.
    """
    length = np.linalg.norm(sampled.errors, axis=-1)
    median, spread = fit_outliers(sampled)
    sizes = {key: np.zeros((len(JOINTS), len(STATES))) for key in ("error", "spread", "outliers")}
    for joint in OWN:
        group = next(members for members in GROUPS.values() if joint in members)
        for state in range(len(STATES)):
            for joints in (sorted({joint, FLIPPED[joint]}), list(group), OWN):
                chosen = length[..., joints][sampled.state[..., joints] == state]
                chosen = chosen[np.isfinite(chosen)]
                if len(chosen) >= _ENOUGH:
                    break
            else:
                raise UserError(f"too few joints {STATES[state]} were measured; set --sequences higher")
            for values, value in zip(sizes.values(), _fit_size(chosen, median, spread)):
                values[joint, state] = value
    return sizes


def _fit_size(lengths, outlier_size, outlier_spread):
    """Return the error, its spread and the share of outliers of a mixture that has the quantiles of `lengths`."""
    rng = np.random.default_rng(0)
    gaussian, outlier = np.hypot(*rng.standard_normal((2, 2, 20_000)))
    size, outlier_scale, drawn = rng.standard_normal(20_000), rng.standard_normal(20_000), rng.random(20_000)
    outlier = outlier * outlier_size * np.exp(outlier_spread * outlier_scale)
    wanted = np.log(np.quantile(lengths, _QUANTILES))

    def off(parameters):
        log_error, spread, share = parameters
        mixed = np.where(drawn < share, outlier, np.exp(log_error + spread * size) * gaussian)
        return np.log(np.quantile(mixed, _QUANTILES)) - wanted

    start = [wanted[1] - np.log(_MEDIAN), 0.5, 0.05]
    found = least_squares(off, start, bounds=([-6, 0.25, 0], [0, 1.0, 0.7]), diff_step=0.05, x_scale=[1, 0.5, 0.1]).x
    return np.exp(found[0]), found[1], found[2]


def fit_common(sampled, sizes):
    """Return the share of the variance of log sizes that is common to all joints of a piece."""
    joint = np.arange(len(JOINTS))
    length = np.linalg.norm(sampled.errors, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(length / sizes["error"][joint, sampled.state])
    logs[(length >= OUTLIER) | (length == 0)] = np.nan
    means = np.nanmean(logs[..., OWN], axis=1)
    means -= np.nanmean(means, axis=0)
    pairs = [
        np.nanmean(means[:, a] * means[:, b]) for a in range(len(OWN)) for b in range(a) if FLIPPED[OWN[a]] != OWN[b]
    ]
    return float(np.clip(np.nanmean(pairs) / np.square(sizes["spread"][OWN, 0]).mean(), 0, 1))


def fit_outliers(sampled):
    """Return the median of outliers' sizes, std a coordinate, and its log-std."""
    length = np.linalg.norm(sampled.errors, axis=-1)[..., OWN]
    length = length[length >= OUTLIER]
    return float(np.median(length) / _MEDIAN), float(0.5 * np.std(np.log(length)))


def fit_confidence(sampled):
    """Return {"edges", "ranks", "memory", group: {state: rows of quantiles of the confidence, by error}}."""
    length = np.linalg.norm(sampled.errors, axis=-1)
    bins = np.digitize(length, _EDGES)
    known = np.isfinite(length) & np.isfinite(sampled.confidence)
    tables, scores = {}, np.full(length.shape, np.nan)
    for group, members in GROUPS.items():
        tables[group] = {}
        for number, state in enumerate(STATES):
            mask = known & np.isin(np.arange(len(JOINTS)), members) & (sampled.state == number)
            rows = [_nearest(mask, bins, row) for row in range(len(_EDGES) + 1)]
            tables[group][state] = [np.quantile(sampled.confidence[row], _RANKS).round(3).tolist() for row in rows]
            for row in range(len(_EDGES) + 1):
                chosen = mask & (bins == row)
                order = sampled.confidence[chosen].argsort().argsort()
                scores[chosen] = norm.ppf((order + 0.5) / max(1, chosen.sum()))
    limbs = scores[..., list(GROUPS["limbs"])]
    memory = np.nanmean(limbs[:, 1:] * limbs[:, :-1])
    return {"edges": list(_EDGES), "ranks": list(_RANKS), "memory": float(np.clip(memory, 0, 1)), **tables}


def _nearest(mask, bins, row):
    """Return the part of a mask that is in this bin; and in bins about it, if that is too little."""
    for reach in range(len(_EDGES) + 1):
        chosen = mask & (np.abs(bins - row) <= reach)
        if chosen.sum() >= _ENOUGH:
            return chosen
    raise UserError("too few joints were measured; set --sequences higher")
