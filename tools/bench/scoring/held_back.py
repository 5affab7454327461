"""Scores of a lifting network on held-back subjects, seen by the fixed synthetic cameras of lib/data/convert/cmu_views.py."""

from typing import NamedTuple

import numpy as np

from lib.body.skeleton import root_relative
from lib.data.convert.cmu_views import FOCAL_LENGTHS, TEST_YAW, see
from lib.data.datasets.h36m import CAMERA_SIZES
from lib.data.motion_files import FPS, read_motion_files
from lib.eval.h36m import p_mpjpe

RATE = 30.0  # frames a second of a video
_LONGEST = 10.0  # s of a clip
_SHORTEST = 1.0
_EVERY = round(FPS / RATE)


class Clip(NamedTuple):
    """View of one clip by one camera."""

    subject: str
    keypoints: dict  # {"perfect" or "noisy": (F, 17, 3) px and confidence}
    truth: np.ndarray  # (F, 17, 3) m, root-relative, camera axes
    size: tuple  # width and height, px
    focal: float  # px


def clips(paths, subjects):
    """Return a `Clip` of each clip of the motion files whose subject is one of `subjects`; the four cameras take turns.

    Raises:
        UserError: a file is missing or damaged.
    """
    motion = read_motion_files(paths)
    spans = [(a, min(b, a + round(_LONGEST * FPS))) for a, b in zip(motion["start"], motion["start"][1:])]
    chosen = [n for n, (a, b) in enumerate(spans) if motion["subject"][n] in subjects and b - a >= _SHORTEST * FPS]
    return [
        _seen(str(motion["subject"][n]), motion["joints"][slice(*spans[n], _EVERY)].astype(float), n) for n in chosen
    ]


def _seen(subject, joints, number):
    seen = see(joints, "test", number % len(TEST_YAW), RATE, np.random.default_rng(number))
    camera = str(seen["camera_name"][0])
    size, focal = CAMERA_SIZES[camera], FOCAL_LENGTHS[camera]
    image, sure = seen["joint3d_image"], np.ones((len(joints), joints.shape[1], 1))
    depth = (focal + image[..., 2]) * seen["2.5d_factor"][:, None] * 1e-3  # m; of the root: focal length x factor
    truth = np.concatenate([(image[..., :2] - np.array(size) / 2) / focal, np.ones_like(sure)], axis=-1)
    keypoints = {
        "perfect": np.concatenate([image[..., :2], sure], axis=-1),
        "noisy": np.concatenate([seen["joint_2d"], seen["confidence"][..., None]], axis=-1),
    }
    return Clip(subject, keypoints, root_relative(truth * depth[..., None]), size, focal)


def errors(clip, poses):
    """Return P-MPJPE in mm of poses (F, 17, 3) m, frame by frame: (F,)."""
    return 1e3 * p_mpjpe(poses.astype(float), clip.truth)
