"""BlazePose's landmark network (MediaPipe's authors; ONNX): 33 joints of one person, in a square turned upright."""

from typing import NamedTuple

import cv2
import numpy as np

from lib.files import PROJECT
from lib.video.detection.onnx_models import open_model

MODEL = PROJECT / "demo" / "models" / "blazepose_heavy.onnx"

_SIDE = 256  # px, of the network's input
_CELLS = 64  # of its heatmaps' sides
_JOINTS, _OUTPUTS = 33, 39  # the network has auxiliary joints
_AROUND = np.arange(-3, 4)  # cells about a joint that say where it is
_CLEAR = 0.5  # probability that one of them needs
_INPUT = {"input_1": (1, _SIDE, _SIDE, 3)}
_OUTPUT = {"Identity": (1, 5 * _OUTPUTS), "Identity_1": (1, 1), "Identity_3": (1, _CELLS, _CELLS, _OUTPUTS)}


class Square(NamedTuple):
    """Square in which one person is searched for."""

    centre: np.ndarray  # (2,) px
    up: np.ndarray  # (2,): unit vector in the image, which becomes up
    half: float  # px, half its side


class BlazePose:
    """Network of a file.

    Raises:
        UserError: the file is missing, damaged or another model.
    """

    def __init__(self, path=MODEL):
        self._session = open_model(path, "BlazePose's landmarks", _INPUT, _OUTPUT)

    def joints(self, frame, square):
        """Return the joints of the person in a `Square` and the probability that there is one.

        Args:
            frame: (H, W, 3) uint8, RGB.

        Returns:
            (33, 3) float32: x, y in px of the frame, confidence 0 to 1; MediaPipe's order; a number.
        """
        image, matrix = upright(frame, square)
        values, presence, heatmaps = self._session.run(list(_OUTPUT), {"input_1": image})
        values = values.reshape(_OUTPUTS, 5)[:_JOINTS]
        places = _refine(values[:, :2], heatmaps[0, :, :, :_JOINTS])
        confidence = _sigmoid(values[:, 3:4]) * _sigmoid(values[:, 4:5])
        joints = np.concatenate([places @ matrix[:, :2].T + matrix[:, 2], confidence], axis=1)
        return joints.astype(np.float32), float(presence[0, 0])


def upright(frame, square):
    """Return the network's input (1, 256, 256, 3), and the matrix (2, 3) from its px to those of the frame.

    What is larger than twice the input is first made smaller by area, else the fine structure of the image would alias.
    """
    reach = square.half * np.abs(square.up).sum()  # of the turned square along x and y
    low = np.clip(np.floor(square.centre - reach), 0, frame.shape[1::-1]).astype(int)
    high = np.clip(np.ceil(square.centre + reach) + 1, low, frame.shape[1::-1]).astype(int)
    part = frame[low[1] : high[1], low[0] : high[0]]
    down = np.array([-square.up[0], -square.up[1]])
    right = np.array([-square.up[1], square.up[0]])
    matrix = np.empty((2, 3))
    matrix[:, :2] = np.stack([right, down], axis=1) * (2 * square.half / _SIDE)
    matrix[:, 2] = square.centre - matrix[:, :2] @ [_SIDE / 2, _SIDE / 2]
    shrink = max(1, int(square.half / _SIDE))
    if min(part.shape[:2]) < shrink:  # outside of the frame
        return np.zeros((1, _SIDE, _SIDE, 3), np.float32), matrix
    if shrink > 1:
        size = part.shape[1] // shrink, part.shape[0] // shrink
        part = cv2.resize(part[: size[1] * shrink, : size[0] * shrink], size, interpolation=cv2.INTER_AREA)
    inner = np.column_stack([matrix[:, :2], matrix[:, 2] - low]) / shrink
    inner[:, 2] += inner[:, :2].sum(1) / 2 - 0.5  # OpenCV counts from the middle of the first px
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(part, inner, (_SIDE, _SIDE), flags=flags)
    return image[None].astype(np.float32) / 255, matrix


def _refine(places, heatmaps):
    """Return places (33, 2) in px of the input, moved to the mean of the heatmaps' cells (64, 64, 33) about them."""
    scale = _SIDE / _CELLS
    cells = np.floor(places / scale).astype(int)
    x, y = cells[:, 0, None, None] + _AROUND, cells[:, 1, None, None] + _AROUND[:, None]
    inside = (x >= 0) & (x < _CELLS) & (y >= 0) & (y < _CELLS)
    x, y = np.clip(x, 0, _CELLS - 1), np.clip(y, 0, _CELLS - 1)
    weights = _sigmoid(heatmaps[y, x, np.arange(_JOINTS)[:, None, None]]) * inside
    total = weights.sum((1, 2))
    mean = np.stack([(weights * axis).sum((1, 2)) for axis in (x, y)], axis=1) / np.maximum(total, 1e-6)[:, None]
    clear = weights.max((1, 2)) >= _CLEAR
    return np.where(clear[:, None], mean * scale, places)


def _sigmoid(values):
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))
