"""Colours of flow and depth, for people to look at."""

import cv2
import numpy as np


def flow_colours(flow, fastest):
    """Return flow (2, H, W) as (H, W, 3) uint8: hue tells the direction, saturation the speed; what rests is white.

    Red moves to the right, yellow-green down, cyan to the left, violet up. fastest: px, speed of the strongest colours.
    """
    speed, angle = cv2.cartToPolar(flow[0], flow[1], angleInDegrees=True)
    hsv = np.stack([angle, np.clip(speed / fastest, 0, 1), np.ones_like(speed)], axis=-1)
    return np.rint(255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).astype(np.uint8)


def flow_wheel(radius):
    """Return the colours of all directions and speeds, (2 * radius + 1, the same, 3) uint8; the rim is the fastest."""
    down, right = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float32)
    return flow_colours(np.stack([right, down]), radius)


def depth_colours(depth, far, near):
    """Return depth (H, W), near is large, as (H, W, 3) uint8: dark is far, bright is near."""
    grey = np.clip((depth - far) / max(near - far, 1e-6), 0, 1)
    coloured = cv2.applyColorMap(np.rint(255 * grey).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB)
