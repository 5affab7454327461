"""The default detector: MoveNet finds people now and then, BlazePose sees the joints of each in every frame."""

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from lib.body.layouts import LAYOUTS, to_h36m
from lib.system import usable_cores
from lib.video.detection import Detection, Detector, blazepose, movenet
from lib.video.detection.blazepose import BlazePose, Square
from lib.video.detection.movenet import MoveNet
from lib.video.detection.people import BODY, HIPS, apart, coco, distinct, overlap, size, upwards
from lib.video.detection.search import near, quarters_of, views

_SEARCH_EVERY = 0.25  # s
_OTHER_VIEWS = 2  # that are searched beside the whole image
_SOUGHT = 1.0  # s that someone lost is looked for about where they were
_STAY = 0.13  # s, exactly there
_REACH = 1.25 * 1.25  # of the distance from the hips to the furthest joint: half the side of BlazePose's square
_SURE = 0.15  # confidence of a joint that it must hold

_NEW_SCORE, _NEW_PRESENCE = 0.25, 0.9  # what MoveNet and BlazePose must say of someone new
_PRESENCE = 0.4  # BlazePose of someone known

# How far people may be `apart`:
_AGREED = 0.13  # the two networks of the same person
_MOVED = 0.25  # a person from frame to frame
_STRAYED = 0.3  # a person who was lost
_KNOWN = 0.2  # what is found from someone known: it is them
_SAME = 0.1  # two who are one
_COVERED = 0.7  # intersection over union of their boxes: so are these

_HOLD = 1.25  # times as large, someone new must be to take the place of someone who is followed

