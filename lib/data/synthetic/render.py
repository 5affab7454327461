"""Rendering of bodies with OpenCV's rasteriser: image, depth and segmentation."""

from typing import NamedTuple

import cv2
import numpy as np

from lib.body.camera import NEAREST
from lib.data.synthetic.body import NOTHING
from lib.errors import UserError

FARTHEST = 100.0  # m

_OPENCV_AXES = np.array([1, -1, -1], np.float32)  # its camera points along -z, y up
_HERE = np.eye(4, dtype=np.float32)  # pose of OpenCV's camera
_AMBIENT = 0.45  # of the light; the rest comes from one side


class Rendered(NamedTuple):
    """Images of a body before a camera."""

    image: np.ndarray  # (H, W, 3) float32, 0 to 1; the background where there is no body
    depth: np.ndarray  # (H, W) float32, m along the camera's axis; `FARTHEST` where there is no body
    segments: np.ndarray  # (H, W) uint8, the segment of lib/data/synthetic/body.py; NOTHING where there is no body


def rasterise(corners, faces, values, image, depth, field, shading, culling=None):
    """Draw triangles into `image` (H, W, 3) and `depth` (H, W), both float32, where they are nearer than what is there.

    Args:
        corners: (V, 3) float32, camera axes, m.
        faces: (T, 3) int32.
        values: (V, 3), 0 to 1, interpolated with perspective or, for flat shading, of a triangle's first vertex.
        field: rad, vertical field of view; the principal point is the image's middle.
        shading: one of OpenCV's `RASTERIZE_SHADING_`.
        culling: one of OpenCV's `RASTERIZE_CULLING_`; none by default.

    Returns:
        image, depth.

    Raises:
        UserError: OpenCV is older than 5.
    """
    if not hasattr(cv2, "triangleRasterize"):
        raise UserError(f"OpenCV {cv2.__version__} cannot draw meshes: pip install 'opencv-python>=5'")
    settings = cv2.TriangleRasterizeSettings()
    settings.setShadingType(shading)
    settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE if culling is None else culling)
    seen = np.ascontiguousarray(corners * _OPENCV_AXES, np.float32)
    return cv2.triangleRasterize(
        seen, faces, np.ascontiguousarray(values, np.float32), image, depth, _HERE, field, NEAREST, FARTHEST, settings
    )


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

    def draw(values, shading, image):
        depth = np.full((height, width), FARTHEST, np.float32)
        return rasterise(vertices, faces, values, image, depth, field, shading)

    lit = np.clip(colours * shade[:, None], 0, 1)
    image, depth = draw(lit, cv2.RASTERIZE_SHADING_SHADED, np.array(background, np.float32))
    labels = np.repeat(segment[:, None] / NOTHING, 3, axis=1)
    marked, _ = draw(labels, cv2.RASTERIZE_SHADING_FLAT, np.ones((height, width, 3), np.float32))
    return Rendered(image, depth, np.rint(marked[..., 0] * NOTHING).astype(np.uint8))
