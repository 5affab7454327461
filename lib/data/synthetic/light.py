"""Light of rendered scenes, and the shadows that people cast on the ground."""

from typing import NamedTuple

import cv2
import numpy as np

from lib.data.synthetic.textures import colour

_AMBIENT, _SUN = (0.4, 0.85), (0.2, 0.9)  # brightness of light from everywhere and from one side
_ELEVATION = (0.2, 1.4)  # rad
_FROM_BELOW = 0.7  # share of the ambient light that comes from below
_SHADOW, _SHADOWS = (0.25, 0.6), 0.7  # how much darker a shadow is; share of people with one
_BLUR = (0.5, 2.5)  # px, of its edge
_ON_GROUND = 0.05  # m, and share of the depth: what is so near to a shadow's place is the ground


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
        return cls(*(np.array(part, np.float32) for part in (towards, ambient, directed)))

    def __call__(self, normals):
        """Return the light (V, 3) on surfaces of these normals (V, 3)."""
        from_above = np.float32((1 + _FROM_BELOW) / 2) + np.float32((1 - _FROM_BELOW) / 2) * normals[:, 2:]
        return from_above * self.ambient + np.maximum(normals @ self.towards, 0)[:, None] * self.directed


def cast_shadow(image, depth, scene, person, rng):
    """Darken `image` (H, W, 3) of a scene's surroundings, of a depth (H, W), where a person shades it; not always."""
    if rng.random() >= _SHADOWS:
        return
    camera, towards, ground = scene.camera, scene.light.towards, np.float32(scene.surroundings.ground)
    vertices = person.now[::2]
    places = camera.see(vertices - (vertices[:, 2:] - ground) * (towards / towards[2]))
    x, y = np.floor(camera.project(places)).astype(int).T
    width, height = camera.size
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height) & (places[:, 2] > 0)
    x, y, z = x[inside], y[inside], places[inside, 2]
    lies = np.abs(depth[y, x] - z) < _ON_GROUND * (1 + z)
    mask = np.zeros((height, width), np.float32)
    mask[y[lies], x[lies]] = 1
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    image *= 1 - np.float32(rng.uniform(*_SHADOW)) * cv2.GaussianBlur(mask, (0, 0), rng.uniform(*_BLUR))[..., None]
