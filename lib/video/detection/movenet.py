"""MoveNet multipose (Google; ONNX): up to six people with COCO's joints, in one pass over an image."""

from typing import NamedTuple

import cv2
import numpy as np

from lib.files import PROJECT
from lib.video.detection.onnx_models import open_model

MODEL = PROJECT / "demo" / "models" / "movenet_multipose.onnx"

_STEP = 32  # px: sides are multiples of it
_JOINTS = 17


class Pose(NamedTuple):
    """One person that was found."""

    joints: np.ndarray  # (17, 3) float32: x, y in px of the image, score; COCO's order
    box: np.ndarray  # (4,) float32: x0, y0, x1, y1 px
    score: float


class MoveNet:
    """The network of a file.

    Raises:
        UserError: the file is missing, damaged or another model.
    """

    def __init__(self, path=MODEL):
        self._session = open_model(
            path, "MoveNet multipose", {"input": (1, None, None, 3)}, {"output_0": (1, 6, 3 * _JOINTS + 5)}
        )

    def find(self, image, side, least):
        """Return the `Pose`s in an image, best first.

        Args:
            image: (H, W, 3) uint8, RGB.
            side: px, what the longer side is scaled to; a multiple of 32.
            least: score that people need.
        """
        height, width = image.shape[:2]
        scale = side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        columns, lines = (-(-length // _STEP) * _STEP for length in size)
        padded = np.zeros((1, lines, columns, 3), np.int32)
        smaller = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        padded[0, : size[1], : size[0]] = cv2.resize(image, size, interpolation=smaller)
        (found,) = self._session.run(["output_0"], {"input": padded})[0]
        found = found[found[:, -1] >= least]
        return [
            _pose(values, np.array([columns * width / size[0], lines * height / size[1]], np.float32))
            for values in found
        ]


def _pose(values, size):
    """The `Pose` of a row of 56 numbers: y, x and score of each joint, a box, its score; relative to `size`, px."""
    joints = values[: 3 * _JOINTS].reshape(_JOINTS, 3)[:, [1, 0, 2]]
    joints[:, :2] *= size
    box = values[3 * _JOINTS :][[1, 0, 3, 2]] * np.tile(size, 2)
    return Pose(joints, box, float(values[-1]))
