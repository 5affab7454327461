"""3D landmarks of BlazePose's networks, for comparison: hip-centred, m, one frame at a time."""

from dataclasses import replace

import numpy as np

from lib.body.layouts import to_h36m, weights
from lib.body.skeleton import ROOT, root_relative
from lib.files import require_file
from lib.video.detection import blazepose
from lib.video.detection.mediapipe import MODEL, quiet
from lib.video.detection.onnx_models import open_model
from tools.bench.scoring.matching import Estimate, nobody

_LAYOUT = "mediapipe33"
_PEOPLE = 4  # asked for
_INPUT, _OUTPUT = {"input_1": (1, 256, 256, 3)}, {"Identity_4": (1, 3 * 39)}
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
    network = open_model(blazepose.MODEL, "BlazePose's landmarks", _INPUT, _OUTPUT)
    poses = np.full_like(estimate.poses, np.nan)
    for number, _, frame in source:
        for index in np.flatnonzero(estimate.frames == number):
            square = square_about(estimate.keypoints[index] * source.scale)
            image, matrix = blazepose.upright(frame, square)
            (landmarks,) = network.run(list(_OUTPUT), {"input_1": image})
            joints = weights(_LAYOUT) @ landmarks.reshape(-1, 3)[: weights(_LAYOUT).shape[1]]
            joints[:, :2] = joints[:, :2] @ (matrix[:, :2] / np.linalg.norm(matrix[:, 0])).T  # as the image is turned
            poses[index] = root_relative(joints)
    return replace(estimate, poses=poses, levels=None, up=None)


def square_about(keypoints):
    """Return the `Square` of a person whose trunk becomes upright in it.

    Args:
        keypoints: (17, 2) px.
    """
    hips = keypoints[ROOT]
    up = keypoints[_THORAX] - hips
    reach = np.linalg.norm(keypoints - hips, axis=1).max()
    return blazepose.Square(hips, up / max(np.linalg.norm(up), 1e-6), _REACH * max(reach, 1.0))
