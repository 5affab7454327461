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


def rasterise(corners, faces, values, image, depth, field, flat=False, culled=True):
    """Draw triangles into `image` (H, W, 3) and `depth` (H, W), both float32, where they are nearer than what is there.

    Args:
        corners: (V, 3) float32, camera axes, m.
        faces: (T, 3) int32.
        values: (V, 3), any numbers, interpolated with perspective.
        field: rad, vertical field of view; the principal point is the image's middle.
        flat: a triangle has the values of its first vertex.
        culled: triangles whose corners are clockwise in the image are not drawn.

    Raises:
        UserError: OpenCV is older than 5.
    """
    if not hasattr(cv2, "triangleRasterize"):
        raise UserError(f"OpenCV {cv2.__version__} cannot draw meshes: pip install 'opencv-python>=5'")
    settings = cv2.TriangleRasterizeSettings()
    settings.setShadingType(cv2.RASTERIZE_SHADING_FLAT if flat else cv2.RASTERIZE_SHADING_SHADED)
    settings.setCullingMode(cv2.RASTERIZE_CULLING_CW if culled else cv2.RASTERIZE_CULLING_NONE)
    seen, values = (np.ascontiguousarray(of_vertices, np.float32) for of_vertices in (corners * _OPENCV_AXES, values))
    cv2.triangleRasterize(seen, faces, values, image, depth, _HERE, field, NEAREST, FARTHEST, settings)


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

    def draw(values, image, flat):
        depth = np.full((height, width), FARTHEST, np.float32)
        rasterise(vertices, faces, values, image, depth, field, flat, culled=False)
        return image, depth

    lit = np.clip(colours * shade[:, None], 0, 1)
    image, depth = draw(lit, np.array(background, np.float32), flat=False)
    labels = np.repeat(segment[:, None] / NOTHING, 3, axis=1)
    marked, _ = draw(labels, np.ones((height, width, 3), np.float32), flat=True)
    return Rendered(image, depth, np.rint(marked[..., 0] * NOTHING).astype(np.uint8))
