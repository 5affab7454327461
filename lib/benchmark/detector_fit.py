"""The parameters of lib/data/simulated_detector.py from what a detector made of people whose true places are known.

Two kinds of tracks go in: real footage, whose truth comes from the same network, so that errors common to all views are
not in it; and drawn people, whose truth is exact but who look less like people. Sizes are those of both together, with
footage counted `_FOOTAGE` times; definitions and what depends on visibility come from drawn people alone.

Robust throughout: sizes are medians and ratios of quantiles, outliers are judged apart. Left and right joints count as
one. Tracks are cut into pieces of `PIECE` seconds at about 30 frames per second: what a network sees at a time.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import curve_fit
from scipy.stats import norm

from lib.data.simulated_detector import GROUPS, MEANS, STATES
from lib.data.skeleton import FLIPPED, JOINTS, LEFT, RIGHT

OWN = [joint for joint in range(len(JOINTS)) if joint not in MEANS]  # joints that the detector itself has
OUTLIER = 0.45  # of the person's size: errors from here on are outliers
LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24)  # frames at 30 per second

_PIECE, _FPS = 1 / 3, 30.0  # s
_FOOTAGE = 4  # times that its few tracks count
_RANKS = np.linspace(0, 1, 9)  # of the quantiles of a confidence table
_EDGES = (0.03, 0.06, 0.12, 0.25, 0.45)  # errors that share one
_ENOUGH = 30  # values that a table of its own needs
_MEDIAN, _DECILE = np.sqrt(2 * np.log(2)), np.sqrt(2 * np.log(10))  # of the length of a Gaussian vector in the plane
_SWAPPED = 0.6  # mean distance from the joints of the other side over that from their own
_APART = 0.2  # mean distance of left from right, of the person's size, at which sides can be told apart
_SIDES = {"all": (LEFT, RIGHT), "legs": (LEFT[:3], RIGHT[:3]), "arms": (LEFT[3:], RIGHT[3:])}

# Offsets of these say more about the drawn body than about the detector: motion capture's nose is another point, and
# hips and shoulders are as far apart as the body's maker put them.
_OTHER_POINT, _WIDTH_OF_BODY = (9,), (1, 4, 11, 14)


class Sample(NamedTuple):
    """Everything measured: P pieces of at most F frames; NaN and -1 where a piece is shorter."""

    errors: np.ndarray  # (P, F, 17, 2) in units of the person's size, without what the detector means otherwise
    confidence: np.ndarray  # (P, F, 17)
    state: np.ndarray  # (P, F, 17) int, numbers of `STATES`
    fps: float


def fit(footage, drawn):
    """Return the parameters of lib/data/simulated_detector.py, as plain numbers, from `Track`s of both kinds."""
    offsets = definitions(drawn)
    samples = sample(pieces(footage), offsets), sample(drawn, offsets)
    both = pool(samples[0], *[samples[0]] * (_FOOTAGE - 1), samples[1])
    error, factors, outliers = fit_sizes(both)
    clip_spread, joint_spread = fit_spreads(both, error, factors)
    long = sample([at_fps(track) for track in footage], offsets)
    changes = np.nanmean([structure(long), structure(samples[1])], axis=0)
    time, variances = fit_time(changes, np.array(LAGS) / _FPS)
    swapped = {
        name: float(np.mean([swaps(track)[name].any() for track in [*pieces(footage), *drawn]])) for name in _SIDES
    }
    size, size_spread = fit_outliers(both)
    return {
        "correlation_time": time,
        "parts": np.sqrt(variances),
        "clip_spread": clip_spread,
        "joint_spread": joint_spread,
        "outlier_size": [size, size_spread],
        "swaps": swapped,
        "confidence": fit_confidence(both),
        "joints": {
            name: {
                "definition": offsets[joint],
                "error": error[joint],
                "factors": factors[joint],
                "outliers": outliers[joint],
            }
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
    """Return {"all", "legs", "arms": (F,) bool}: frames of a `Track` in which left is taken for right, of all or some."""
    found, truth = track.found[..., :2], track.truth
    other, swapped = truth[:, list(FLIPPED)], {}
    for name, (left, right) in _SIDES.items():
        joints = [*left, *right]
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
        for name, (left, right) in _SIDES.items():
            error[np.ix_(swapped[name], [*left, *right])] = np.nan
        blank = ((0, longest - len(error)), (0, 0))
        errors.append(np.pad(error, (*blank, (0, 0)), constant_values=np.nan))
        confidence.append(np.pad(track.found[..., 2], blank, constant_values=np.nan))
        state.append(np.pad(track.visible, blank))
    return Sample(np.array(errors), np.array(confidence), np.array(state), tracks[0].fps)


def structure(sampled, lags=LAGS):
    """Return medians of |e(t + lag) - e(t)| / |e|'s median (len(lags),) of joints that are seen at both times, NaN if none.

    Each joint is in units of its own median error.
    """
    error = _without_outliers(sampled)
    scaled = error / np.nanmedian(np.linalg.norm(error, axis=-1), axis=(0, 1))[:, None]
    changes = []
    for lag in lags:
        change = np.linalg.norm(scaled[:, lag:] - scaled[:, :-lag], axis=-1)[..., OWN]
        changes.append(np.nanmedian(change) if np.isfinite(change).any() else np.nan)
    return np.array(changes)


def _without_outliers(sampled, states=(0,)):
    """Return errors (P, F, 17, 2) of joints in these states, NaN elsewhere and where they are outliers."""
    kept = np.isin(sampled.state, states) & (np.linalg.norm(sampled.errors, axis=-1) < OUTLIER)
    return np.where(kept[..., None], sampled.errors, np.nan)


def fit_time(changes, seconds):
    """Return the correlation time (s) and the shares of the variance that are constant, lasting and jitter.

    changes: as of `structure`, at lags of `seconds`: changes^2 = 2 (jitter + lasting (1 - exp(-seconds / time))).
    """

    def model(seconds, time, lasting, jitter):
        return np.sqrt(2 * (jitter + lasting * (1 - np.exp(-seconds / time))))

    known = np.isfinite(changes)
    bounds = ([0.05, 0.05, 0.001], [0.5, 0.95, 0.5])
    (time, lasting, jitter), _ = curve_fit(model, seconds[known], changes[known], (0.2, 0.5, 0.05), bounds=bounds)
    total = max(1.0, lasting + jitter)
    return time, np.array([max(0.05, 1 - lasting - jitter), lasting / total, jitter / total])


def fit_sizes(sampled):
    """Return errors (17,): std a coordinate of seen joints, factors and shares of outliers (17, states), and spreads.

    Joints that are too rarely in a state share the values of all.
    """
    length = np.linalg.norm(sampled.errors, axis=-1)
    sides = [sorted({joint, FLIPPED[joint]}) for joint in range(len(JOINTS))]
    error, factors, outliers = np.zeros(len(JOINTS)), np.ones((len(JOINTS), 3)), np.zeros((len(JOINTS), 3))
    medians, shares = np.full((len(JOINTS), 3), np.nan), np.full((len(JOINTS), 3), np.nan)
    for joint in OWN:
        for state in range(len(STATES)):
            of = length[..., sides[joint]][sampled.state[..., sides[joint]] == state]
            of = of[np.isfinite(of)]
            if len(of) >= _ENOUGH:
                shares[joint, state] = np.mean(of >= OUTLIER)
                medians[joint, state] = np.median(of[of < OUTLIER]) if (of < OUTLIER).any() else OUTLIER
    common = np.nanmedian(medians / medians[:, :1], axis=0), np.nanmean(shares, axis=0)
    for joint in OWN:
        error[joint] = medians[joint, 0] / _MEDIAN
        own = np.isfinite(medians[joint])
        factors[joint] = np.where(own, medians[joint] / medians[joint, 0], common[0])
        outliers[joint] = np.where(own, shares[joint], common[1])
    return error, factors, outliers


def fit_spreads(sampled, error, factors):
    """Return log-std of errors from piece to piece, and from joint to joint within one."""
    joint = np.arange(len(JOINTS))
    length = np.linalg.norm(_without_outliers(sampled, (0, 1, 2)), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = (length / (error * factors[joint, sampled.state]))[..., OWN]
        logs = np.log(np.sqrt(np.nanmean(np.square(scaled), axis=1)))  # (P, joints)
    logs[~np.isfinite(logs)] = np.nan
    pooled = scaled[np.isfinite(scaled)]
    ratio = np.log(np.quantile(pooled, 0.9) / np.median(pooled))
    total = _spread_of_ratio(ratio)
    off = logs - np.nanmean(logs, axis=0)
    pairs = [np.nanmean(off[:, a] * off[:, b]) for a in range(len(OWN)) for b in range(a) if FLIPPED[OWN[a]] != OWN[b]]
    clip = np.sqrt(np.clip(np.nanmean(pairs), 0, total**2))
    return clip, np.sqrt(max(0.0, total**2 - clip**2))


def _spread_of_ratio(ratio):
    """Return the log-std s of the size of Gaussian vectors for which log(q90 / q50) of their lengths is `ratio`."""
    z = np.random.default_rng(0).standard_normal((3, 100_000))
    length, size = np.log(np.hypot(z[0], z[1])), z[2]
    tried = np.linspace(0, 1.5, 61)
    ratios = [np.subtract(*np.quantile(length + s * size, [0.9, 0.5])) for s in tried]
    return float(np.interp(ratio, ratios, tried))


def fit_outliers(sampled):
    """Return the median of outliers' sizes, std a coordinate, and its log-std."""
    length = np.linalg.norm(sampled.errors, axis=-1)[..., OWN]
    length = length[length >= OUTLIER]
    return float(np.median(length) / _MEDIAN), float(0.5 * np.std(np.log(length)))


