"""Panels of cues: a frame beside its flow, coloured by direction with a wheel as legend, and its depth."""

import cv2
import numpy as np

from lib.model.cues.colours import depth_colours, flow_colours, flow_wheel

_NARROWEST = 256  # px, of a panel; smaller ones are enlarged
_CAPTION, _LETTERS = 22, 0.42  # px; of Hershey's height
_BACK, _TEXT = (30, 34, 42), (236, 233, 224)  # RGB
_LOOKED_AT = 40  # frames, for the range of colours
_FASTEST, _FAR_AND_NEAR = 0.995, (0.01, 0.99)  # quantiles that get the strongest colours
_LEAST_MOTION = 1.0  # px
_WHEEL = 0.11  # of the panel's shorter side: the wheel's radius


class CuePanels:
    """Panels of a video's frames and cues, side by side; the same colour means the same in all frames.

    Args:
        cues: `lib.model.cues.store.Cues`.

    Attributes:
        size: (width, height) px of the whole.
    """

    def __init__(self, cues):
        self._cues = cues
        height, width = next(iter(cues.arrays.values())).shape[-2:]
        factor = max(1, -(-_NARROWEST // width))
        self._panel = factor * width, factor * height
        self.size = self._panel[0] * (1 + len(cues.arrays)), self._panel[1] + _CAPTION
        if "flow" in cues.arrays:
            self._fastest = max(
                _LEAST_MOTION, np.quantile(np.linalg.norm(_some(cues.arrays["flow"]), axis=1), _FASTEST)
            )
        if "depth" in cues.arrays:
            self._far, self._near = np.quantile(_some(cues.arrays["depth"]), _FAR_AND_NEAR)

    def draw(self, number, rgb):
        """Return the panels (height, width, 3) uint8 of frame `number`, whose image is `rgb` (any size), uint8 RGB."""
        panels = [self._captioned(rgb, f"frame {number}")]
        for cue, array in self._cues.arrays.items():
            panel = getattr(self, f"_{cue}")(array[number].astype(np.float32))
            panels.append(self._captioned(panel, f"{cue}: {self._cues.estimators[cue]['name']}"))
        return np.concatenate(panels, axis=1)

    def _flow(self, flow):
        image = self._fitted(flow_colours(flow, self._fastest))
        radius = max(12, round(_WHEEL * min(self._panel)))
        wheel = flow_wheel(radius)
        inside = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius
        corner = image[-2 * radius - 7 : -6, 6 : 2 * radius + 7]
        corner[inside] = wheel[inside]
        middle = 6 + radius, image.shape[0] - 7 - radius
        cv2.circle(image, middle, radius, _BACK, 1, cv2.LINE_AA)
        _write(image, f"{self._fastest:.3g} px", (2 * radius + 12, image.shape[0] - 10), _BACK)
        return image

    def _depth(self, depth):
        image = self._fitted(depth_colours(depth, self._far, self._near))
        bar = cv2.resize(depth_colours(np.linspace(0, 1, 96, dtype=np.float32)[None], 0, 1), (96, 10))
        bottom = image.shape[0] - 8
        image[bottom - 10 : bottom, 40:136] = bar
        cv2.rectangle(image, (39, bottom - 11), (136, bottom), _TEXT, 1)
        _write(image, "far", (8, bottom), _TEXT)
        _write(image, "near", (142, bottom), _TEXT)
        return image

    def _fitted(self, image):
        return np.ascontiguousarray(cv2.resize(image, self._panel, interpolation=cv2.INTER_LINEAR))

    def _captioned(self, image, text):
        panel = np.empty((self._panel[1] + _CAPTION, self._panel[0], 3), np.uint8)
        panel[:_CAPTION] = _BACK
        panel[_CAPTION:] = self._fitted(image)
        _write(panel, text, (6, 15), _TEXT)
        return panel


def _some(array):
    """Return some maps of an array, evenly spaced, float32."""
    return array[:: -(-len(array) // _LOOKED_AT)].astype(np.float32)


def _write(image, text, corner, colour):
    cv2.putText(image, text, corner, cv2.FONT_HERSHEY_DUPLEX, _LETTERS, colour, 1, cv2.LINE_AA)
