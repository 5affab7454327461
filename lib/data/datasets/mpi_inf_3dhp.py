"""MPI-INF-3DHP, read from a store that lib/data/convert/mpi_inf_3dhp.py wrote."""

import logging
from pathlib import Path

import numpy as np

from lib.data.clips import split_clips
from lib.data.datasets.base import FrameReader
from lib.data.store import INDEX, open_store
from lib.data.training_clips import training_clips
from lib.errors import UserError

log = logging.getLogger(__name__)

MADE_BY = "tools/convert_3dhp.py"
STORE = "mpi_inf_3dhp.store"
MM = 1000.0  # per unit of the poses that the network learns, which are in m
MOST_ACTIVITIES = 7  # labels are 1 to 7; 0: none
STORED = {  # key: type and shape of a frame's entry in a store
    "joint_2d": ("f4", (17, 2)),
    "joint_3d": ("f4", (17, 3)),
    "valid": ("?", ()),
    "activity": ("i1", ()),
}


class DataReader3DHP(FrameReader):
    """Clips of normalised keypoints and of poses from a store that `convert` wrote.

    Args:
        n_frames: frames of a clip.
        data_stride_train: frames between the starts of training clips, after `sample_stride`.
        dt_root, dt_file: folder and name of the store.
        sample_stride: stride with which frames are subsampled.
        read_confidence: whether inputs carry confidence, always 1, as a third channel.
        middle_frame: whether the test clips are one per valid frame, with it in the middle; else they are consecutive
            and cover every frame.

    Raises:
        UserError: there is no such store, it is damaged, or not one of MPI-INF-3DHP.
    """

    pose_unit = "m"
    protocol = "mpi_inf_3dhp"

    @classmethod
    def open(cls, config):
        return cls(
            n_frames=config.clip_len,
            data_stride_train=config.data_stride,
            dt_root=config.dt_root,
            dt_file=config.dt_file,
            sample_stride=config.sample_stride,
            middle_frame=config.middle_frame,
        )

    def training_clips(self, config):
        return training_clips(config, self)

    def __init__(
        self,
        n_frames,
        data_stride_train,
        dt_root="data/motion3d",
        dt_file=STORE,
        sample_stride=1,
        read_confidence=True,
        middle_frame=False,
    ):
        self.path = Path(dt_root) / dt_file
        if not (self.path / INDEX).is_file():
            raise UserError(
                f"{self.path}: no such store; make it with tools/convert_3dhp.py, or set dt_root and dt_file"
            )
        store = open_store(self.path)
        _check_store(store)
        super().__init__(store.splits, store.cameras, sample_stride)
        if not self.array("test", "valid").any():
            raise UserError(f"{self.path}: no test frame that is read is valid; set sample_stride or convert it again")
        self.n_frames = n_frames
        self.data_stride_train = data_stride_train
        self.read_confidence = read_confidence
        self.middle_frame = middle_frame
        self._split_id = None

    def read_2d(self, split, index=None):
        """Return normalised keypoints (n, 17, 2) float32, or (n, 17, 3) with confidence; of `index` (...): (..., 17, 2 or 3).

        In units of half the image's width, from its centre.
        """
        width, height = (size[..., None] for size in self.read_hw(split, index))
        pixels = self.array(split, "joint_2d", index)
        keypoints = np.ones((*pixels.shape[:-1], 3 if self.read_confidence else 2), np.float32)
        keypoints[..., 0] = pixels[..., 0] / width * 2 - 1
        keypoints[..., 1] = pixels[..., 1] / width * 2 - height / width
        return keypoints

    def read_3d(self, split, index=None):
        """Return poses (n, 17, 3) float32 in m, camera coordinates, not root-relative; of `index` (...): (..., 17, 3)."""
        return self.read_mm(split, index) / np.float32(MM)

    def read_mm(self, split, index=None):
        """Return the poses in mm."""
        return self.array(split, "joint_3d", index)

    def unit(self, split, index=None):
        """Return the length in mm of one unit of `read_3d`, (n,) or like `index`."""
        return np.full(self.count(split) if index is None else np.shape(index), MM, np.float32)

    def get_split_id(self):
        """Return the frame numbers of the clips: train (m, n_frames), test (k, n_frames); random ones are drawn once.

        Test clips are consecutive; the last one of a sequence ends with it and may overlap, so that every test frame is
        in a clip. A test sequence shorter than a clip is one clip that repeats its last frame. Or they are
        `middle_frame_clips`.
        """
        if self._split_id is None:
            train = split_clips(self._sequences["train"], self.n_frames, self.data_stride_train)
            if self.middle_frame:
                test = self.middle_frame_clips(self.n_frames)
            else:
                test = _covering_clips(self._sequences["test"], self.n_frames)
            self._split_id = train, test
        return self._split_id

    def middle_frame_clips(self, n_frames):
        """Return the frame numbers (valid test frames, n_frames) of clips with a valid frame at position n_frames // 2.

        Before the first and after the last frame of a sequence, that frame is repeated.
        """
        sequences = self._sequences["test"]
        middle = np.flatnonzero(self.array("test", "valid"))
        own = sequences.number(middle)
        clips = middle[:, None] + np.arange(n_frames) - n_frames // 2
        return clips.clip(sequences.start[own, None], sequences.start[own + 1, None] - 1)


def _check_store(store):
    for split in ("train", "test"):
        arrays = getattr(store.splits.get(split), "arrays", {})
        for key, (_, shape) in STORED.items():
            if key not in arrays or arrays[key].shape[1:] != shape:
                raise UserError(f"{store.path}: {split!r} lacks {key!r} {shape}; it is not a store of MPI-INF-3DHP")
        for camera in store.splits[split].sequences.camera:
            if camera not in store.cameras:
                raise UserError(f"{store.path}: the image size of camera {camera!r} is missing; convert it again")


def _covering_clips(sequences, n_frames):
    """Return the frame numbers (clips, n_frames) of clips that together cover every frame; see `DataReader3DHP.get_split_id`."""
    clips = [np.empty((0, n_frames), np.int64)]
    for start, end in zip(sequences.start[:-1], sequences.start[1:]):
        starts = np.arange(start, end, n_frames).clip(max=max(end - n_frames, start))
        clips.append((starts[:, None] + np.arange(n_frames)).clip(max=end - 1))
    return np.concatenate(clips)
