"""Fast detector: MoveNet alone, in every frame; its cost does not depend on the number of people."""

from lib.body.layouts import to_h36m
from lib.video.detection import Detection, Detector, movenet
from lib.video.detection.movenet import MoveNet
from lib.video.detection.people import apart, distinct

_SIDE = 384  # px
_NEW, _KNOWN = 0.25, 0.2  # score that people need; who were there in the frame before
_NEAR = 0.3  # how far apart they are from where they were
_SAME = 0.12  # two that are one


class Fast(Detector):
    """Detector of up to six upright people.

    Args:
        det_model: file of MoveNet multipose.

    Raises:
        UserError: the file is missing, damaged or another model.
    """

    def __init__(self, det_model=movenet.MODEL):
        self._network, self._before = MoveNet(det_model), []

    def detect(self, frame, seconds, number):
        poses = [pose for pose in self._network.find(frame, _SIDE, _KNOWN) if pose.score >= _NEW or self._knows(pose)]
        self._before = distinct(poses, lambda pose, other: apart(pose.joints, other.joints) < _SAME)
        return [Detection(to_h36m(pose.joints, "coco17"), pose.box, pose.score) for pose in self._before]

    def _knows(self, pose):
        return any(apart(pose.joints, before.joints) < _NEAR for before in self._before)
