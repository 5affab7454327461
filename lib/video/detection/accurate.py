"""The default detector: MoveNet finds people now and then, BlazePose sees the joints of each in every frame."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from lib.video.detection import Detection, Detector, blazepose, movenet
from lib.video.detection.blazepose import BlazePose, Square
from lib.video.detection.joints import LAYOUTS, to_h36m
from lib.video.detection.movenet import MoveNet
from lib.video.detection.people import BODY, HIPS, SHOULDERS, apart, coco, distinct
from lib.video.detection.search import near, views

_SEARCH_EVERY = 0.25  # s
_OTHER_VIEWS = 2  # that are searched beside the whole image
_SOUGHT = 1.0  # s that someone lost is looked for about where they were
_STAY = 0.13  # s, exactly there
_REACH = 1.25 * 1.25  # of the distance from the hips to the furthest joint: half the side of BlazePose's square
_SURE = 0.15  # confidence of a joint that it must hold

_NEW_SCORE, _NEW_PRESENCE = 0.25, 0.8  # what MoveNet and BlazePose must say of someone new
_PRESENCE = 0.4  # BlazePose of someone known

# How far people may be `apart`:
_AGREED = 0.15  # the two networks of the same person
_MOVED = 0.25  # a person from frame to frame
_STRAYED = 0.3  # a person who was lost
_KNOWN = 0.2  # what is found from someone known: it is them
_SAME = 0.1  # two who are one

_LAYOUT = {len(LAYOUTS[name]): name for name in ("mediapipe33", "coco17")}


class Accurate(Detector):
    """Up to `people` people, each followed from frame to frame by the joints of the last.

    Args:
        det_model: file of MoveNet multipose.
        pose_model: file of BlazePose's landmark network, heavy or full.
        people: the most that are followed at a time, the largest.

    Raises:
        UserError: a file is missing, damaged or another model.
    """

    def __init__(self, det_model=movenet.MODEL, pose_model=blazepose.MODEL, people=6):
        self._finder, self._network = MoveNet(det_model), BlazePose(pose_model)
        self._most = people
        self._people, self._searched, self._turn = [], None, 0
        self._threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "detect")

    def detect(self, frame, seconds, number):
        """Follow and search side by side, then begin with those who are new."""
        looking = self._search(frame, seconds)
        self._together(self._follow, [(person, frame, seconds) for person in self._people])
        found = [pose for task in looking for pose in task.result()]
        self._people += self._new(found, frame, seconds)
        present = [person for person in self._people if seconds - person.seen <= _SOUGHT]
        present.sort(key=lambda person: (person.seen < seconds, person.since))
        self._people = distinct(present, lambda person: person.coco, _SAME)
        return [person.detection() for person in self._people if person.seen == seconds]

    def close(self):
        self._threads.shutdown()

    def _search(self, frame, seconds):
        """Return tasks that find `Pose`s: in all views of the first frame; then in the whole image and a few others."""
        whole, others = views(frame.shape[1], frame.shape[0])
        if self._searched is None:
            chosen = [whole, *others]
        elif seconds - self._searched >= _SEARCH_EVERY:
            chosen = [whole, *(others[(self._turn + n) % len(others)] for n in range(_OTHER_VIEWS))]
            self._turn += _OTHER_VIEWS
        else:
            return [] if self._people else [self._threads.submit(whole.find, self._finder, frame)]
        self._searched = seconds
        return [self._threads.submit(view.find, self._finder, frame) for view in chosen]

    def _follow(self, person, frame, seconds):
        """See a person where they were, or else about there, if need be with MoveNet's joints."""
        if seconds - person.seen <= _STAY:
            joints, presence = self._see(person.coco, frame)
            if presence >= _PRESENCE and apart(coco(joints), person.coco) < _MOVED:
                person.joints, person.seen = joints, seconds
                return
        view = near(person.coco, *frame.shape[1::-1])
        for pose in view.find(self._finder, frame):
            if apart(pose.joints, person.coco) < _STRAYED:
                joints, presence = self._see(pose.joints, frame)
                agreed = presence >= _PRESENCE and apart(coco(joints), pose.joints) < _AGREED
                person.joints, person.seen, person.since = joints if agreed else pose.joints, seconds, seconds
                return

    def _new(self, poses, frame, seconds):
        """Return new people among `Pose`s that were found."""
        poses = sorted(poses, key=lambda pose: -pose.score)
        poses = [pose for pose in poses if pose.score >= _NEW_SCORE and not self._knows(pose)]
        poses = distinct(poses, lambda pose: pose.joints, _SAME)
        people = []
        for pose, (joints, presence) in zip(poses, self._together(self._see, [(p.joints, frame) for p in poses])):
            if presence >= _NEW_PRESENCE and apart(coco(joints), pose.joints) < _AGREED:
                people.append(_Person(joints, seconds))
        return people

    def _knows(self, pose):
        return any(apart(pose.joints, person.coco) < _KNOWN for person in self._people)

    def _see(self, joints, frame):
        return self._network.joints(frame, _square(joints))

    def _together(self, call, arguments):
        return [task.result() for task in [self._threads.submit(call, *each) for each in arguments]]


class _Person:
    """Someone who is followed."""

    def __init__(self, joints, seconds):
        self.joints = joints  # (33, 3) of MediaPipe, or COCO's (17, 3)
        self.since = self.seen = seconds  # they are followed without a break; last seen

    @property
    def coco(self):
        return coco(self.joints)

    def detection(self):
        places = self.joints[:, :2]
        box = np.concatenate([places.min(0), places.max(0)])
        return Detection(to_h36m(self.joints, _LAYOUT[len(self.joints)]), box, float(self.coco[BODY, 2].mean()))


def _square(joints):
    """Return the `Square` in which the person with COCO's joints is upright."""
    hips, shoulders = joints[HIPS, :2].mean(0), joints[SHOULDERS, :2].mean(0)
    length = np.linalg.norm(shoulders - hips)
    up = (shoulders - hips) / length if length > 0 else np.array([0.0, -1.0])
    sure = joints[:, 2] > _SURE
    reach = np.linalg.norm((joints[sure] if sure.any() else joints)[:, :2] - hips, axis=1).max()
    return Square(hips, up, max(1.0, _REACH * float(reach)))