log = logging.getLogger(__name__)
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
        self.warnings: list[str] = []
        self._people, self._turn = [], 0
        self._promising = []  # the view in which someone was found about whom the two networks do not agree yet
        self._searched = self._last = None  # s, of the last frame with other views; of the last frame
        self._threads = ThreadPoolExecutor(usable_cores(), "detect")

    def detect(self, frame, seconds, number):
        """Follow and search side by side, then begin with those who are new."""
        looking = self._search(frame, seconds)
        self._together(self._follow, [(person, frame, seconds) for person in self._people])
        found = {view: task.result() for view, task in looking.items()}
        self._begin([pose for poses in found.values() for pose in poses], frame, seconds)
        if found:
            self._promising = self._unexplained(found)
        self._last = seconds
        self._people = [person for person in self._people if seconds - person.seen <= _SOUGHT]
        self._people.sort(key=lambda person: (person.seen < seconds, person.since))
        self._people = distinct(self._people, lambda person, other: apart(person.joints, other.joints) < _SAME)
        return [person.detection() for person in self._people if person.seen == seconds]

    def close(self):
        self._threads.shutdown()

    def _search(self, frame, seconds):
        """Return {view: task that finds its `Pose`s}: all views of the first frame; then the whole image and a few others.

        The whole image is then also searched turned as those who are followed are, and so is the view in which someone
        may be. While someone is missing the whole image is searched in every frame, while everyone is, that view too.
        """
        whole, others = views(frame.shape[1], frame.shape[0])
        if self._searched is None:
            chosen, self._searched = [whole, *others], seconds
        elif seconds - self._searched >= _SEARCH_EVERY:
            turned = [whole._replace(quarters=quarters_of(person.joints)) for person in self._people]
            next_ones = [others[(self._turn + n) % len(others)] for n in range(_OTHER_VIEWS)]
            chosen = [whole, *turned, *self._promising, *next_ones]
            self._turn, self._searched = self._turn + _OTHER_VIEWS, seconds
        elif not self._people:
            chosen = [whole, *self._promising]
        else:
            missed = any(person.seen < self._last for person in self._people)
            chosen = [whole] if missed else []
        return {view: self._threads.submit(view.find, self._finder, frame) for view in dict.fromkeys(chosen)}

    def _unexplained(self, found):
        """Return of {view: `Pose`s} the view, in a list, of the best pose that may be someone new, or nothing."""
        if len(self._people) >= self._most:
            return []
        pairs = [(pose, view) for view, poses in found.items() for pose in poses if pose.score >= _NEW_SCORE]
        new = [pair for pair in pairs if not any(_one(pair[0], person) for person in self._people)]
        return [max(new, key=lambda pair: pair[0].score)[1]] if new else []

    def _follow(self, person, frame, seconds):
        """See a person where they were, or else about there, if need be with MoveNet's joints."""
        before = person.joints
        if seconds - person.seen <= _STAY:
            joints, presence = self._see(before, frame)
            if presence >= _PRESENCE and apart(coco(joints), before) < _MOVED:
                person.see(joints, seconds)
                return
        for pose in near(before, *frame.shape[1::-1]).find(self._finder, frame):
            if apart(pose.joints, before) < _STRAYED:
                joints, presence = self._see(pose.joints, frame)
                agreed = presence >= _PRESENCE and apart(coco(joints), pose.joints) < _AGREED
                person.see(joints if agreed else pose.joints, seconds)
                person.since = seconds
                return

    def _begin(self, poses, frame, seconds):
        """Begin with those of the `Pose`s that are new people; if there are too many, the largest are followed."""
        seen = [person for person in self._people if person.seen == seconds]
        poses = [pose for pose in poses if pose.score >= _NEW_SCORE and not any(_one(pose, person) for person in seen)]
        poses = distinct(sorted(poses, key=lambda pose: -pose.score), _one)
        if len(self._people) + len(poses) > self._most and not self.warnings:
            self.warnings.append(f"more than {self._most} people are in view: the largest are followed")
            log.warning(self.warnings[0])
        full = len(self._people) >= self._most
        least = _HOLD * min(size(person.joints) for person in self._people) if full else 0
        poses = [pose for pose in poses if size(pose.joints) > least]
        poses = sorted(poses, key=lambda pose: -size(pose.joints))[: self._most]
        ranked = [(_HOLD * size(person.joints), person) for person in self._people]
        for pose, (joints, presence) in zip(poses, self._together(self._see, [(p.joints, frame) for p in poses])):
            if presence >= _NEW_PRESENCE and apart(coco(joints), pose.joints) < _AGREED:
                ranked.append((size(pose.joints), _Person(joints, seconds)))
        ranked.sort(key=lambda pair: -pair[0])
        self._people = [person for _, person in ranked[: self._most]]

    def _see(self, joints, frame):
        return self._network.joints(frame, _square(joints))

    def _together(self, call, arguments):
        return [task.result() for task in [self._threads.submit(call, *each) for each in arguments]]


class _Person:
    """Someone who is followed."""

    def __init__(self, joints, seconds):
        self.since = seconds  # they are followed without a break
        self.see(joints, seconds)

    def see(self, joints, seconds):
        """Take joints (33, 3) of BlazePose or (17, 3) of MoveNet as theirs."""
        self._joints, self.joints, self.seen = joints, coco(joints), seconds
        self.box = np.concatenate([joints[:, :2].min(0), joints[:, :2].max(0)])

    def detection(self):
        keypoints = to_h36m(self._joints, _LAYOUT[len(self._joints)])
        return Detection(keypoints, self.box, float(self.joints[BODY, 2].mean()))


def _one(pose, other):
    """Whether two are found to be one person, be it that one of the two is seen wrongly."""
    return apart(pose.joints, other.joints) < _KNOWN or overlap(pose.box, other.box) > _COVERED


def _square(joints):
    """Return the `Square` in which the person with COCO's joints is upright."""
    hips, sure = joints[HIPS, :2].mean(0), joints[:, 2] > _SURE
    reach = np.linalg.norm((joints[sure] if sure.any() else joints)[:, :2] - hips, axis=1).max()
    return Square(hips, upwards(joints), max(1.0, _REACH * float(reach)))