def fit_confidence(sampled):
    """Return {"edges", "memory", group: {state: quantiles of the confidence at ranks 0 to 1, by error}}."""
    length = np.linalg.norm(sampled.errors, axis=-1)
    bins = np.digitize(length, _EDGES)
    known = np.isfinite(length) & np.isfinite(sampled.confidence)
    tables, scores = {}, np.full(length.shape, np.nan)
    for group, members in GROUPS.items():
        mask = known & np.isin(np.arange(len(JOINTS)), members)
        tables[group] = {}
        for number, state in enumerate(STATES):
            rows = []
            for index in range(len(_EDGES) + 1):
                chosen = mask & (sampled.state == number) & (bins == index)
                reach = 1
                while chosen.sum() < _ENOUGH and reach <= len(_EDGES):  # few: those of neighbouring errors too
                    chosen = mask & (sampled.state == number) & (np.abs(bins - index) <= reach)
                    reach += 1
                if chosen.sum() < _ENOUGH:  # still few: of any state
                    chosen = mask & (bins == index)
                rows.append(np.quantile(sampled.confidence[chosen], _RANKS).round(3).tolist())
                exact = mask & (sampled.state == number) & (bins == index)
                if exact.sum() >= _ENOUGH:
                    order = sampled.confidence[exact].argsort().argsort()
                    scores[exact] = norm.ppf((order + 0.5) / exact.sum())
            tables[group][state] = rows
    limbs = scores[..., list(GROUPS["limbs"])]
    pairs = limbs[:, 1:] * limbs[:, :-1]
    return {"edges": list(_EDGES), "memory": float(np.clip(np.nanmean(pairs), 0, 1)), **tables}
