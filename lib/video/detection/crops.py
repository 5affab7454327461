"""Crops of people: a camera that looks at the middle of a person's box, its image, and the way back to the whole image.

Positions are in px; (0.5, 0.5) is the centre of the first pixel. Camera axes are x right, y down, z forward.
"""

import math

import cv2
import numpy as np

from lib.body.camera import look_at_rotation
from lib.data.crop_maps import shown_part

_LEAST = 8.0  # px, height of a padded box


class Crop:
    """Camera turned about its place to look at the middle of a box, which fills its image.

    Args:
        box: (4,) x0, y0, x1, y1, px of the frame.
        frame: (width, height) px.
        focal: px, of the frame's camera, whose axis goes through its middle.
        size: (width, height) px of the crop.

    Attributes:
        rotation: (3, 3), from the axes of the frame's camera to those of this one.
        matrix: (3, 3), homogeneous: from positions in the frame to those in the crop.
    """

    def __init__(self, box, frame, focal, size):
        self.frame, self.size = frame, size
        low, high = np.asarray(box, float).reshape(2, 2)
        (centre,), (width,) = shown_part(np.concatenate([low, high - low])[None], size)
        self._scale = max(width / size[0], _LEAST / size[1])  # px of the frame in one of the crop
        self.rotation = look_at_rotation(centre - np.array(frame) / 2, focal)
        self.matrix = _camera(focal / self._scale, size) @ self.rotation @ np.linalg.inv(_camera(focal, frame))

    @property
    def shows_frame(self):
        """Whether a pixel of the crop lies in the frame."""
        return bool(((self.pixels >= 0) & (self.pixels < self.frame)).all(-1).any())

    @property
    def pixels(self):
        """The positions in the frame, (H, W, 2), of the centres of the crop's pixels."""
        columns, rows = (np.arange(side) + 0.5 for side in self.size)
        return self.back(np.stack(np.meshgrid(columns, rows), axis=-1))

    def back(self, points):
        """Return the positions in the frame of positions (..., 2) in the crop."""
        return _moved(np.linalg.inv(self.matrix), points)

    def turned_back(self, poses):
        """Return poses (..., 3) in this camera's axes in those of the frame's camera."""
        return poses @ self.rotation

    def cut(self, image):
        """Return the image (H, W, 3) uint8 of the crop; beyond the frame its border is repeated.

        It is drawn finer and then averaged, so that nothing of the frame falls between its pixels.
        """
        fine = max(1, math.ceil(self._scale))
        finer = np.diag([fine, fine, 1.0]) @ self.matrix
        drawn = self._warped(image, finer, [fine * side for side in self.size], cv2.BORDER_REPLICATE)
        return cv2.resize(drawn, self.size, interpolation=cv2.INTER_AREA)

    def cut_flow(self, flow):
        """Return the flow (2, H, W), px of the crop, of the frame's (2, h, w), px of the frame; 0 beyond the frame."""
        moved = self._warped(flow.transpose(1, 2, 0), self.matrix, self.size, cv2.BORDER_CONSTANT)
        pixels = self.pixels
        return (_moved(self.matrix, pixels + moved) - _moved(self.matrix, pixels)).transpose(2, 0, 1)

    def cut_depth(self, depth):
        """Return the depth (H, W) of the frame's (h, w); NaN beyond the frame."""
        known = self._warped(np.ones_like(depth), self.matrix, self.size, cv2.BORDER_CONSTANT)
        drawn = self._warped(depth, self.matrix, self.size, cv2.BORDER_REPLICATE)
        return np.where(known > 0.5, drawn, np.float32(np.nan))

    def _warped(self, image, matrix, size, border):
        between = _shift(-0.5) @ matrix @ _shift(0.5)  # OpenCV counts from the centre of the first pixel
        return cv2.warpPerspective(image, between, tuple(size), flags=cv2.INTER_LINEAR, borderMode=border)


def _moved(matrix, points):
    """Return points (..., 2) moved by a homography (3, 3)."""
    found = points @ matrix[:, :2].T + matrix[:, 2]
    return found[..., :2] / found[..., 2:]


def _camera(focal, size):
    return np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])


def _shift(by):
    return np.array([[1, 0, by], [0, 1, by], [0, 0, 1]])
