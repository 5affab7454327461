"""Clips of equal length, cut from sequences of frames, index by index as by the published reader."""

import numpy as np


def split_clips(sequences, n_frames, stride):
    """Return the frame numbers of clips that never cross a source.

    A source gives clips of `n_frames` frames that start every `stride` frames. One shorter than a clip is
    resampled to a clip, unless its name already gave a clip, or it is the last one of the file: the
    published reader ends before it gets there, and published numbers depend on it.

    Args:
        sequences: `Sequences`; consecutive ones with the same source count as one.
        n_frames: frames of a clip.
        stride: frames between the starts of clips.

    Returns:
        (clips, n_frames) int64.
    """
    first = np.flatnonzero(np.r_[len(sequences.source) > 0, sequences.source[1:] != sequences.source[:-1]])
    starts_and_end = np.r_[sequences.start[first], sequences.count]
    clips = []
    covered = set()
    for source, start, end in zip(sequences.source[first].tolist(), starts_and_end[:-1], starts_and_end[1:]):
        starts = np.arange(start, end - n_frames + 1, stride)
        if len(starts):
            clips.append(starts[:, None] + np.arange(n_frames))
        elif end < sequences.count and source not in covered:
            clips.append(start + _resample(end - start, n_frames)[None])
        else:
            continue
        covered.add(source)
    return np.concatenate(clips) if clips else np.empty((0, n_frames), np.int64)


def _resample(length, n_frames):
    """Return `n_frames` sorted positions in [0, length): evenly spaced ones, each rounded down or up at random.

    Draws from NumPy's global state, so that `numpy.random.seed(s)` reproduces published clips.
    """
    even = np.linspace(0, length, num=n_frames, endpoint=False)
    down = np.random.randint(2, size=n_frames).astype(bool)
    positions = np.where(down, np.floor(even), np.ceil(even)).astype(np.int64)
    return np.sort(positions).clip(max=length - 1)
