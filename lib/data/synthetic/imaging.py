"""Photographs of rendered people: light, shadows, motion blur, and what camera and compression do to an image."""

from typing import NamedTuple

import cv2
import numpy as np

from lib.data.synthetic.render import FARTHEST, rasterise
from lib.data.synthetic.scene import Camera
from lib.data.synthetic.textures import colour

_FINE = 2  # pixels of the drawn image along the side of one of the result
_AMBIENT, _SUN = (0.4, 0.85), (0.2, 0.9)  # brightness of light from everywhere and from one side
_ELEVATION = (0.2, 1.4)  # rad, of the light
_SHADOW, _SHADOWS = (0.25, 0.6), 0.7  # how much darker a shadow is; share of images with one
_EXPOSURE = 0.5  # of the time from frame to frame, at most
_MOVING, _TIMES = 0.2, 3  # share of images with motion blur; images that make one up
_SMEAR = 5.0  # px, longest path of a point in such an image
_MEAN, _ADAPTED = (0.3, 0.6), 0.7  # brightness that a camera aims at; how far it gets there, as a power
_GAIN, _TINT, _GAMMA = 0.15, 0.06, 0.15  # std of its errors, as powers of e
_SMALL, _SMALLEST = 0.25, 3.0  # share of crops that were enlarged; how many times at most


class Light(NamedTuple):
    """Light from everywhere and from one side, in world axes."""

    towards: np.ndarray  # (3,) unit vector
    ambient: np.ndarray  # (3,)
    directed: np.ndarray  # (3,)

    @classmethod
    def draw(cls, rng):
        yaw, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(*_ELEVATION)
        towards = [np.cos(elevation) * np.cos(yaw), np.cos(elevation) * np.sin(yaw), np.sin(elevation)]
        ambient, directed = (colour(rng, (0.0, 0.15), (1.0, 1.0)) * rng.uniform(*limits) for limits in (_AMBIENT, _SUN))
        return cls(np.float32(towards), np.float32(ambient), np.float32(directed))

    def __call__(self, normals):
        """Return the light (V, 3) on surfaces of these normals (V, 3); less comes from below than from above."""
        above = 0.85 + 0.15 * normals[:, 2:]
        return above * self.ambient + np.maximum(normals @ self.towards, 0)[:, None] * self.directed


class Drawn(NamedTuple):
    """Mesh in the camera's axes, m, now and one frame later, in the axes of then."""

    now: np.ndarray  # (V, 3)
    later: np.ndarray  # (V, 3)
    faces: np.ndarray  # (T, 3)
    colours: np.ndarray  # (V, 3), lit


def photograph(camera, meshes, behind, far, speed, rng):
    """Return a photograph (H, W, 3) uint8.

    Args:
        camera: `CropCamera`.
        meshes: `Drawn`s.
        behind: (H, W, 3), 0 to 1, what is behind them; far: (H, W) m, its depth.
        speed: px per frame, of what moves fastest.
        rng: NumPy generator.
    """
    times = [0.0]
    if rng.random() < _MOVING:
        times = np.linspace(-0.5, 0.5, _TIMES) * min(rng.uniform(0.1, _EXPOSURE), _SMEAR / max(speed, 1e-6))
    image = sum(_at_time(camera, meshes, behind, far, time) for time in times) * np.float32(1 / len(times))
    return _record(cv2.resize(image, camera.size, interpolation=cv2.INTER_AREA), rng)


def cast_shadow(image, depth, camera, vertices, light, ground, rng):
    """Darken `image` (H, W, 3) where vertices (V, 3), world, m, keep the light from the ground, in some images."""
    if rng.random() >= _SHADOWS:
        return
    down = (vertices[:, 2:] - np.float32(ground)) / light.towards[2]
    places = camera.see(vertices - down * light.towards)
    x, y = np.floor(camera.project(places)).astype(int).T
    width, height = camera.size
    z = places[:, 2]
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height) & (z > 0)
    x, y, z = x[inside], y[inside], z[inside]
    lies = np.abs(depth[y, x] - z) < 0.05 * z + 0.05
    mask = np.zeros((height, width), np.float32)
    mask[y[lies], x[lies]] = 1
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    image *= 1 - rng.uniform(*_SHADOW) * cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 2.5))[..., None]


def _at_time(camera, meshes, behind, far, time):
    """Return the image (_FINE H, _FINE W, 3) at a time, in frames."""
    size = tuple(_FINE * side for side in camera.size)
    if time:
        places = camera.pixels - np.float32(time) * camera.motion_of_still(far) - np.float32(0.5)
        behind = cv2.remap(behind, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    image = cv2.resize(behind, size, interpolation=cv2.INTER_LINEAR)
    depth = np.full(image.shape[:2], FARTHEST, np.float32)
    for mesh in meshes:
        corners = mesh.now + np.float32(time) * (mesh.later - mesh.now) if time else mesh.now
        image, depth = rasterise(
            corners, mesh.faces, mesh.colours, image, depth, camera.field,
            cv2.RASTERIZE_SHADING_SHADED, cv2.RASTERIZE_CULLING_CW,
        )  # fmt: skip
    return image


def _record(image, rng):
    """Return the image (H, W, 3) uint8 that a camera records of one, (H, W, 3) float32."""
    adapted = (rng.uniform(*_MEAN) / max(float(image.mean()), 1e-2)) ** _ADAPTED
    gain = adapted * np.exp(_GAIN * rng.standard_normal() + _TINT * rng.standard_normal(3))
    image = np.clip(image * np.float32(gain), 0, 1) ** np.float32(np.exp(_GAMMA * rng.standard_normal()))
    if rng.random() < _SMALL:
        height, width = image.shape[:2]
        times = rng.uniform(1, _SMALLEST)
        small = (max(1, round(width / times)), max(1, round(height / times)))
        image = cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height))
    return Camera(rng)(image)
