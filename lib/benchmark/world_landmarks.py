"""The 3D landmarks that BlazePose's networks give by themselves, for comparison: hip-centred, m, of one frame each."""

from dataclasses import replace

import cv2
import numpy as np

from lib.benchmark.matching import Estimate, nobody
from lib.data.skeleton import ROOT, root_relative
from lib.files import PROJECT, require_file
from lib.video.detection.joints import to_h36m, weights
from lib.video.detection.mediapipe import MODEL, quiet

HEAVY = PROJECT / "demo" / "models" / "blazepose_heavy.onnx"
_LAYOUT = "mediapipe33"
_PEOPLE = 4  # asked for
_SIDE = 256  # px, of the network's input
_REACH = 1.25  # half of a square's side, in units of the longest distance from the hips to a joint; of 1.25, 1.4, 1.56, 1.8 the best
_THORAX = 8


def mediapipe_landmarks(source):
    """Return the `Estimate` of MediaPipe's pose landmarker (full, video mode) on whole frames of a `VideoSource`."""
    with quiet():
        from mediapipe import Image, ImageFormat
        from mediapipe.tasks.python import BaseOptions, vision

    options = vision.PoseLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(require_file(MODEL))),
        running_mode=vision.RunningMode.VIDEO,
        num_poses=_PEOPLE,
    )
    found = []
    with quiet(), vision.PoseLandmarker.create_from_options(options) as landmarker:
        for number, seconds, frame in source:
            result = landmarker.detect_for_video(Image(image_format=ImageFormat.SRGB, data=frame), round(seconds * 1e3))
            size = frame.shape[1::-1]
            for image, world in zip(result.pose_landmarks, result.pose_world_landmarks):
                points = np.array([(p.x * size[0], p.y * size[1], p.visibility) for p in image])
                joints = weights(_LAYOUT) @ np.array([(p.x, p.y, p.z) for p in world])
                found.append((number, to_h36m(points, _LAYOUT)[:, :2] / source.scale, joints))
    return Estimate(*map(np.array, zip(*found))) if found else nobody()


def heavy_landmarks(source, estimate):
    """Return an `Estimate` with the same people, whose poses are those of BlazePose heavy.

    The network sees each person in a square that is turned upright, aimed by their keypoints in the same frame.
    """
    from onnxruntime import InferenceSession

    network = InferenceSession(str(require_file(HEAVY)), providers=["CPUExecutionProvider"])
    (entry,) = network.get_inputs()
    poses = np.full_like(estimate.poses, np.nan)
    for number, _, frame in source:
        for index in np.flatnonzero(estimate.frames == number):
            square, turn = upright_square(estimate.keypoints[index] * source.scale)
            image = _cut(frame, square)
            (landmarks,) = network.run(["Identity_4"], {entry.name: image[None].astype(np.float32) / 255})
            joints = weights(_LAYOUT) @ landmarks.reshape(-1, 3)[: weights(_LAYOUT).shape[1]]
            joints[:, :2] = joints[:, :2] @ turn
            poses[index] = root_relative(joints)
    return replace(estimate, poses=poses, levels=None, up=None)


def _cut(frame, square):
    """Return the network's input (256, 256, 3), averaged over pixels where the frame has more of them."""
    finer = max(1, round(1 / np.linalg.norm(square[0, :2])))
    image = cv2.warpAffine(frame, square * finer, (_SIDE * finer, _SIDE * finer), flags=cv2.INTER_LINEAR)
    return cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def upright_square(keypoints):
    """Return the affine map (2, 3) from the image to a square in which the trunk is upright, and its rotation (2, 2).

    Args:
        keypoints: (17, 2) px.
    """
    hips = keypoints[ROOT]
    down = hips - keypoints[_THORAX]
    down /= max(np.linalg.norm(down), 1e-6)
    turn = np.array([[down[1], -down[0]], [down[0], down[1]]])  # image -> square: `down` becomes (0, 1)
    half = _REACH * max(np.linalg.norm(keypoints - hips, axis=1).max(), 1.0)
    linear = turn * (_SIDE / 2 / half)
    return np.column_stack([linear, _SIDE / 2 - linear @ hips]), turn
