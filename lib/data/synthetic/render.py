"""Rendering of bodies with OpenCV's rasteriser: image, depth and segmentation."""

from typing import NamedTuple

import cv2
import numpy as np

from lib.body.camera import NEAREST

NOTHING = 255  # in a segmentation: background

_FARTHEST = 100.0  # m
_AMBIENT = 0.45  # of the light; the rest comes from one side


class Rendered(NamedTuple):
    """Images of a body before a camera."""

    image: np.ndarray  # (H, W, 3) float32, 0 to 1; the background where there is no body
    depth: np.ndarray  # (H, W) float32, m along the camera's axis; `_FARTHEST` where there is no body
    segments: np.ndarray  # (H, W) uint8, the segment of lib/data/synthetic/body.py; NOTHING where there is no body


def render(vertices, normals, faces, colours, segment, focal, light, background):
    """Return the body of one frame as `Rendered`, over a background; the principal point is its middle.

    Args:
        vertices, normals: (V, 3), camera axes (x right, y down, z forward), m; unit vectors.
        faces: (T, 3) int32.
        colours: (V, 3), 0 to 1.
        segment: (V,) uint8.
        focal: px.
        light: (3,) unit vector towards it, camera axes.
        background: (H, W, 3), 0 to 1.
    """
    height, width = background.shape[:2]
    shade = _AMBIENT + (1 - _AMBIENT) * np.maximum(normals @ light, 0)
    field = 2 * np.arctan(height / (2 * focal))
    axes = np.array([1, -1, -1], np.float32)  # OpenCV's camera points along -z, y up
    corners = np.ascontiguousarray(vertices * axes, np.float32)

    def draw(values, shading, image):
        settings = cv2.TriangleRasterizeSettings()
        settings.setShadingType(shading)
        settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE)
        depth = np.full((height, width), _FARTHEST, np.float32)
        pose = np.eye(4, dtype=np.float32)
        return cv2.triangleRasterize(
            corners, faces, np.ascontiguousarray(values, np.float32), image, depth, pose, field, NEAREST, _FARTHEST,
            settings,
        )  # fmt: skip

    lit = np.clip(colours * shade[:, None], 0, 1)
    image, depth = draw(lit, cv2.RASTERIZE_SHADING_SHADED, np.array(background, np.float32))
    labels = np.repeat(segment[:, None] / NOTHING, 3, axis=1)
    marked, _ = draw(labels, cv2.RASTERIZE_SHADING_FLAT, np.ones((height, width, 3), np.float32))
    return Rendered(image, depth, np.rint(marked[..., 0] * NOTHING).astype(np.uint8))
