"""Maps from an image to the crop of a person in it, and back.

A place (0.5, 0.5) is the centre of the first pixel, in images and in crops: lengths then scale as sides do, and a place
that is mapped there and back is the same (unbiased data processing, Huang et al., arXiv 1911.07524).
"""

import cv2
import numpy as np

PADDING = 1.25  # of a person's box, in training and in videos, as of ViTPose


def shown_part(boxes, size, padding=PADDING):
    """Return the part of an image that the crop of a box shows: its centre (n, 2) and its width (n,), px of the image.

    Args:
        boxes: (n, 4): x, y of the corner, width, height.
        size: (width, height) of the crop, whose shape the part has.
    """
    return boxes[:, :2] + boxes[:, 2:] / 2, padding * np.maximum(boxes[:, 2], boxes[:, 3] * size[0] / size[1])


def maps_to_crops(centre, width, size, turn=0.0, side=1.0):
    """Return affine maps (..., 2, 3) from places in an image to places in a crop.

    Args:
        centre, width: (..., 2), (...), see `shown_part`.
        size: (width, height) of the crop, px.
        turn: (...), rad, of what the crop shows, clockwise.
        side: (...), -1 for a crop that is mirrored before it is turned, else 1.
    """
    turn, side = np.broadcast_to(turn, np.shape(width)), np.broadcast_to(side, np.shape(width))
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.stack([np.stack([side * cos, -sin], -1), np.stack([side * sin, cos], -1)], -2)
    linear = rotation * (size[0] / np.asarray(width))[..., None, None]
    offset = np.asarray(size) / 2 - np.einsum("...ij,...j->...i", linear, centre)
    return np.concatenate([linear, offset[..., None]], -1)


def mapped(maps, places):
    """Return places (..., K, 2) after maps (..., 2, 3)."""
    return places @ np.swapaxes(maps[..., :2], -1, -2) + maps[..., None, :, 2]


def inverse(maps):
    """Return the maps (..., 2, 3) back."""
    linear = np.linalg.inv(maps[..., :2])
    return np.concatenate([linear, -linear @ maps[..., 2:]], -1)


def cut(image, to_crop, size):
    """Return the crop (height, width, 3) of an image (H, W, 3) by a map (2, 3), bilinear, black beyond the image."""
    by_pixel = to_crop.copy()  # OpenCV counts from the centre of the first pixel
    by_pixel[:, 2] += to_crop[:, :2].sum(1) / 2 - 0.5
    return cv2.warpAffine(image, by_pixel, tuple(size), flags=cv2.INTER_LINEAR)
