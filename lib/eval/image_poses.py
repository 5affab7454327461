"""Scores of joints in space, one image each, in m of a body of standard size."""

from typing import NamedTuple

import numpy as np

from lib.body.skeleton import JOINTS, root_relative
from lib.eval.h36m import Errors, mpjpe, p_mpjpe
from lib.eval.scores import PoseScores

_PARTS = {
    "arms": [JOINTS.index(f"{side} {joint}") for side in ("left", "right") for joint in ("elbow", "wrist")],
    "legs": [JOINTS.index(f"{side} {joint}") for side in ("left", "right") for joint in ("knee", "ankle")],
}


class _Scores(NamedTuple):
    mpjpe: float
    p_mpjpe: float
    per_action: dict


class ImagePoseScores(PoseScores, _Scores):
    """Errors in mm over all images; `per_action` {group of joints: Errors}, P2 of each group aligned on its own."""

    group, total = "joints", "all"


def evaluate_image_poses(predictions, truth):
    """Return the `ImagePoseScores` of poses (n, 17, 3), m, made root-relative, in camera axes."""
    found, known = (1e3 * root_relative(poses.astype(np.float64)) for poses in (predictions, truth))
    parts = {name: _errors(found[:, part], known[:, part]) for name, part in _PARTS.items()}
    whole = _errors(found, known)
    return ImagePoseScores(whole.mpjpe, whole.p_mpjpe, parts)


def _errors(found, known):
    return Errors(float(mpjpe(found, known).mean()), float(p_mpjpe(found, known).mean()))
