"""Surroundings of a rendered person: backgrounds, occluders, and the imaging errors of a camera."""

import cv2
import numpy as np

_BLUR = (0.02, 0.06)  # of the longer side: people in a blurred photograph must not be detected
_SPOTS = (4, 40)  # blocks along a side of a synthetic background
_FROM_FRAMES = 0.6  # share of backgrounds that are blurred frames
_OCCLUDED = 0.35  # share of sequences with occluders
_NOISE = (0.0, 0.03)  # std of a camera's noise
_SOFT = 0.7  # px, std of its blur at most
_QUALITY = (40, 95)  # of JPEG


def background(size, frames, rng):
    """Return an image (H, W, 3) float32, 0 to 1, of soft structure with a floor and edges.

    Args:
        size: (width, height) px.
        frames: images (H, W, 3) uint8 that may be blurred.
        rng: NumPy generator.
    """
    if len(frames) and rng.random() < _FROM_FRAMES:
        frame = frames[rng.integers(len(frames))]
        side = rng.uniform(0.4, 1.0)
        high, wide = (max(8, int(length * side)) for length in frame.shape[:2])
        y, x = (rng.integers(whole - part + 1) for whole, part in zip(frame.shape[:2], (high, wide)))
        image = cv2.resize(frame[y : y + high, x : x + wide], size, interpolation=cv2.INTER_AREA) / np.float32(255)
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*_BLUR) * max(size))
    else:
        blocks = rng.random((*rng.integers(*_SPOTS, 2), 3), np.float32)
        image = cv2.resize(blocks, size, interpolation=cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_NEAREST)
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.002, 0.02) * max(size))
        image = image.mean() + rng.uniform(0.2, 0.8) * (image - image.mean(2, keepdims=True) * rng.uniform(0, 1))
    horizon = int(size[1] * rng.uniform(0.3, 0.9))
    image[horizon:] = 0.5 * image[horizon:] + 0.5 * rng.random(3, np.float32)
    for _ in range(rng.integers(0, 8)):  # furniture and frames: straight edges
        _box(image, size, rng, 0.5)
    return np.clip(image, 0, 1)


def occluders(joints, size, rng):
    """Return occluders of a person: an image (H, W, 4) float32 whose last channel is their mask; or None.

    Args:
        joints: (F, 17, 2) px.
        size: (width, height) px.
    """
    if rng.random() >= _OCCLUDED:
        return None
    layer = np.zeros((size[1], size[0], 4), np.float32)
    low, high = joints.min((0, 1)), joints.max((0, 1))
    for _ in range(rng.integers(1, 3)):
        centre = low + (high - low) * rng.uniform([0.0, 0.25], [1.0, 1.1])
        half = np.maximum(2, (high - low).max() * rng.uniform(0.08, 0.3, 2))
        mask = np.zeros((size[1], size[0]), np.uint8)
        box = (centre.tolist(), (2 * half).tolist(), float(rng.uniform(-20, 20)))
        if rng.random() < 0.7:
            cv2.fillPoly(mask, [cv2.boxPoints(box).astype(np.int32)], 1)
        else:
            cv2.ellipse(mask, box, 1, -1)
        texture = cv2.resize(rng.random((*rng.integers(1, 12, 2), 3), np.float32), size)
        colour = rng.random(3, np.float32) + rng.uniform(0, 0.5) * (texture - 0.5)
        layer[mask > 0, :3] = np.clip(colour, 0, 1)[mask > 0]
        layer[mask > 0, 3] = 1
    return layer


class Camera:
    """Camera with blur, noise and compression, the same in all its images."""

    def __init__(self, rng):
        self._rng, self._noise, self._soft = rng, rng.uniform(*_NOISE), rng.uniform(0.2, _SOFT)
        self._quality = int(rng.integers(*_QUALITY))

    def __call__(self, image):
        """Return the image (H, W, 3) uint8 that the camera records of a rendered one, (H, W, 3) float32."""
        image = cv2.GaussianBlur(image, (0, 0), self._soft)
        image = image + self._noise * self._rng.standard_normal(image.shape, np.float32)
        pixels = np.clip(image * 255, 0, 255).astype(np.uint8)
        _, coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])


def _box(image, size, rng, opaque):
    x, y = rng.integers(0, size[0]), rng.integers(0, size[1])
    wide, high = (int(length * rng.uniform(0.02, 0.4)) + 1 for length in size)
    part = image[y : y + high, x : x + wide]
    part[:] = (1 - opaque) * part + opaque * rng.random(3, np.float32)
