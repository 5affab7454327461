"""Baselines that need no network: the mean training pose, and a linear map from one frame's keypoints."""

import numpy as np

from lib.body.skeleton import JOINTS, root_relative
from lib.data.store import BLOCK


def mean_pose_predictions(reader):
    """Return the mean root-relative training pose in mm, for every frame of every test clip: (clips, F, 17, 3), normalised."""
    total = np.zeros((len(JOINTS), 3))
    for rows in _blocks(reader, "train"):
        total += root_relative(reader.read_mm("train", rows)).sum(0, dtype=np.float64)
    mean = total / reader.count("train")
    _, clips = reader.get_split_id()
    return mean.astype(np.float32) / reader.unit("test", clips).astype(np.float32)[..., None, None]


def linear_predictions(reader):
    """Least-squares poses from the 17 keypoints of the same frame, fitted on the training rows: (clips, F, 17, 3)."""
    size = 2 * len(JOINTS) + 1
    gram, moment = np.zeros((size, size)), np.zeros((size, 3 * len(JOINTS)))
    for rows in _blocks(reader, "train"):
        inputs = _features(reader.read_2d("train", rows)).astype(np.float64)
        gram += inputs.T @ inputs
        moment += inputs.T @ root_relative(reader.read_3d("train", rows)).reshape(len(rows), -1)
    weights = np.linalg.lstsq(gram, moment, rcond=None)[0]
    _, clips = reader.get_split_id()
    poses = np.empty((reader.count("test"), len(JOINTS), 3), np.float32)
    for rows in _blocks(reader, "test"):
        poses[rows] = (_features(reader.read_2d("test", rows)) @ weights).reshape(len(rows), -1, 3)
    return poses[clips]


def _blocks(reader, split):
    """Row numbers of a part, some at a time, so that a full-size data set needs little memory."""
    for start in range(0, reader.count(split), BLOCK):
        yield np.arange(start, min(start + BLOCK, reader.count(split)))


def _features(keypoints):
    """Return (n, 35) of keypoints (n, 17, 2 or 3): x and y of every joint, and 1."""
    flat = keypoints[..., :2].reshape(len(keypoints), -1)
    return np.concatenate([flat, np.ones_like(flat[:, :1])], axis=1)
