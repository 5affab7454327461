"""Short image sequences of rendered people in motion, with exact ground truth."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from lib.body.camera import project
from lib.body.skeleton import JOINTS
from lib.data.motion_files import FPS as MOTION_FPS
from lib.data.synthetic.appearance import dress
from lib.data.synthetic.body import COEFFICIENTS, THING, Body
from lib.data.synthetic.cameras import draw_cameras
from lib.data.synthetic.render import render
from lib.data.synthetic.scene import Camera, background, occluders
from lib.data.synthetic.visibility import Visibility

FPS = 30.0

_SIDE = 640  # px, of an image's longer side
_IN_IMAGE = 10  # joints that are in the image in every frame
_SMALLEST = 8.0  # px, root mean square distance of joints from their centre
_TRIES = 50
_VISIBILITY = Visibility(JOINTS, as_measured=True)


class Sequence(NamedTuple):
    """Sequence of F frames of one person."""

    images: list  # F of (H, W, 3) uint8, RGB
    joints: np.ndarray  # (F, 17, 3) m, camera axes
    keypoints: np.ndarray  # (F, 17, 2) px
    visible: np.ndarray  # (F, 17): SEEN, HIDDEN by the person or an occluder, OUTSIDE of the image
    focal: float  # px


@dataclass(frozen=True)
class Stage:
    """Renderer of sequences with random bodies, clothes, motion, cameras, light, backgrounds and occluders."""

    body: Body
    joints: np.ndarray  # (n, 17, 3) m: motion as of lib/data/motion_files.py
    start: np.ndarray  # of its clips
    frames: list  # of images that may be backgrounds, blurred

    def draw(self, frames, seed):
        """Return a random `Sequence`; torch's global generator is not touched."""
        rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _ in range(_TRIES):
                posed = self.body.pose(rng.standard_normal(COEFFICIENTS), self._motion(frames, rng))
                rotation, offset, focal, half = (
                    value[0].numpy() for value in draw_cameras(torch.from_numpy(posed.joints)[None])
                )
                size = tuple(int(side) for side in np.rint(2 * half * _SIDE))
                joints, focal = posed.joints @ rotation.T + offset, float(focal) * _SIDE
                keypoints = project(joints, focal, np.array(size) / 2)
                if _good(keypoints, size):
                    break
        colours = dress(self.body, rng)
        light = rng.standard_normal(3) * [1, 0.5, 0.7] + [0, -0.8, -0.6]
        light = (light / np.linalg.norm(light)).astype(np.float32)
        behind, before = background(size, self.frames, rng), occluders(keypoints, size, rng)
        camera = Camera(rng)
        images, visible = [], []
        for vertices, normals, places, points in zip(posed.vertices, posed.normals, joints, keypoints):
            drawn = render(
                (vertices @ rotation.T + offset).astype(np.float32),
                normals @ rotation.T,
                self.body.faces,
                colours,
                self.body.segment,
                focal,
                light,
                behind,
            )
            image = drawn.image
            if before is not None:
                covered = before[..., 3] > 0
                image = np.where(covered[..., None], before[..., :3], image)
                drawn.segments[covered], drawn.depth[covered] = THING, 0
            images.append(camera(image))
            visible.append(_VISIBILITY(drawn.segments, drawn.depth, places, points))
        return Sequence(images, joints, keypoints, np.array(visible), focal)

    def _motion(self, frames, rng):
        """Return joints (frames, 17, 3) m of a segment of a random clip."""
        step = round(MOTION_FPS / FPS)
        span = step * (frames - 1) + 1
        clip = rng.choice(np.flatnonzero(np.diff(self.start) >= span))
        first = rng.integers(self.start[clip], self.start[clip + 1] - span + 1)
        return self.joints[first : first + span : step]


def _good(keypoints, size):
    inside = ((keypoints >= 0) & (keypoints < size)).all(-1).sum(1)
    spread = np.sqrt(np.square(keypoints - keypoints.mean(1, keepdims=True)).sum(-1).mean())
    return inside.min() >= _IN_IMAGE and _SMALLEST <= spread
