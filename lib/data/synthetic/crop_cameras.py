"""Cameras of crops: a camera that looks at the middle of a person's box, which fills its image, and that moves."""

from dataclasses import dataclass
from functools import cache, cached_property

import cv2
import numpy as np

from lib.body.camera import NEAREST, look_at_rotation, project
from lib.data.crop_maps import PADDING

_ZOOM, _SHIFT = 0.15, 0.06  # jitter of a box: of its size, as a power of e; of its centre, in sizes
_PART = 0.12  # share of crops that show a part of the body only
_LEAST = 6  # joints of such a part
_STILL, _HAND_HELD = 0.35, 0.4  # shares of cameras; the others follow the person or something else
_SHAKE, _PAN = 0.02, 0.2  # rad per s, std
_WALK = (0.15, 0.8)  # m per s, std, of those that are held and those that follow


@dataclass(frozen=True)
class CropCamera:
    """Camera whose axis goes through the middle of its image.

    rotation (3, 3), offset (3,) m: points @ rotation.T + offset is x right, y down, z forward.
    motion: the same from the camera's axes to those that it has one frame later.
    focal: px; size: (width, height) px.
    """

    rotation: np.ndarray
    offset: np.ndarray
    motion: tuple
    focal: float
    size: tuple

    @property
    def place(self):
        """The camera's place, (3,) m, world."""
        return -self.offset @ self.rotation

    @property
    def field(self):
        """The vertical field of view, rad."""
        return 2 * np.arctan(self.size[1] / (2 * self.focal))

    def see(self, points):
        """Return points (..., 3) of the world in the camera's axes."""
        points = points.astype(np.float32, copy=False)
        return points @ self.rotation.T.astype(np.float32) + self.offset.astype(np.float32)

    def later(self, points):
        """Return points (..., 3) in the camera's axes in the axes that it has one frame later."""
        rotation, offset = self.motion
        return points @ rotation.T.astype(np.float32) + offset.astype(np.float32)

    def project(self, points):
        """Return the image positions (n, 2) px of points (n, 3) in the camera's axes."""
        return np.stack(self._image(*points.T), axis=1)

    @property
    def pixels(self):
        """The image positions (2, H, W) px of the centres of pixels: (0.5, 0.5) is that of the first."""
        return _pixels(self.size)

    @cached_property
    def rays(self):
        """The rays (3, H, W) float32 through the centres of pixels, in the camera's axes, of length 1 along z."""
        x, y = (self.pixels - _half(self.size)) * np.float32(1 / self.focal)
        return np.stack([x, y, np.ones_like(x)])

    def motion_of_still(self, depth):
        """Return the motion (2, H, W) px until the next frame of what stands still at a depth (H, W) m."""
        rotation, offset = (part.astype(np.float32) for part in self.motion)
        turned = (rotation @ self.rays.reshape(3, -1)).reshape(self.rays.shape)
        places = (ray * depth + step for ray, step in zip(turned, offset))
        return np.stack(self._image(*places)) - self.pixels

    def _image(self, x, y, z):
        """Return x and y in px of points, coordinate by coordinate, which is fast: rows of 2 or 3 numbers are not."""
        scale = np.float32(self.focal) / np.maximum(z, np.float32(NEAREST))
        right, below = _half(self.size).ravel()
        return x * scale + right, y * scale + below


@cache
def _pixels(size):
    return np.stack(np.meshgrid(*(np.arange(side, dtype=np.float32) + np.float32(0.5) for side in size)))


def _half(size):
    return np.array(size, np.float32).reshape(2, 1, 1) / 2


def draw_crop(joints, rotation, offset, size, rng, seconds):
    """Return a random `CropCamera` turned to a person's box.

    Args:
        joints: (n, 3) m, world: points of the person that the box holds.
        rotation, offset: of a camera that sees the person.
        size: (width, height) px.
        rng: NumPy generator.
        seconds: from one frame to the next.
    """
    places = project(joints @ rotation.T + offset, 1.0)
    if rng.random() < _PART:
        places = _part(places, rng)
    low, high = places.min(0), places.max(0)
    centre = (low + high) / 2
    turn = look_at_rotation(centre, 1.0)
    width, height = (high - low) * PADDING
    height = max(height, width * size[1] / size[0]) * np.exp(rng.uniform(-_ZOOM, _ZOOM))
    angles = np.arctan(height * rng.uniform(-_SHIFT, _SHIFT, 2) * [size[0] / size[1], 1])
    turn = cv2.Rodrigues(np.array([angles[1], angles[0], 0]))[0] @ turn
    return CropCamera(turn @ rotation, turn @ offset, _motion(rng, seconds), size[1] / height, tuple(size))


def _part(places, rng):
    """Return the places (m, 2) on one side of a random line through a body's places (n, 2)."""
    angle = rng.uniform(0, 2 * np.pi)
    along = places @ [0.3 * np.cos(angle), np.sin(angle)]
    return places[np.argsort(along)[: rng.integers(min(_LEAST, len(places)), len(places) + 1)]]


def _motion(rng, seconds):
    """Return rotation (3, 3) and offset (3,) m from a camera's axes to those one frame later."""
    share = rng.random()
    if share < _STILL:
        return np.eye(3), np.zeros(3)
    held = share < _STILL + _HAND_HELD
    turn = rng.standard_normal(3) * (_SHAKE if held else [0.4 * _PAN, _PAN, _SHAKE]) * seconds
    return cv2.Rodrigues(turn)[0], rng.standard_normal(3) * _WALK[not held] * seconds
