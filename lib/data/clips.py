"""Cutting rows of frames into clips of equal length, index by index as the published reader does."""

import numpy as np


def split_clips(sources, n_frames, stride):
    """Row numbers of clips that never cross a source.

    A source gives clips of `n_frames` rows that start every `stride` rows. One shorter than a clip is
    resampled to a clip, unless its name already gave a clip, or it is the last one of the file: the
    published reader ends before it gets there, and published numbers depend on it.

    Args:
        sources: (n,) name of the recording of each row.
        n_frames: rows of a clip.
        stride: rows between the starts of clips.

    Returns:
        (clips, n_frames) int64.
    """
    sources = np.asarray(sources)
    if len(sources) == 0:
        return np.empty((0, n_frames), np.int64)
    borders = np.flatnonzero(sources[1:] != sources[:-1]) + 1
    clips = []
    covered = set()
    for start, end in zip(np.r_[0, borders], np.r_[borders, len(sources)]):
        starts = np.arange(start, end - n_frames + 1, stride)
        if len(starts):
            clips.append(starts[:, None] + np.arange(n_frames))
        elif end < len(sources) and sources[start] not in covered:
            clips.append(start + _resample(end - start, n_frames)[None])
        else:
            continue
        covered.add(sources[start])
    return np.concatenate(clips) if clips else np.empty((0, n_frames), np.int64)


def _resample(length, n_frames):
    """`n_frames` sorted positions in [0, length), each even position rounded down or up at random.

    Draws from NumPy's global state, so that `numpy.random.seed(s)` reproduces published clips.
    """
    even = np.linspace(0, length, num=n_frames, endpoint=False)
    down = np.random.randint(2, size=n_frames).astype(bool)
    positions = np.where(down, np.floor(even), np.ceil(even)).astype(np.int64)
    return np.sort(positions).clip(max=length - 1)
