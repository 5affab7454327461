"""Viewpoint of the 3D view: beside the camera and a little above, as near as all people allow."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from lib.body.camera import orbit_rotation

_TURN, _RAISE = np.radians(25), np.radians(15)  # from the video's camera to its right, and up
_ANGLE = np.radians(32)  # of view, from the panel's lower edge to the upper
_FILLED = np.array([0.84, 0.76])  # of the panel's width and height, by the people: leaves room for the ids
_READABLE = 0.4  # of the panel's height: if a standing person would be smaller, the view follows the people
_BODY = 1.7  # m
_REACH = 1.0  # s before and after a frame whose people the following view takes in
_OUTLIERS = 0.2  # % of the frames that may stick out: a wrong depth must not shrink everybody
_CHUNK = 4096  # frames read at once
CLOSEST = 0.2  # m: what is nearer to the eye, or behind it, is drawn at this distance
FAR_OUT = 20_000  # px: a place beyond is drawn there, OpenCV takes no larger numbers


@dataclass(frozen=True)
class View:
    """Pinhole view of the world."""

    axes: np.ndarray  # (3, 3): rows are right, up and forward in the world
    eye: np.ndarray  # (3,) m, in these axes
    focal: float  # px
    centre: np.ndarray  # (2,) px

    def project(self, points):
        """Return image positions (..., 2), px, and depths (...), m, of world points (..., 3), m."""
        seen = points @ self.axes.T - self.eye
        depth = np.maximum(seen[..., 2], CLOSEST)
        places = self.centre + self.focal / depth[..., None] * seen[..., :2] * [1, -1]
        return np.clip(places, -FAR_OUT, FAR_OUT), depth

    def on_ground(self, place):
        """Return the ground point (3,) at an image position (2,), px, below the horizon."""
        eye = self.eye @ self.axes
        ray = np.array([*((place - self.centre) * [1, -1] / self.focal), 1.0]) @ self.axes
        return eye - ray * eye[2] / ray[2]


class Viewpoints:
    """Views of all frames, `views[number]`: a constant one, or a smoothly moving one where people go far.

    Args:
        poses: `Poses`; its people are read once, in pieces.
        width, height: px, of the panel.

    Attributes:
        moving: whether the view is not the same for all.
    """

    def __init__(self, poses, width, height):
        self._axes = _axes(poses.rotation)
        self._focal = height / 2 / np.tan(_ANGLE / 2)
        self._centre = np.array([width / 2, height / 2])
        self._slopes = _FILLED * self._centre / self._focal
        extents, depth = self._extents(poses)
        seen = np.flatnonzero(np.isfinite(depth))
        self.moving = False
        if not len(seen):
            somewhere = poses.shift + 4 * poses.rotation[:, 2]
            body = somewhere * [1, 1, 0] + np.array([[0, 0, 0], [0, 0, _BODY]])
            self._eyes = self._eye(self._extent(body))[None]
            return
        extents = np.minimum(extents, np.nanpercentile(extents, 100 - _OUTLIERS, axis=0))
        self._eyes = self._eye(np.nanmax(extents, axis=0))[None]
        distance = np.nanmedian(depth) - self._eyes[0, 2]
        if self._focal * _BODY / distance < _READABLE * height:
            filled = [np.interp(np.arange(len(depth)), seen, column[seen]) for column in extents.T]
            reach = max(1, round(_REACH * poses.fps))
            widest = maximum_filter1d(filled, 2 * reach + 1, mode="nearest")
            self._eyes = self._eye(gaussian_filter1d(widest, reach / 3, radius=reach, mode="nearest").T)
            self.moving = True

    def __getitem__(self, number):
        return View(self._axes, self._eyes[number if self.moving else 0], self._focal, self._centre)

    def _extents(self, poses):
        """Return the extents (F, 4) of all people of a frame, and the depth of the farthest (F,); NaN without people."""
        extents = np.full((len(poses.times), 4), np.nan)
        depth = np.full(len(poses.times), np.nan)
        for person in poses.people:
            for begin in range(0, len(person.frames), _CHUNK):
                chunk = slice(begin, begin + _CHUNK)
                frames, joints = np.asarray(person.frames[chunk]), np.asarray(person.world[chunk], float)
                extents[frames] = np.fmax(extents[frames], self._extent(joints))
                depth[frames] = np.fmax(depth[frames], joints.mean(1) @ self._axes[2])
        return extents, depth

    def _extent(self, points):
        """Return the extents (..., 4) of points (..., n, 3) to the right, left, top and bottom of the viewing frustum.

        An eye sees all points if its own values, taken as those of a point, are no less.
        """
        right, up, forward = np.moveaxis(points @ self._axes.T, -1, 0)
        across, upward = forward * self._slopes[0], forward * self._slopes[1]
        return np.stack([right - across, -right - across, up - upward, -up - upward], axis=-1).max(-2)

    def _eye(self, extents):
        """Return the nearest eye positions (..., 3) that see everything of these extents (..., 4)."""
        right, left, top, bottom = np.moveaxis(extents, -1, 0)
        forward = -np.maximum((right + left) / self._slopes[0], (top + bottom) / self._slopes[1]) / 2
        return np.stack([(right - left) / 2, (top - bottom) / 2, forward], axis=-1)


def _axes(rotation):
    """Return the viewer's axes, rows right, up and forward, from the camera's axes in the world (3, 3)."""
    heading = rotation[:, 2] if abs(rotation[2, 2]) < 0.99 else -rotation[:, 1]  # a camera that looks straight down
    heading = np.arctan2(heading[1], heading[0]) + _TURN
    right, down, forward = orbit_rotation(heading + np.pi, _RAISE)
    return np.stack([right, -down, forward])
