"""An optional low-pass filter over time."""

import numpy as np
from scipy.signal import butter, sosfiltfilt

from lib.errors import UserError

_PAD = 12  # frames that are mirrored at the ends, where there are as many


def check_cutoff(cutoff, fps):
    """Raises a `UserError` if a filter's cutoff is not below half the frame rate."""
    if not 0 < cutoff < fps / 2:
        raise UserError(f"smooth: {cutoff:g} Hz must be above 0 and below half the frame rate, {fps / 2:g} Hz")


def smooth(poses, cutoff, fps):
    """Low-passes poses (n, 17, 3) of one unbroken segment in place, one joint at a time.

    A Butterworth filter of second order, run forwards and backwards so that nothing is delayed, as usual in
    biomechanics (D. A. Winter, Biomechanics and Motor Control of Human Movement); 6 Hz is usual for walking.

    Args:
        cutoff: Hz, see `check_cutoff`.
    """
    if len(poses) < 3:
        return
    filter_ = butter(2, cutoff, fs=fps, output="sos")
    for joint in range(poses.shape[1]):
        poses[:, joint] = sosfiltfilt(
            filter_, np.asarray(poses[:, joint], np.float64), axis=0, padlen=min(_PAD, len(poses) - 1)
        )
