"""What can be had without a network: the mean training pose, and a linear map from one frame's keypoints."""

import numpy as np

from lib.data.skeleton import JOINTS, ROOT

_BLOCK = 65536  # rows at a time, so that a full-size data set needs no copy in float64


def mean_pose_predictions(reader):
    """The mean root-relative training pose in mm, for every frame of every test clip: (clips, F, 17, 3), normalised."""
    mean = _root_relative(reader.rows("train", "joints_2.5d_image")).mean(0, dtype=np.float64)
    width, _ = reader.read_hw("test")
    unit = reader.rows("test", "2.5d_factor") * width / 2  # mm of one normalised unit, each row
    _, clips = reader.get_split_id()
    return (mean / unit[:, None, None]).astype(np.float32)[clips]


def linear_predictions(reader):
    """Least-squares poses from the 17 keypoints of the same frame, fitted on the training rows: (clips, F, 17, 3)."""
    inputs, targets = _features(reader.read_2d("train")), _root_relative(reader.read_3d("train"))
    targets = targets.reshape(len(targets), -1)
    gram = np.zeros((inputs.shape[1], inputs.shape[1]))
    moment = np.zeros((inputs.shape[1], targets.shape[1]))
    for start in range(0, len(inputs), _BLOCK):
        rows = slice(start, start + _BLOCK)
        block = inputs[rows].astype(np.float64)
        gram += block.T @ block
        moment += block.T @ targets[rows]
    weights = np.linalg.lstsq(gram, moment, rcond=None)[0]
    _, clips = reader.get_split_id()
    poses = (_features(reader.read_2d("test")) @ weights).astype(np.float32)
    return poses.reshape(-1, len(JOINTS), 3)[clips]


def _features(keypoints):
    """(n, 17, 2 or 3) -> (n, 35): x and y of every joint, and 1."""
    flat = keypoints[..., :2].reshape(len(keypoints), -1)
    return np.concatenate([flat, np.ones_like(flat[:, :1])], axis=1)


def _root_relative(poses):
    return poses - poses[:, ROOT, None]
