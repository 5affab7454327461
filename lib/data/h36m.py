"""Human3.6M in the preprocessed layout that the field shares, and anything else stored that way."""

from pathlib import Path

import numpy as np

from lib.data.clips import split_clips
from lib.data.pickles import load_arrays
from lib.data.skeleton import JOINTS
from lib.errors import UserError, describe

CAMERA_SIZES = {  # camera name: width, height in px
    "54138969": (1000, 1002),
    "55011271": (1000, 1000),
    "58860488": (1000, 1000),
    "60457274": (1000, 1002),
}

# Recordings whose labels are wrong; the field leaves them out of the scores.
EXCLUDED_SOURCES = ("s_09_act_05_subact_02", "s_09_act_10_subact_02", "s_09_act_13_subact_01")

_JOINT_ROWS = {"joint_2d": 2, "joint3d_image": 3, "joints_2.5d_image": 3}
_NAME_ROWS = ("camera_name", "action", "source")

_HINT = (
    "; put the preprocessed Human3.6M file there or set dt_root and dt_file; "
    "the sample's is made by: python tools/make_cmu_views.py"
)


class DataReaderH36M:
    """Clips of normalised keypoints and poses from one pickle in Human3.6M's preprocessed layout.

    The file is dict(train=..., test=...) of per-row arrays: `joint_2d` (n, 17, 2) px, `confidence` (n, 17)
    or (n, 17, 1) or missing, `joint3d_image` (n, 17, 3) px with depth in the same scale,
    `joints_2.5d_image` (n, 17, 3) mm, `2.5d_factor` (n,) mm per px, `camera_name`, `action`, `source` (n,).

    Args:
        n_frames: frames of a clip.
        sample_stride: every how manyth row is read.
        data_stride_train, data_stride_test: rows between the starts of clips, after `sample_stride`.
        read_confidence: whether inputs carry confidence as a third channel (1 where the file has none).
        dt_root, dt_file: folder and name of the pickle.

    Raises:
        UserError: the file is missing, unreadable, or not in this layout; names the key and row.
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
        self.path = Path(dt_root) / dt_file
        self.n_frames = n_frames
        self.sample_stride = sample_stride
        self.data_stride = {"train": data_stride_train, "test": data_stride_test}
        self.read_confidence = read_confidence
        self.dt_dataset = load_arrays(self.path, _HINT)
        try:
            _check_layout(self.path, self.dt_dataset)
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.path}: is not in Human3.6M's layout ({describe(error)})") from error
        self._split_id = None

    def rows(self, split, key):
        """The file's array `key` of "train" or "test", one entry per row that is read."""
        return np.asarray(self.dt_dataset[split][key])[:: self.sample_stride]

    def read_2d(self, split):
        """Normalised keypoints (n, 17, 2) float32, or (n, 17, 3) with confidence."""
        width, height = self.read_hw(split)
        keypoints = _normalize(self.rows(split, "joint_2d")[..., :2].astype(np.float32), width, height)
        if not self.read_confidence:
            return keypoints
        confidence = np.ones((*keypoints.shape[:2], 1), np.float32)
        if "confidence" in self.dt_dataset[split]:
            confidence[:] = self.rows(split, "confidence").reshape(confidence.shape)
        return np.concatenate([keypoints, confidence], axis=-1)

    def read_3d(self, split):
        """Normalised poses (n, 17, 3) float32."""
        width, height = self.read_hw(split)
        return _normalize(self.rows(split, "joint3d_image").astype(np.float32), width, height)

    def read_hw(self, split):
        """Width and height (n,) float32 in px of each row's picture."""
        names, row = np.unique(self.rows(split, "camera_name").astype(str), return_inverse=True)
        sizes = np.array([CAMERA_SIZES[name] for name in names], np.float32)[row]
        return sizes[:, 0], sizes[:, 1]

    def get_split_id(self):
        """Row numbers of the clips: train (m, n_frames), test (k, n_frames). Drawn once, train first."""
        if self._split_id is None:
            self._split_id = tuple(
                split_clips(self.rows(split, "source"), self.n_frames, self.data_stride[split])
                for split in ("train", "test")
            )
        return self._split_id

    def get_sliced_data(self):
        """Normalised clips: train input, test input (.., n_frames, 17, 2 or 3), train label, test label (.., 17, 3)."""
        train, test = self.get_split_id()
        return (
            self.read_2d("train")[train],
            self.read_2d("test")[test],
            self.read_3d("train")[train],
            self.read_3d("test")[test],
        )

    def denormalize(self, test_data):
        """Test clips back to px: (k, n_frames, 17, 3), in the scale of each clip's first frame.

        Raises:
            ValueError: `test_data` does not have one pose for each frame of each test clip.
        """
        _, clips = self.get_split_id()
        shape = (*clips.shape, len(JOINTS), 3)
        test_data = np.asarray(test_data)
        if test_data.size != np.prod(shape):
            raise ValueError(f"test_data: expected {shape}, got {test_data.shape}")
        width, height = (size[clips[:, 0]][:, None, None, None] for size in self.read_hw("test"))
        data = test_data.reshape(shape)
        offset = np.concatenate([np.ones_like(width, np.float64), height.astype(float) / width], -1)
        pixels = np.empty(shape, np.float32)
        pixels[..., :2] = (data[..., :2] + offset) * width / 2
        pixels[..., 2:] = data[..., 2:] * width / 2
        return pixels


