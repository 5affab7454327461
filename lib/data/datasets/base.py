"""Base classes of data sets: their properties, and access to the frames of their splits by number."""

from typing import Any, NamedTuple

import numpy as np
import torch.utils.data

from lib.errors import UserError

_NAMES = {"camera_name": "camera", "action": "action", "source": "source"}  # key: field of `Sequences`


class TrainingClips(NamedTuple):
    """Clips to train on.

    clips: a map-style data set, a list of numbers -> dict of tensors (B, ...); origin: their source, for the log.
    transforms: batch -> batch, applied to a batch before any other; mirrored: whether they mirror half of the clips.
    """

    clips: torch.utils.data.Dataset
    origin: str
    transforms: tuple = ()
    mirrored: bool = False


class Clips2D(NamedTuple):
    """Clips of 2D pre-training.

    detected: whether a detector found the positions; else people annotated them, and `noise` may be added.
    """

    clips: torch.utils.data.Dataset
    origin: str
    detected: bool


class Dataset:
    """Data set with the splits "train" and "test".

    input: coordinates of the network's input: "image", or "person" for keypoints normalised by the person.
    pose_unit: the unit of poses: "half image width" or "m".
    protocol: how it is scored, a key of `lib.eval.PROTOCOLS`.
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

    def refuse_empty(self, config):
        """Raise UserError if there is no test clip."""
        _, clips = self.get_split_id()
        if not len(clips):
            raise UserError(f"{self.path}: no test source gives a clip of {config.clip_len} frames; set clip_len")

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

    def read_2d(self, split, index=None):
        raise NotImplementedError

    def read_3d(self, split, index=None):
        raise NotImplementedError

    def get_split_id(self):
        """Return the frame numbers of the clips: train (m, F), test (k, F)."""
        raise NotImplementedError


class FrameReader(Dataset):
    """Frames in arrays of the splits, subsampled with `sample_stride`.

    Args:
        splits: {"train": `Split`, "test": `Split`}.
        cameras: {name: (width, height)} in px, of every camera of the splits.
    """

    def __init__(self, splits, cameras, sample_stride):
        self.splits = splits
        self.sample_stride = sample_stride
        self._sequences = {split: splits[split].sequences.subsampled(sample_stride) for split in ("train", "test")}
        self._sizes = {
            split: np.array([cameras[name] for name in sequences.camera], np.float32).reshape(-1, 2)
            for split, sequences in self._sequences.items()
        }

    def array(self, split, key, index=None):
        """Return entries of array `key` of a split: of all frames that are read, or of frame numbers `index` (any shape)."""
        sequences, arrays = self._sequences[split], self.splits[split].arrays
        if key in _NAMES:
            names = getattr(sequences, _NAMES[key])
            return np.repeat(names, np.diff(sequences.start)) if index is None else names[sequences.number(index)]
        if index is None:
            return arrays[key][:: self.sample_stride]
        return arrays[key][np.asarray(index) * self.sample_stride]

    def count(self, split):
        """Return the number of frames of a split that are read."""
        return self._sequences[split].count

    def read_hw(self, split, index=None):
        """Return width and height float32 in px of each frame's image, (n,) or like `index`."""
        sequences, sizes = self._sequences[split], self._sizes[split]
        sizes = np.repeat(sizes, np.diff(sequences.start), axis=0) if index is None else sizes[sequences.number(index)]
        return sizes[..., 0], sizes[..., 1]
