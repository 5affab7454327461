"""Detector: MediaPipe's pose landmarker for several people; one landmarker tracks each person, another finds new ones.

MediaPipe scales its whole input down to 224 px to find people and drops people when it is asked for several; so each
person is followed in a window of their own, which makes small people large, and square tiles of the frame are searched
in turn for people who are not tracked.
"""

import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cv2
import numpy as np

from lib.body.layouts import to_h36m
from lib.errors import UserError, describe
from lib.files import PROJECT, require_file
from lib.video.detection import Detection, Detector

MODEL = PROJECT / "demo" / "pose_landmarker_full.task"

_SEARCH_EVERY = 4  # frames, while no person is missing
_SEARCH_TAKES = 2  # frames, in which people are followed meanwhile
_PATIENCE = 0.5  # s that a window is watched for a person who is lost, if they were followed for as long before
_DOUBT = 0.1  # s, for one who was only found
_WINDOW = 3.0  # side of a window, in units of the person's longer side
_SMALLEST_WINDOW = 96  # px
_OFF_CENTRE = 0.2  # of the window's side, before it is moved
_RESIZE = 1.4
_JUMP = 0.6  # of the person's longer side in one frame: it is someone else
_SAME_PERSON = 0.2  # mean distance of the middles of pairs of joints, in units of the longer side
_BODY = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]  # MediaPipe's shoulders to ankles, left and right
_LEAST_VISIBLE = 0.3  # mean visibility of the body
_GREY = 114


class MediaPipe(Detector):
    """Detector by MediaPipe's `PoseLandmarker`.

    Args:
        pose_model: its .task file.
        people: the most people that are followed at a time.
        confidence: least probability that a person is there.

    Raises:
        UserError: the file is missing or not such a model.
    """

    def __init__(self, pose_model=MODEL, people=6, confidence=0.5):
        with quiet():
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision

        self._vision, self._wrapped = vision, mediapipe.Image
        self._format = mediapipe.ImageFormat.SRGB
        self._options = {
            "base_options": BaseOptions(model_asset_buffer=require_file(pose_model).read_bytes()),
            "min_pose_detection_confidence": confidence,
            "min_pose_presence_confidence": confidence,
            "min_tracking_confidence": confidence,
        }
        self._people = people
        self._free, self._followers = [], []
        self._tile, self._stamp = 0, -2
        self._search = None  # under way: number and time of its frame, its task
        self._threads = ThreadPoolExecutor(os.cpu_count(), "follow")
        self._searcher = ThreadPoolExecutor(1, "search")
        try:
            with quiet():
                self._scout = self._open(vision.RunningMode.IMAGE, num_poses=2)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{pose_model}: is not a pose landmarker of MediaPipe ({describe(error)})") from error

    def detect(self, frame, seconds, number):
        with quiet():
            return self._detect(frame, seconds, number)

    def _detect(self, frame, seconds, number):
        """Track people and search concurrently; the results of a search may wait while someone is seen."""
        self._stamp = max(self._stamp + 2, round(seconds * 1000))
        if not self._search:
            self._start_search(frame, seconds, number)
        for task in [self._threads.submit(f.follow, frame, seconds, self._stamp) for f in self._followers]:
            task.result()
        kept = []
        for follower in sorted(self._followers, key=lambda follower: follower.lost):  # the lost ones last
            if any(follower.same(other.pose) for other in kept) or follower.given_up(seconds):
                self._free.append(follower.landmarker)
            else:
                kept.append(follower)
        self._followers = kept
        nobody = all(follower.lost for follower in self._followers)
        if self._search and (nobody or number - self._search[0] >= _SEARCH_TAKES):
            self._meet_found()
        return [follower.detection() for follower in self._followers if follower.seen == seconds]

    def close(self):
        self._threads.shutdown()
        self._searcher.shutdown()
        for landmarker in (self._scout, *self._free, *(follower.landmarker for follower in self._followers)):
            landmarker.close()
        self._free, self._followers = [], []

    def _start_search(self, frame, seconds, number):
        """Start a search: in all tiles of the first frame, later in one in turn, at intervals or when someone is missing."""
        tiles = _tiles(frame)
        if self._tile:
            if number % _SEARCH_EVERY and not self._misses_someone():
                return
            tiles = [tiles[self._tile % len(tiles)]]
        self._tile += 1
        known = [follower.box() for follower in self._followers if not follower.lost]
        self._search = number, seconds, self._searcher.submit(self._find, frame, tiles, known)

    def _misses_someone(self):
        return not self._followers or any(follower.lost for follower in self._followers)

    def _find(self, frame, tiles, known):
        """Return the poses in some tiles; known: boxes (4,) of known people, who are painted over."""
        if known:
            frame = frame.copy()
            for x0, y0, x1, y1 in np.clip(known, 0, None).astype(int):
                frame[y0:y1, x0:x1] = _GREY
        return [pose for tile in tiles for pose in _poses(self._scout.detect(self._image(frame, tile)), tile)]

    def _meet_found(self):
        """Assign the poses that a search found to lost people, to tracked people or to new ones."""
        _, seconds, task = self._search
        self._search = None
        for pose in task.result():
            near = [follower for follower in self._followers if follower.same(pose)]
            if near and all(follower.lost and follower.seen < seconds for follower in near):
                near[0].found(pose, seconds)
            if not near and len(self._followers) < self._people:
                landmarker = self._free.pop() if self._free else self._open(self._vision.RunningMode.VIDEO, num_poses=1)
                follower = _Follower(landmarker, self._image)
                follower.found(pose, seconds)
                self._followers.append(follower)

    def _open(self, mode, num_poses):
        options = self._vision.PoseLandmarkerOptions(running_mode=mode, num_poses=num_poses, **self._options)
        return self._vision.PoseLandmarker.create_from_options(options)

    def _image(self, frame, window):
        """Return a square of the frame, black outside of it."""
        x0, y0, side = window
        height, width = frame.shape[:2]
        left, top, right, bottom = max(0, -x0), max(0, -y0), max(0, x0 + side - width), max(0, y0 + side - height)
        inside = frame[max(0, y0) : y0 + side, max(0, x0) : x0 + side]
        if left or top or right or bottom:
            inside = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_CONSTANT)
        return self._wrapped(image_format=self._format, data=np.ascontiguousarray(inside))


