"""Photographs of rendered scenes: motion blur, and what a camera and compression do to an image."""

import cv2
import numpy as np

from lib.data.synthetic.light import cast_shadow
from lib.data.synthetic.render import FARTHEST, rasterise
from lib.data.synthetic.scene import Camera
from lib.data.synthetic.surroundings import soften

_FINE = 2  # pixels of the drawn image along the side of one of the result
_MOVING, _TIMES = 0.2, 3  # share of images with motion blur; images that make one up
_EXPOSURE = 0.5  # of the time from frame to frame, at most
_SMEAR = 5.0  # px, longest path of a point in an image
_MEAN, _ADAPTED = (0.3, 0.6), 0.7  # brightness that a camera aims at; how far it gets there, as a power
_GAIN, _TINT, _GAMMA = 0.15, 0.06, 0.15  # std of its errors, as powers of e
_SMALL, _SMALLEST = 0.25, 3.0  # share of crops that were enlarged; how many times at most


def photograph(scene, faces, behind, far, speed, rng):
    """Return a photograph (H, W, 3) uint8 of a `Scene`.

    Args:
        faces: (T, 3) of people.
        behind: (H, W, 3), 0 to 1, the surroundings; far: (H, W) m, their depth.
        speed: px per frame, of what moves fastest.
        rng: NumPy generator.
    """
    behind = behind.copy()
    for person in scene.people:
        cast_shadow(behind, far, scene, person, rng)
    behind = soften(behind, rng)
    meshes = [(person.now, person.later, faces, person.colours, person.normals) for person in scene.people]
    if scene.things:
        vertices, normals, faces, colours = scene.things
        meshes.append((vertices, vertices, faces, colours, normals))
    see, later = scene.camera.see, scene.camera.later
    lit = [
        (see(now), later(see(then)), faces, np.clip(colours * scene.light(normals), 0, 1))
        for now, then, faces, colours, normals in meshes
    ]
    times = [0.0]
    if rng.random() < _MOVING:
        times = np.linspace(-0.5, 0.5, _TIMES) * min(rng.uniform(0.1, _EXPOSURE), _SMEAR / max(speed, 1e-6))
    image = sum(_at_time(scene.camera, lit, behind, far, time) for time in times) * np.float32(1 / len(times))
    return _record(cv2.resize(image, scene.camera.size, interpolation=cv2.INTER_AREA), rng)


def _at_time(camera, meshes, behind, far, time):
    """Return the image (_FINE H, _FINE W, 3) at a time, in frames."""
    size = tuple(_FINE * side for side in camera.size)
    if time:
        x, y = camera.pixels - np.float32(time) * camera.motion_of_still(far) - np.float32(0.5)
        behind = cv2.remap(behind, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    image = cv2.resize(behind, size, interpolation=cv2.INTER_LINEAR)
    depth = np.full(image.shape[:2], FARTHEST, np.float32)
    for now, later, faces, colours in meshes:
        corners = now + np.float32(time) * (later - now) if time else now
        rasterise(corners, faces, colours, image, depth, camera.field)
    return image


def _record(image, rng):
    """Return the image (H, W, 3) uint8 that a camera records of one, (H, W, 3) float32."""
    adapted = (rng.uniform(*_MEAN) / max(float(image.mean()), 1e-2)) ** _ADAPTED
    gain = adapted * np.exp(_GAIN * rng.standard_normal() + _TINT * rng.standard_normal(3))
    image = cv2.pow(np.clip(image * gain.astype(np.float32), 0, 1), float(np.exp(_GAMMA * rng.standard_normal())))
    if rng.random() < _SMALL:
        height, width = image.shape[:2]
        times = rng.uniform(1, _SMALLEST)
        small = (max(1, round(width / times)), max(1, round(height / times)))
        image = cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height))
    return Camera(rng)(image)
