"""Human3.6M in the preprocessed layout that the field shares, and other data in this layout."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np

from lib.body.skeleton import JOINTS
from lib.data.clips import split_clips
from lib.data.datasets.base import FrameReader
from lib.data.pickles import load_arrays
from lib.data.store import (
    INDEX,
    SUFFIX,
    Sequences,
    Split,
    open_store,
)
from lib.data.training_clips import training_clips
from lib.errors import UserError, describe

log = logging.getLogger(__name__)

CAMERA_SIZES = {  # camera name: width, height in px
    "54138969": (1000, 1002),
    "55011271": (1000, 1000),
    "58860488": (1000, 1000),
    "60457274": (1000, 1002),
}

# Recordings whose labels are wrong; the field leaves them out of the scores.
EXCLUDED_SOURCES = ("s_09_act_05_subact_02", "s_09_act_10_subact_02", "s_09_act_13_subact_01")

_JOINT_ARRAYS = {"joint_2d": 2, "joint3d_image": 3, "joints_2.5d_image": 3}
MADE_BY = "tools/convert_h36m.py"

_NAME_ARRAYS = ("camera_name", "action", "source")

STORED = {  # key: type and shape of a frame's entry in a store
    "joint_2d": ("f4", (17, 2)),
    "confidence": ("f4", (17,)),
    "joint3d_image": ("f4", (17, 3)),
    "joints_2.5d_image": ("f4", (17, 3)),
    "2.5d_factor": ("f8", ()),
}

HINT = "; put the preprocessed Human3.6M file there or {}; the sample's is made by: python tools/make_cmu_views.py"


class DataReaderH36M(FrameReader):
    """Clips of normalised keypoints and poses from a data set in Human3.6M's preprocessed layout.

    It is a pickle, dict(train=..., test=...) of per-frame arrays: `joint_2d` (n, 17, 2) px, `confidence` (n, 17)
    or (n, 17, 1) or missing, `joint3d_image` (n, 17, 3) px with depth in the same scale,
    `joints_2.5d_image` (n, 17, 3) mm, `2.5d_factor` (n,) mm per px, `camera_name`, `action`, `source` (n,); or the
    store (`lib.data.store`) that `convert` made of one, which takes no memory. A store beside the pickle
    is read instead if it is not older.

    Args:
        n_frames: frames of a clip.
        sample_stride: stride with which frames are subsampled.
        data_stride_train, data_stride_test: frames between the starts of clips, after `sample_stride`.
        read_confidence: whether inputs carry confidence as a third channel (1 where the file has none).
        dt_root, dt_file: folder and name of the pickle or store.

    Raises:
        UserError: the data are missing, unreadable, or not in this layout; names the key and frame.
    """

    def __init__(
        self,
        n_frames,
        sample_stride,
        data_stride_train,
        data_stride_test,
        read_confidence=True,
        dt_root="data/motion3d",
        dt_file="h36m_sh_conf_cam_source_final.pkl",
    ):
        self.path = _store_or_pickle(Path(dt_root) / dt_file)
        super().__init__(_open(self.path), CAMERA_SIZES, sample_stride)
        self.n_frames = n_frames
        self.data_stride = {"train": data_stride_train, "test": data_stride_test}
        self.read_confidence = read_confidence
        self._split_id = None

    @classmethod
    def open(cls, config):
        return cls(
            config.clip_len,
            config.sample_stride,
            config.data_stride,
            config.clip_len,
            dt_root=config.dt_root,
            dt_file=config.dt_file,
        )

    def training_clips(self, config):
        return training_clips(config, self, files=True)

    def read_2d(self, split, index=None):
        """Return normalised keypoints (n, 17, 2) float32, or (n, 17, 3) with confidence; of `index` (...): (..., 17, 2 or 3)."""
        width, height = self.read_hw(split, index)
        keypoints = _normalize(self.array(split, "joint_2d", index).astype(np.float32), width, height)
        if not self.read_confidence:
            return keypoints
        confidence = np.ones((*keypoints.shape[:-1], 1), np.float32)
        if "confidence" in self.splits[split].arrays:
            confidence[:] = self.array(split, "confidence", index).reshape(confidence.shape)
        return np.concatenate([keypoints, confidence], axis=-1)

    def read_3d(self, split, index=None):
        """Return normalised poses (n, 17, 3) float32; of `index` (...): (..., 17, 3)."""
        width, height = self.read_hw(split, index)
        return _normalize(self.array(split, "joint3d_image", index).astype(np.float32), width, height)

    def read_mm(self, split, index=None):
        """Return poses (n, 17, 3) in mm, up to a translation; of `index` (...): (..., 17, 3)."""
        return self.array(split, "joints_2.5d_image", index)

    def unit(self, split, index=None):
        """Return the length in mm of one unit of normalised poses, (n,) or like `index`."""
        return self.array(split, "2.5d_factor", index) * self.read_hw(split, index)[0] / 2

    def get_split_id(self):
        """Return the frame numbers of the clips: train (m, n_frames), test (k, n_frames). Drawn once, train first."""
        if self._split_id is None:
            self._split_id = tuple(
                split_clips(self._sequences[split], self.n_frames, self.data_stride[split])
                for split in ("train", "test")
            )
        return self._split_id

    def get_sliced_data(self):
        """Return normalised clips: train input, test input (.., n_frames, 17, 2 or 3), train label, test label (.., 17, 3)."""
        train, test = self.get_split_id()
        return (
            self.read_2d("train", train),
            self.read_2d("test", test),
            self.read_3d("train", train),
            self.read_3d("test", test),
        )

    def denormalize(self, test_data, chosen=slice(None)):
        """Return test clips in px: (k, n_frames, 17, 3), in the scale of each clip's first frame.

        chosen: numbers of the test clips; all by default.

        Raises:
            ValueError: `test_data` does not have one pose for each frame of each test clip.
        """
        clips = self.get_split_id()[1][chosen]
        shape = (*clips.shape, len(JOINTS), 3)
        test_data = np.asarray(test_data)
        if test_data.size != np.prod(shape):
            raise ValueError(f"test_data: expected {shape}, got {test_data.shape}")
        width, height = (size[:, None, None, None] for size in self.read_hw("test", clips[:, 0]))
        data = test_data.reshape(shape)
        offset = np.concatenate([np.ones_like(width, np.float64), height.astype(float) / width], -1)
        pixels = np.empty(shape, np.float32)
        pixels[..., :2] = (data[..., :2] + offset) * width / 2
        pixels[..., 2:] = data[..., 2:] * width / 2
        return pixels


def _store_or_pickle(path):
    """Return the path of the store or pickle to read for a path of either."""
    if path.suffix == SUFFIX or (path / INDEX).is_file():
        return path
    store = path.with_suffix(SUFFIX)
    if not (store / INDEX).is_file():
        return path
    if path.is_file() and (
        path.stat().st_mtime > (store / INDEX).stat().st_mtime
        or open_store(store).provenance.get("bytes") != path.stat().st_size
    ):
        log.warning("%s: is not made from the present %s, which is read instead; convert it again", store, path.name)
        return path
    return store


def _open(path):
    """Return {"train": `Split`, "test": `Split`} of a pickle or store."""
    if path.suffix != SUFFIX and not path.is_dir():
        return open_pickle(path)
    store = open_store(path)
    for split in ("train", "test"):
        missing = [key for key in STORED if key not in getattr(store.splits.get(split), "arrays", {})]
        if set(missing) - {"confidence"}:
            raise UserError(f"{path}: {split!r} lacks {missing[0]!r}; it is not a store of Human3.6M's layout")
        _check_cameras(path, split, store.splits[split].sequences)
    return store.splits


def open_pickle(path):
    """Return {"train": `Split`, "test": `Split`} of a pickle.

    Raises:
        UserError: it is missing, damaged or not in this layout; names the key and frame.
    """
    dataset = load_arrays(path, HINT.format("set dt_root and dt_file"))
    try:
        _check_layout(path, dataset)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: is not in Human3.6M's layout ({describe(error)})") from error
    splits = {}
    for split in ("train", "test"):
        sequences = Sequences.of_frames(*(dataset[split][key] for key in ("source", "camera_name", "action")))
        _check_cameras(path, split, sequences)
        arrays = {key: np.asarray(dataset[split][key]) for key in STORED if key in dataset[split]}
        arrays["joint_2d"] = arrays["joint_2d"][..., :2]  # some files have confidence beside x and y
        splits[split] = Split(arrays, sequences)
    return splits


def _normalize(points, width, height):
    """Return points (..., J, 2 or 3) float32 in px in units of half the image's width, x and y from its centre."""
    width, height = width[..., None, None], height[..., None, None]
    points = points / width * 2
    offset = np.concatenate([np.ones_like(width, np.float64), height.astype(float) / width], -1)
    points[..., :2] = points[..., :2] - offset
    return points


