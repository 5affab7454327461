"""Detections of a video on disk: written frame by frame, in constant memory, and resumable.

A folder with `times.f64` (seconds of each frame), `rows.bin` (one `ROW`, or `WITH_POSE`, per detection) and `state.json`
(what they are of, how many frames are done and in how many seconds, the tracks and the source's numbers of people, if it
has such, warnings). What was written after the last `save` does not count.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lib.files import atomic_path
from lib.video.track.tracker import Track, lasts, link, shortest

ROW = np.dtype([("frame", "i4"), ("track", "i4"), ("keypoints", "f4", (17, 3))])
WITH_POSE = np.dtype([*ROW.descr, ("pose", "f4", (17, 3))])


class Detections:
    """Detections in a folder, if they are of the same `origin`; else none.

    Args:
        row: `ROW` or `WITH_POSE`.

    Attributes:
        frames: how many are done; spent: seconds that the detector took for them; complete: whether the video has
        ended; tracks: {number: Track}; sources: {the source's own number of a person: track number}; damaged: what is
        missing of the video, in a line, or None; warnings: of the detector, a line each.
    """

    def __init__(self, folder, origin, row=ROW):
        self.folder, self._origin, self._row = Path(folder), origin, row
        self.frames, self.rows, self.complete, self.damaged, self.spent = 0, 0, False, None, 0.0
        self.tracks, self.sources, self.warnings, self._times, self._rows = {}, {}, [], None, None
        state = self._state()
        if state:
            self.frames, self.rows, self.complete = state["frames"], state["rows"], state["complete"]
            self.damaged, self.spent = state["damaged"], state["spent"]
            self.tracks = {int(number): _track(values) for number, values in state["tracks"].items()}
            self.sources, self.warnings = dict(state["sources"]), state["warnings"]

    @property
    def opened(self):
        return self._rows is not None

    def open(self):
        """Open the files to `add` to them; remove those of another origin."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.frames:
            (self.folder / "state.json").unlink(missing_ok=True)
        self._times = self._append("times.f64", self.frames * 8)
        self._rows = self._append("rows.bin", self.rows * self._row.itemsize)

    def add(self, seconds, detections, numbers, late=()):
        """Add one frame's `Detection`s and their track numbers, -1 for none; late: (`Detection`, number) of the last frame."""
        self.add_late(late)
        np.array([seconds]).tofile(self._times)
        self.frames += 1
        self.add_late([(d, n) for d, n in zip(detections, numbers) if n >= 0])

    def add_late(self, late):
        """Add (`Detection`, number) of the last frame."""
        rows = [(self.frames - 1, n, *(getattr(d, name) for name in self._row.names[2:])) for d, n in late]
        np.array(rows, self._row).tofile(self._rows)
        self.rows += len(late)

    def warn(self, lines):
        """Add lines of warnings that are not there yet."""
        self.warnings += [line for line in lines if line not in self.warnings]

    def save(self, complete=False, damaged=None):
        """Save what was added so far; complete: the video has ended; damaged: what is missing of it, or None."""
        self.complete, self.damaged = complete, damaged
        self._rows.flush()
        self._times.flush()
        state = {
            "origin": self._origin,
            "frames": self.frames,
            "rows": self.rows,
            "spent": self.spent,
            "complete": complete,
            "damaged": damaged,
            "sources": list(self.sources.items()),
            "warnings": self.warnings,
            "tracks": {
                number: {k: np.asarray(v).tolist() for k, v in asdict(t).items()} for number, t in self.tracks.items()
            },
        }
        with atomic_path(self.folder / "state.json") as temporary:
            temporary.write_text(json.dumps(state), encoding="utf-8")

    def times(self):
        """Return the times (F,) in seconds."""
        return np.fromfile(self.folder / "times.f64", np.float64, self.frames)

    def people(self):
        """Return {person: numbers (n,) of their entries}, one per frame; and the entries, mapped.

        People have the numbers of the source if it has such, else numbers from 1 in order of appearance.
        """
        if not self.rows:
            return {}, np.empty(0, self._row)
        rows = np.memmap(self.folder / "rows.bin", self._row, "r", shape=(self.rows,))
        least = shortest(self.times())
        if self.sources:
            person_of = {track: person for person, track in self.sources.items() if lasts(self.tracks[track], least)}
        else:
            person_of = link(self.tracks, least)
        known = np.full(1 + max(self.tracks), -1)
        known[list(person_of)] = list(person_of.values())
        people = known[rows["track"]]
        order = np.argsort(people, kind="stable")
        numbers = sorted(set(person_of.values()))
        parts = np.split(order, np.searchsorted(people[order], numbers))[1:]
        return {
            person: part[np.flatnonzero(np.diff(rows["frame"][part], prepend=-1) > 0)]
            for person, part in zip(numbers, parts)
        }, rows

    def close(self):
        if self.opened:
            self._rows.close()
            self._times.close()

    def _append(self, name, size):
        path = self.folder / name
        path.touch()
        handle = open(path, "r+b")
        handle.truncate(size)
        handle.seek(size)
        return handle

    def _state(self):
        try:
            state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
            times, rows = ((self.folder / name).stat().st_size for name in ("times.f64", "rows.bin"))
        except (OSError, ValueError):
            return None
        if not isinstance(state, dict) or state.get("origin") != self._origin or "spent" not in state:
            return None
        return state if times >= state["frames"] * 8 and rows >= state["rows"] * self._row.itemsize else None


def _track(values):
    arrays = {key: np.array(values[key]) for key in ("begins", "ends", "colours")}
    return Track(**(values | arrays))
