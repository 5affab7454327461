"""Who is who: detections of one person get one number through the whole video.

Frame by frame, OC-SORT (arXiv 2203.14360, from the package `trackers`) joins boxes that overlap where a person is
expected. When the video has ended, `link` joins what is left of people who were gone for longer: behind something, or
not found. It compares where they went and how large they are; where several people could be meant, the colours they
wear decide (they change too much with the light to decide alone).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from supervision import Detections, box_iou_batch
from trackers import OCSORTTracker

LOST = 1.0  # s that OC-SORT waits for a person
SHORTEST = 0.25  # s: a shorter track is no person; in clips that are shorter than twice that, half the clip
LINK = 5.0  # s: the longest absence that `link` bridges
_LINK_SPEED = 2.0  # body sizes a second that an absent person may move, and half a size at once
_LINK_RESIZE = 2.5  # times as large or small: someone tucked in a jump stands up again
_WHOLE = 0.5  # s in which who comes from behind something, or goes there, is seen as large as they are
_BOTH = 0.15  # s that both may be there: a person found twice, before the first is let go
_OVERLAP = 0.1  # least intersection over union from frame to frame
_TORSO = [1, 4, 11, 14]  # hips and shoulders
_BINS = (12, 6)  # of hue and saturation


@dataclass
class Track:
    """What is remembered of one track; times in s, places and sizes in px."""

    first: float
    last: float
    begins: np.ndarray  # (3,): x and y of the box's middle at first sight; its longer side, the largest in `_WHOLE`
    ends: np.ndarray  # the same at last sight; a longer side of `_WHOLE` ago counts half
    colours: np.ndarray  # histogram, summed over frames


class Tracker:
    """Numbers people frame by frame.

    Args:
        tracks: {number: Track}, is written to; those that are there ended before the first frame.
        sources: {a source's own number of a person: track number}, is written to.
    """

    def __init__(self, fps, tracks, sources):
        self._sort = OCSORTTracker(
            lost_track_buffer=round(LOST * 30),  # in frames of 1/30 s
            frame_rate=fps,
            minimum_consecutive_frames=1,
            minimum_iou_threshold=_OVERLAP,
        )
        self.tracks, self._sources, self._offset = tracks, sources, 1 + max(tracks, default=-1)
        self._new = []  # detections of the frame before, which had no number yet, and its time

    def update(self, detections, frame, seconds):
        """The track numbers of a frame's `Detection`s, and what is known only now of the frame before.

        OC-SORT numbers someone when it sees them for the second time.

        Args:
            detections: where the source tracks people itself, its tracks are kept.
            frame: (H, W, 3) uint8 RGB.

        Returns:
            Numbers, -1 for none; and a list of (`Detection`, number) of the frame before.
        """
        if any(detection.person is not None for detection in detections):
            numbers = [self._sources.setdefault(detection.person, len(self._sources)) for detection in detections]
        else:
            numbers = self._sorted(detections)
        late = []
        for number, detection in zip(numbers, detections):
            if number >= 0:
                if number not in self.tracks:
                    late += self._first_sight(number, detection, frame)
                self._remember(number, detection, frame, seconds)
        self._new = [(detection, seconds) for number, detection in zip(numbers, detections) if number < 0]
        return numbers, late

    def number_new(self, frame):
        """Return (`Detection`, number) of those in the last frame who had no number yet: they have been seen once."""
        late = []
        for number, (detection, seconds) in enumerate(self._new, 1 + max(self.tracks, default=-1)):
            self._remember(number, detection, frame, seconds)
            late.append((detection, number))
        return late

    def _first_sight(self, number, detection, frame):
        """The new person in the frame before: [(`Detection`, number)], or nothing."""
        overlaps = [box_iou_batch(detection.box[None], before.box[None])[0, 0] for before, _ in self._new]
        if not overlaps or max(overlaps) < _OVERLAP:
            return []
        before, seconds = self._new.pop(int(np.argmax(overlaps)))
        self._remember(number, before, frame, seconds)
        return [(before, number)]

    def _sorted(self, detections):
        boxes = np.array([detection.box for detection in detections], np.float32).reshape(-1, 4)
        found = self._sort.update(
            Detections(
                xyxy=boxes,
                confidence=np.ones(len(boxes), np.float32),
                class_id=np.zeros(len(boxes), int),
                data={"index": np.arange(len(boxes))},
            )
        )
        numbers = [-1] * len(boxes)
        for index, number in zip(found.data.get("index", ()), found.tracker_id if len(found) else ()):
            numbers[int(index)] = int(number) + self._offset if number >= 0 else -1
        return numbers

    def _remember(self, number, detection, frame, seconds):
        x0, y0, x1, y1 = detection.box
        place = np.array([(x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0)])
        track = self.tracks.setdefault(number, Track(seconds, seconds, place.copy(), place, np.zeros(_BINS)))
        if seconds - track.first <= _WHOLE:
            track.begins[2] = max(track.begins[2], place[2])
        place[2] = max(place[2], track.ends[2] * 0.5 ** ((seconds - track.last) / _WHOLE))
        track.last, track.ends = seconds, place
        track.colours += _colours(frame, detection.keypoints)


def link(tracks, least=SHORTEST):
    """{track number: person from 1}, people in order of appearance; tracks shorter than `least` s are left out.

    A track goes on with at most one later one; pairs are chosen so that their likeness is greatest in all.
    """
    kept = sorted((n for n, track in tracks.items() if lasts(track, least)), key=lambda number: tracks[number].first)
    before = _befores([tracks[number] for number in kept])
    people, count = [], 0
    for index in range(len(kept)):
        count += index not in before
        people.append(people[before[index]] if index in before else count)
    return dict(zip(kept, people))


def shortest(times):
    """Return how long, s, tracks of a person last in a video of frames at times (F,) s."""
    return min(SHORTEST, float(times[-1] - times[0]) / 2)


def lasts(track, least):
    """Whether a `Track` lasts `least` s."""
    return track.last - track.first >= least


def _befores(tracks):
    """{index of a track: index of the one that it goes on with}; tracks in order of their first sight."""
    firsts = np.array([track.first for track in tracks])
    pairs = {}
    for a, track in enumerate(tracks):
        start, stop = np.searchsorted(firsts, [track.last - _BOTH, track.last + LINK], "left")
        for b in range(max(a + 1, start), min(stop + 1, len(tracks))):
            if (likeness := _likeness(track, tracks[b])) > 0:
                pairs[a, b] = likeness
    if not pairs:
        return {}
    rows, columns = np.array(list(pairs)).T
    _, group = connected_components(  # pairs of different groups do not share a track; after: columns after the rows
        coo_array((np.ones(len(pairs)), (rows, columns + len(tracks))), shape=(2 * len(tracks),) * 2), directed=False
    )
    before = {}
    for members in _alike(group[rows]):
        above, left = (np.unique(part[members], return_inverse=True) for part in (rows, columns))
        likeness = np.zeros((len(above[0]), len(left[0])))
        likeness[above[1], left[1]] = [pairs[rows[m], columns[m]] for m in members]
        for a, b in zip(*linear_sum_assignment(likeness, maximize=True)):
            if likeness[a, b] > 0:
                before[left[0][b]] = above[0][a]
    return before


def _alike(values):
    """Indices of equal values (n,), an array for each value."""
    order = np.argsort(values, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(values[order])) + 1)


def _likeness(before, after):
    """How well track `after` goes on with `before`: 0 where it cannot, else up to 1."""
    gap = after.first - before.last
    if not -_BOTH <= gap <= LINK:
        return 0.0
    size = max(before.ends[2], after.begins[2])
    moved = np.linalg.norm(after.begins[:2] - before.ends[:2]) / size
    resized = size / max(1e-6, min(before.ends[2], after.begins[2]))
    colours = np.minimum(_share(before.colours), _share(after.colours)).sum()
    if moved > 0.5 + _LINK_SPEED * max(gap, 0) or resized > _LINK_RESIZE:
        return 0.0
    return float((1 + colours) / (2 + 2 * abs(gap) / LINK))


def _share(histogram):
    return histogram / max(1e-6, histogram.sum())


def _colours(frame, keypoints):
    """Histogram (12, 6) of hue and saturation where the trunk is."""
    corners = keypoints[_TORSO, :2]
    low = np.clip(corners.min(0).astype(int), 0, None)
    high = np.minimum(corners.max(0).astype(int) + 1, frame.shape[1::-1])
    if (high - low < 2).any():
        return np.zeros(_BINS)
    patch = cv2.cvtColor(frame[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2HSV)
    return cv2.calcHist([patch], [0, 1], None, _BINS, [0, 180, 0, 256]).astype(float)