def _check_layout(path, dataset):
    for split in ("train", "test"):
        content = dataset.get(split) if isinstance(dataset, dict) else None
        if not isinstance(content, dict):
            raise UserError(f"{path}: has no dict {split!r}; expected dict(train=..., test=...)")
        for key in (*_JOINT_ARRAYS, "2.5d_factor", *_NAME_ARRAYS):
            if key not in content:
                raise UserError(f"{path}: {split!r} lacks {key!r}")
        needed = (*_JOINT_ARRAYS, "2.5d_factor", *_NAME_ARRAYS)
        count = Counter(len(content[key]) for key in needed).most_common(1)[0][0]
        if not count:
            raise UserError(f"{path}: {split!r} has no frames")
        for key in (*_JOINT_ARRAYS, "2.5d_factor", *_NAME_ARRAYS, "confidence"):
            if key not in content:
                continue
            array = np.asarray(content[key])
            expected = _expected_shapes(key, count)
            if not any(array.shape[: len(s)] == s and array.ndim == len(s) for s in expected):
                raise UserError(f"{path}: {split}[{key!r}] has shape {array.shape}, expected {expected[0]}")
            if key in _NAME_ARRAYS:
                if (empty := np.flatnonzero(array.astype(str) == "")).size:
                    raise UserError(f"{path}: {split}[{key!r}] is empty in frame {empty[0]}")
                continue
            if not np.issubdtype(array.dtype, np.number):
                raise UserError(f"{path}: {split}[{key!r}] holds {array.dtype}, expected numbers")
            if not np.isfinite(array.sum(dtype=np.float64)):
                bad = np.flatnonzero(~np.isfinite(array.reshape(count, -1)).all(1))
                raise UserError(f"{path}: {split}[{key!r}] is not finite in frame {bad[0]}")


def _check_cameras(path, split, sequences):
    unknown = np.flatnonzero(~np.isin(sequences.camera, list(CAMERA_SIZES)))
    if len(unknown):
        raise UserError(
            f"{path}: {split}['camera_name'] has '{sequences.camera[unknown[0]]}' in frame {sequences.start[unknown[0]]}, "
            f"whose image size is unknown; known are {', '.join(CAMERA_SIZES)}"
        )


def _expected_shapes(key, count):
    joints = len(JOINTS)
    if key in _JOINT_ARRAYS:
        channels = _JOINT_ARRAYS[key]
        return [(count, joints, channels)] + ([(count, joints, 3)] if key == "joint_2d" else [])
    if key == "confidence":
        return [(count, joints), (count, joints, 1)]
    return [(count,)]
