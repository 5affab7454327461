"""Cutting rows of frames into clips of equal length, index by index as the published reader does."""

import numpy as np


def split_clips(runs, n_frames, stride):
    """Row numbers of clips that never cross a source.

    A source gives clips of `n_frames` rows that start every `stride` rows. One shorter than a clip is
    resampled to a clip, unless its name already gave a clip, or it is the last one of the file: the
    published reader ends before it gets there, and published numbers depend on it.

    Args:
        runs: `Runs` of the rows; those that follow each other with the same source count as one.
        n_frames: rows of a clip.
        stride: rows between the starts of clips.

    Returns:
        (clips, n_frames) int64.
    """
    first = np.flatnonzero(np.r_[len(runs.source) > 0, runs.source[1:] != runs.source[:-1]])
    borders = np.r_[runs.start[first], runs.count]
    clips = []
    covered = set()
    for source, start, end in zip(runs.source[first].tolist(), borders[:-1], borders[1:]):
        starts = np.arange(start, end - n_frames + 1, stride)
        if len(starts):
            clips.append(starts[:, None] + np.arange(n_frames))
        elif end < runs.count and source not in covered:
            clips.append(start + _resample(end - start, n_frames)[None])
        else:
            continue
        covered.add(source)
    return np.concatenate(clips) if clips else np.empty((0, n_frames), np.int64)


def _resample(length, n_frames):
    """`n_frames` sorted positions in [0, length), each even position rounded down or up at random.

    Draws from NumPy's global state, so that `numpy.random.seed(s)` reproduces published clips.
    """
    even = np.linspace(0, length, num=n_frames, endpoint=False)
    down = np.random.randint(2, size=n_frames).astype(bool)
    positions = np.where(down, np.floor(even), np.ceil(even)).astype(np.int64)
    return np.sort(positions).clip(max=length - 1)
