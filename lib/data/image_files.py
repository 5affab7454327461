"""Reading images from disk, so that a damaged one is known before training or scoring sees it."""

from pathlib import Path

import cv2
import numpy as np


class UnreadableImage(Exception):
    """An image file that is missing, truncated, no image, or not of the size that its annotation says."""


def read_image(path, size=None):
    """Return an image (H, W, 3) uint8, RGB.

    Args:
        size: (width, height) px that it is to have; None: any.

    Raises:
        UnreadableImage: it cannot be read whole; OpenCV 5 gives no part of a truncated JPEG, as versions before do.
    """
    try:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise UnreadableImage(error.strerror.lower()) from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None
    if image is None:
        raise UnreadableImage("truncated or no image" if len(data) else "empty")
    found = image.shape[1], image.shape[0]
    if size is not None and found != tuple(size):
        raise UnreadableImage(f"{found[0]} x {found[1]} px, {size[0]} x {size[1]} are annotated")
    return image
