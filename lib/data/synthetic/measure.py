"""Exact measurements of a scene: which part of a body, or what else, a pixel shows, its depth and its motion."""

from typing import NamedTuple

import numpy as np

from lib.data.synthetic.body import NOTHING, SOMEONE, THING
from lib.data.synthetic.coarse import cut_apart
from lib.data.synthetic.render import FARTHEST, rasterise


class Measured(NamedTuple):
    """Measurements of people and things before the surroundings."""

    segments: np.ndarray  # (H, W) uint8: a segment of the first person; SOMEONE, THING, NOTHING
    depth: np.ndarray  # (H, W) float32, m; `FARTHEST` of nothing
    motion: np.ndarray  # (2, H, W) float32, px to the next frame, of people

    def complete(self, camera, far):
        """Return the depth (H, W) with that of the surroundings, and the flow (2, H, W) of all that is seen.

        far: (H, W) m, depth of the surroundings.
        """
        depth = np.where(self.segments == NOTHING, far, self.depth)
        return depth, np.where(self.segments >= THING, camera.motion_of_still(depth), self.motion)


class Measurer:
    """Measurer of scenes with people of one `Body`.

    Segments and motion are drawn as colours. Motion is that of the vertices, projected; inside a triangle of 2 cm it is
    interpolated, which is off by less than 0.01 px.
    """

    def __init__(self, body):
        self._copied, self._faces, self._segments = cut_apart(body.faces, body.segment)

    def __call__(self, scene):
        """Return the `Measured` of a `Scene`."""
        camera = scene.camera
        values = np.zeros((*camera.size[::-1], 3), np.float32)
        values[..., 2] = NOTHING
        depth = np.full(values.shape[:2], FARTHEST, np.float32)
        for number, person in enumerate(scene.people):
            corners = camera.see(person.now)
            moved = camera.project(camera.later(camera.see(person.later))) - camera.project(corners)
            content = np.empty((len(self._copied), 3), np.float32)
            content[:, :2] = np.take(moved, self._copied, axis=0)
            content[:, 2] = SOMEONE if number else self._segments
            corners = np.take(corners, self._copied, axis=0)
            rasterise(corners, self._faces, content, values, depth, camera.field)
        if scene.things:
            corners = camera.see(scene.things.vertices)
            rasterise(corners, scene.things.faces, np.full_like(corners, THING), values, depth, camera.field)
        x, y, segments = np.ascontiguousarray(values.transpose(2, 0, 1))
        return Measured(np.rint(segments).astype(np.uint8), depth, np.stack([x, y]))
