"""Bridging of gaps in which a person was not found, up to a given length."""

import numpy as np

BLOCK = 4096  # frames at a time


def blocks(segment):
    """Yield a slice as slices of at most `BLOCK`."""
    return [slice(a, min(a + BLOCK, segment.stop)) for a in range(segment.start, segment.stop, BLOCK)]


def bridge(frames, times, longest):
    """Return the frames with gaps of up to `longest` s bridged.

    Args:
        frames: (n,) int, those in which a person was found, ascending.
        times: (F,) seconds of all frames.

    Returns:
        (m,) int, with the frames of short gaps.
    """
    short = times[frames[1:]] - times[frames[:-1]] <= longest
    parts = [np.arange(a + 1, b) for a, b in zip(frames[:-1][short], frames[1:][short])]
    return np.sort(np.concatenate([frames, *parts])).astype(np.int64)


def fill(frames, found, keypoints, out):
    """Write keypoints (m, 17, 3) of `frames` (m,) to `out`; between those `found` (n,) linearly, with confidence 0.

    keypoints: (n, 17, 3), array-like, read block by block.
    """
    interpolate(frames, found, keypoints, out)
    for block in blocks(slice(0, len(frames))):
        out[block, :, 2] *= np.isin(frames[block], found)[:, None]


def interpolate(frames, found, values, out):
    """Write values (m, 17, 3) of `frames` (m,) to `out`; between those `found` (n,) linearly.

    values: (n, 17, 3), array-like, read block by block.
    """
    for start in range(0, len(frames), BLOCK):
        wanted = frames[start : start + BLOCK]
        after = np.searchsorted(found, wanted)
        before = np.maximum(after - (found[after] > wanted), 0)
        low, high = np.asarray(values[before]), np.asarray(values[after])
        span = np.maximum(found[after] - found[before], 1)
        share = ((wanted - found[before]) / span)[:, None, None]
        out[start : start + len(wanted)] = low + share * (high - low)
