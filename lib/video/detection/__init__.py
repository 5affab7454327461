"""Detection of people and their joints in a frame: the interface of all detectors, and opening one by its name.

The detectors' packages are large; each is imported when its detector is opened.
"""

from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from typing import NamedTuple

import numpy as np

from lib.errors import OPENCV_LIBRARIES, UserError, describe, nearest, needing

DETECTORS = {  # name: module, class, the file that lists its packages
    "accurate": ("lib.video.detection.accurate", "Accurate", "requirements-video.txt"),
    "fast": ("lib.video.detection.fast", "Fast", "requirements-video.txt"),
    "mediapipe": ("lib.video.detection.mediapipe", "MediaPipe", "requirements-detectors.txt"),
    "rtmpose": ("lib.video.detection.rtmpose", "RTMPose", "requirements-detectors.txt"),
    "vitpose": ("lib.video.detection.vitpose", "ViTPose", "requirements-detectors.txt"),
    "mambapose": ("lib.video.detection.mambapose", "MambaPose", "requirements-video.txt"),
    "hrnet": ("lib.video.detection.hrnet", "HRNet", "requirements.txt"),
}
_LIBRARIES = {"mediapipe": f"{OPENCV_LIBRARIES} libegl1 libgles2"}  # of the system, where others than OpenCV's


class Detection(NamedTuple):
    """Detection of one person in one frame."""

    keypoints: np.ndarray  # (17, 3) float32: x, y in px of the upright frame, confidence 0 to 1; Human3.6M's order
    box: np.ndarray  # (4,) float32: x0, y0, x1, y1, px
    score: float  # that it is a person, 0 to 1
    person: int | None = None  # the same in all frames for one person, where the source tracks people
    pose: np.ndarray | None = None  # (17, 3) m, root-relative, camera axes, of a standard body; of detectors that tell


class Detector:
    """Base of the detectors; `with` closes them.

    Attributes:
        warnings: what of the detections a user should know, a line each; may grow with every frame.
    """

    warnings: Sequence[str] = ()

    def detect(self, frame, seconds, number):
        """Return the people in a frame.

        Args:
            frame: (H, W, 3) uint8, RGB, upright, contiguous.
            seconds: the frame's time; frames come in ascending order.
            number: the frame's number from 0.

        Returns:
            A list of `Detection`s, in any order.
        """
        raise NotImplementedError

    def close(self):
        """Release what the detector holds outside of Python; nothing by default."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def open_detector(name, **options):
    """Open the detector of a name.

    Args:
        options: for its class.

    Raises:
        UserError: there is no such detector or option, or one of its packages is missing; else as the class.
    """
    kind = _class(name)
    for option in options:
        if option not in (known := signature(kind).parameters):
            raise UserError(f"the detector {name} has no option {option!r}; it has {', '.join(known)}")
    with _needing(name):
        try:
            return kind(**options)
        except (TypeError, ValueError) as error:
            raise UserError(f"the detector {name} does not take {options}: {describe(error)}") from error


def options_of_detector(name):
    """Return the names of the options that a detector's class takes.

    Raises:
        UserError: there is no such detector, or one of its packages is missing.
    """
    return list(signature(_class(name)).parameters)


def _class(name):
    if name not in DETECTORS:
        raise UserError(f"no detector {name!r}{nearest(name, DETECTORS)}; there are {', '.join(DETECTORS)}")
    module, kind, _ = DETECTORS[name]
    with _needing(name):
        return getattr(import_module(module), kind)


def _needing(name):
    return needing(f"the detector {name}", DETECTORS[name][2], _LIBRARIES.get(name, OPENCV_LIBRARIES))