def _normalize(points, width, height):
    """px -> units of half the picture's width, x and y from its centre; points (n, J, 2 or 3), float32."""
    width, height = width[:, None, None], height[:, None, None]
    points = points / width * 2
    offset = np.concatenate([np.ones_like(width, np.float64), height.astype(float) / width], -1)
    points[..., :2] = points[..., :2] - offset
    return points


def _check_layout(path, dataset):
    for split in ("train", "test"):
        part = dataset.get(split) if isinstance(dataset, dict) else None
        if not isinstance(part, dict):
            raise UserError(f"{path}: has no dict {split!r}; expected dict(train=..., test=...)")
        for key in (*_JOINT_ROWS, "2.5d_factor", *_NAME_ROWS):
            if key not in part:
                raise UserError(f"{path}: {split!r} lacks {key!r}")
        count = len(part["source"])
        for key in (*_JOINT_ROWS, "2.5d_factor", *_NAME_ROWS, "confidence"):
            if key not in part:
                continue
            rows = np.asarray(part[key])
            expected = _expected_shapes(key, count)
            if not any(rows.shape[: len(s)] == s and rows.ndim == len(s) for s in expected):
                raise UserError(f"{path}: {split}[{key!r}] has shape {rows.shape}, expected {expected[0]}")
            if key in _NAME_ROWS:
                continue
            if not np.issubdtype(rows.dtype, np.number):
                raise UserError(f"{path}: {split}[{key!r}] holds {rows.dtype}, expected numbers")
            if not np.isfinite(rows.sum(dtype=np.float64)):
                bad = np.flatnonzero(~np.isfinite(rows.reshape(count, -1)).all(1))
                raise UserError(f"{path}: {split}[{key!r}] is not finite in row {bad[0]}")
        for camera in np.unique(np.asarray(part["camera_name"]).astype(str)).tolist():
            if camera not in CAMERA_SIZES:
                raise UserError(
                    f"{path}: {split}['camera_name'] has {camera!r}, whose picture size is unknown; "
                    f"known are {', '.join(CAMERA_SIZES)}"
                )


def _expected_shapes(key, count):
    joints = len(JOINTS)
    if key in _JOINT_ROWS:
        channels = _JOINT_ROWS[key]
        return [(count, joints, channels)] + ([(count, joints, 3)] if key == "joint_2d" else [])
    if key == "confidence":
        return [(count, joints), (count, joints, 1)]
    return [(count,)]
