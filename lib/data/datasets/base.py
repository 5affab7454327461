"""What all data sets share: what they say of themselves, and frames of their splits by number."""

from typing import Any, NamedTuple

import numpy as np
import torch.utils.data

from lib.errors import UserError

_NAMES = {"camera_name": "camera", "action": "action", "source": "source"}  # key: field of `Runs`


class TrainingClips(NamedTuple):
    """clips: a map-style data set, a list of numbers -> dict of tensors (B, ...); origin: where they are from, for a log.

    transforms: batch -> batch, applied to a batch before any other.
    """

    clips: torch.utils.data.Dataset
    origin: str
    transforms: tuple = ()


class Clips2D(NamedTuple):
    """detected: whether positions are a detector's; else a person's, which `noise` may be added to."""

    clips: torch.utils.data.Dataset
    origin: str
    detected: bool


class Dataset:
    """A data set with the splits "train" and "test".

    input: whether a network sees keypoints where they are in the "image", or those of a "person", normalised.
    pose_unit: the unit of poses: "half image width" or "m".
    protocol: its scores, a key of `lib.eval.PROTOCOLS`.
    """

    input = "image"
    pose_unit = "half image width"
    protocol = "h36m"
    path: Any = None

    @classmethod
    def open(cls, config):
        """Return the data set of a config."""
        raise NotImplementedError

    def training_clips(self, config):
        """Return the `TrainingClips` of a config."""
        raise NotImplementedError

    def frames(self, split, key, index):
        """Return frames of a split by number, index (...).

        Args:
            key: "keypoints" (..., 17, 3), "pose" (..., 17, 3); others, such as "image", are a data set's own.

        Raises:
            UserError: the data set has no such frames.
        """
        readers = {"keypoints": self.read_2d, "pose": self.read_3d}
        if key not in readers:
            raise UserError(f"{self.path}: has no {key!r}; it has {', '.join(readers)}")
        return readers[key](split, index)

    def read_2d(self, split, rows=None):
        raise NotImplementedError

    def read_3d(self, split, rows=None):
        raise NotImplementedError

    def get_split_id(self):
        """Return the frame numbers of the clips: train (m, F), test (k, F)."""
        raise NotImplementedError


class RowReader(Dataset):
    """Frames in arrays of the splits, subsampled with `sample_stride`.

    Args:
        parts: {"train": `Part`, "test": `Part`}.
        cameras: {name: (width, height)} in px, of every camera of the splits.
    """

    def __init__(self, parts, cameras, sample_stride):
        self.parts = parts
        self.sample_stride = sample_stride
        self._runs = {split: parts[split].runs.every(sample_stride) for split in ("train", "test")}
        self._sizes = {
            split: np.array([cameras[name] for name in runs.camera], np.float32).reshape(-1, 2)
            for split, runs in self._runs.items()
        }

    def rows(self, split, key, rows=None):
        """Return entries of array `key` of a split: all that are read, or those of frame numbers `rows` (any shape)."""
        part, runs = self.parts[split], self._runs[split]
        if key in _NAMES:
            names = getattr(runs, _NAMES[key])
            return np.repeat(names, np.diff(runs.start)) if rows is None else names[runs.number(rows)]
        if rows is None:
            return part.arrays[key][:: self.sample_stride]
        return part.arrays[key][np.asarray(rows) * self.sample_stride]

    def count(self, split):
        """Return the number of frames of a split that are read."""
        return self._runs[split].count

    def read_hw(self, split, rows=None):
        """Return width and height float32 in px of each frame's image, (n,) or like `rows`."""
        runs, sizes = self._runs[split], self._sizes[split]
        sizes = np.repeat(sizes, np.diff(runs.start), axis=0) if rows is None else sizes[runs.number(rows)]
        return sizes[..., 0], sizes[..., 1]
