"""Smooth joints over time without delay: by how sure a detector was of them, or with a given low-pass filter."""

import numpy as np
from scipy.linalg import solveh_banded

from lib.errors import UserError
from lib.video.poses import mean_rate

CUTOFF = 6.0  # Hz, of joints seen with confidence 1: a fast kick loses 5 % of its speed
_LEAST = 0.02  # weight of what was not seen
_PAD = 12  # frames that are mirrored at the ends, where there are as many
_SHORTEST = 1e-4  # s between frames


def check_cutoff(cutoff, fps):
    """Raise a `UserError` if a filter's cutoff, above 0, is not below half the frame rate."""
    if cutoff >= fps / 2:
        raise UserError(f"smooth: {cutoff:g} Hz must be below half the frame rate, {fps / 2:g} Hz; 0 for no smoothing")


def describe_smoothing(cutoff):
    """Return what `smooth` does with this cutoff, as report.json says it."""
    if cutoff is None:
        return {"method": "penalised least squares, weighted by confidence", "cutoff_hz": CUTOFF}
    return {"method": "Butterworth low-pass", "cutoff_hz": cutoff} if cutoff else {"method": "none"}


def smooth(points, confidence, times, cutoff=None):
    """Smooth points (n, k, c) of one unbroken segment in place, one point at a time.

    By default what was seen with less confidence is smoothed more: see `penalised`. A cutoff asks for a Butterworth
    filter of second order, run forwards and backwards, as usual in biomechanics (D. A. Winter, Biomechanics and Motor
    Control of Human Movement). Neither delays anything.

    Args:
        confidence: (n, k), 0 to 1; only the default looks at it.
        times: (n,) s.
        cutoff: Hz of a low-pass filter, see `check_cutoff`; 0 for no smoothing at all, None for the default.
    """
    rate = mean_rate(times)
    if cutoff == 0 or len(points) < 3 or (cutoff or 0) >= rate / 2:  # such a slow stretch has no higher frequency
        return
    if cutoff:
        from scipy.signal import butter, sosfiltfilt  # here: it takes a fifth of the time to the first frame

        filter_ = butter(2, cutoff, fs=rate, output="sos")
    for joint in range(points.shape[1]):
        values = np.asarray(points[:, joint], np.float64)
        if cutoff:
            points[:, joint] = sosfiltfilt(filter_, values, axis=0, padlen=min(_PAD, len(points) - 1))
        else:
            points[:, joint] = penalised(values, np.square(confidence[:, joint], dtype=np.float64), times, CUTOFF)


def penalised(values, weights, times, cutoff):
    """Return values (n, c) smoothed by penalised least squares (E. T. Whittaker, 1923), n at least 3.

    Minimises the sum of weight x (value - result)^2 and a multiple of the integral of the result's squared second
    derivative, at the real times of the frames. With weights of 1 half of a swing at the cutoff is kept, and a 16th of
    one at twice the cutoff goes through; a weight w moves the cutoff by w^(1/4).

    Args:
        weights: (n,), 0 or above.
        times: (n,) s, ascending.
        cutoff: Hz.
    """
    step = np.maximum(np.diff(times), _SHORTEST)
    both = step[:-1] + step[1:]
    second = np.stack([2 / (step[:-1] * both), -2 / (step[:-1] * step[1:]), 2 / (step[1:] * both)])  # derivative
    amount = both / 2 / (2 * np.pi * cutoff) ** 4
    bands = np.zeros((3, len(values)))
    for a in range(3):
        for b in range(a, 3):
            bands[2 - (b - a), b : len(values) - 2 + b] += amount * second[a] * second[b]
    weights = np.maximum(weights, _LEAST)[:, None] / mean_rate(times)
    bands[2] += weights[:, 0]
    return solveh_banded(bands, weights * values)