@contextmanager
def quiet():
    """Discard what native code writes to the terminal: MediaPipe's messages mean nothing to users."""
    if sys.stderr is None:  # closed: another file may have its number
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _Follower:
    """Tracker of one person, by a search at the last position."""

    def __init__(self, landmarker, image):
        self.landmarker, self._image = landmarker, image
        self.pose = self.window = None
        self.first = None  # s, when they were met
        self.seen, self.lost = -math.inf, False  # s; whether the last frame did not show them

    def found(self, pose, seconds):
        self.first = seconds if self.first is None else self.first
        self.pose, self.seen, self.lost = pose, seconds, False

    def given_up(self, seconds):
        return seconds - self.seen > min(_PATIENCE, _DOUBT + self.seen - self.first)

    def follow(self, frame, seconds, stamp):
        moved, self.lost = self._aim(), True
        for again in range(1 + moved):  # the landmarker first looks where the person was in the window before
            result = self.landmarker.detect_for_video(self._image(frame, self.window), stamp + again)
            for pose in _poses(result, self.window):
                if self._continues(pose, seconds):
                    self.found(pose, seconds)
                    return

    def same(self, pose):
        """Return whether a pose (33, 3) is this person's, even with left and right swapped."""
        middles = [p[_BODY, :2].reshape(-1, 2, 2).mean(1) for p in (pose, self.pose)]
        distance = np.linalg.norm(middles[0] - middles[1], axis=-1).mean()
        return distance < _SAME_PERSON * max(_size(pose), _size(self.pose))

    def box(self):
        """Return x0, y0, x1, y1 px."""
        return np.concatenate([self.pose[:, :2].min(0), self.pose[:, :2].max(0)])

    def detection(self):
        return Detection(
            to_h36m(self.pose, "mediapipe33"),
            self.box().astype(np.float32),
            float(self.pose[_BODY, 2].mean()),
        )

    def _continues(self, pose, seconds):
        centre, before = pose[_BODY, :2].mean(0), self.pose[_BODY, :2].mean(0)
        return np.linalg.norm(centre - before) < _JUMP * max(_size(pose), _size(self.pose))

    def _aim(self):
        """Move the window if the person has come near its border; return whether it was moved."""
        side = max(_SMALLEST_WINDOW, _WINDOW * _size(self.pose))
        centre = self.box().reshape(2, 2).mean(0)
        if self.window is not None:
            old_centre, old_side = self._aimed_at
            near = np.abs(centre - old_centre).max() < _OFF_CENTRE * old_side
            if near and 1 / _RESIZE < side / old_side < _RESIZE:
                return False
        self._aimed_at = centre, side
        moved = self.window is not None
        x0, y0 = (centre - side / 2).astype(int)
        self.window = x0, y0, int(side)
        return moved


def _poses(result, window):
    """Return poses (33, 3) of a result in px of the frame: x, y, visibility; without those too faint."""
    x0, y0, side = window
    found = []
    for landmarks in result.pose_landmarks:
        pose = np.array([(point.x, point.y, point.visibility) for point in landmarks])
        pose[:, :2] = pose[:, :2] * side + (x0, y0)
        if pose[_BODY, 2].mean() >= _LEAST_VISIBLE:
            found.append(pose)
    return found


def _size(pose):
    """Return the longer side of a pose's box, px."""
    return np.ptp(pose[:, :2], axis=0).max()


def _tiles(frame):
    """Return the largest squares (x0, y0, side) that fit, overlapping by half; in portrait format also one around the image."""
    height, width = frame.shape[:2]
    side = min(height, width)
    count = 1 + math.ceil((max(height, width) - side) / (side / 2))
    starts = np.linspace(0, max(height, width) - side, count).astype(int).tolist()
    if width >= height:
        return [(start, 0, side) for start in starts]
    return [(-(height - width) // 2, 0, height), *((0, start, side) for start in starts)]
