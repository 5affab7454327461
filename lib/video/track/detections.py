"""The detections of a video on disk: written frame by frame, so that neither memory nor an interruption matters.

A folder with `times.f64` (seconds of each frame), `rows.bin` (one `ROW` a detection) and `state.json` (what they are
of, how many frames are done, the tracks and the source's numbers of people, if it has such, warnings). What was written
after the last `save` does not count.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lib.files import atomic_path
from lib.video.track.tracker import Track, lasts, link, shortest

ROW = np.dtype([("frame", "i4"), ("track", "i4"), ("keypoints", "f4", (17, 3))])


class Detections:
    """What is in the folder, if it is of the same `origin`; nothing if not.

    Attributes:
        frames: how many are done; complete: whether the video has ended; tracks: {number: Track}; sources: {the
        source's own number of a person: track number}; damaged: what is missing of the video, in a line, or None;
        warnings: of the detector, a line each.
    """

    def __init__(self, folder, origin):
        self.folder, self._origin = Path(folder), origin
        self.frames, self.rows, self.complete, self.damaged = 0, 0, False, None
        self.tracks, self.sources, self.warnings, self._times, self._rows = {}, {}, [], None, None
        state = self._state()
        if state:
            self.frames, self.rows, self.complete = state["frames"], state["rows"], state["complete"]
            self.damaged = state["damaged"]
            self.tracks = {int(number): _track(values) for number, values in state["tracks"].items()}
            self.sources, self.warnings = dict(state["sources"]), state["warnings"]

    @property
    def opened(self):
        return self._rows is not None

    def open(self):
        """Makes ready to `add` to what is there; what is of another origin goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.frames:
            (self.folder / "state.json").unlink(missing_ok=True)
        self._times = self._append("times.f64", self.frames * 8)
        self._rows = self._append("rows.bin", self.rows * ROW.itemsize)

    def add(self, seconds, detections, numbers, late=()):
        """One frame's `Detection`s and their track numbers, -1 for none; late: (`Detection`, number) of the last one."""
        self.add_late(late)
        np.array([seconds]).tofile(self._times)
        self.frames += 1
        self.add_late([(d, n) for d, n in zip(detections, numbers) if n >= 0])

    def add_late(self, late):
        """(`Detection`, number) of the last frame."""
        np.array([(self.frames - 1, n, d.keypoints) for d, n in late], ROW).tofile(self._rows)
        self.rows += len(late)

    def warn(self, lines):
        """Take lines of warnings that are not there yet."""
        self.warnings += [line for line in lines if line not in self.warnings]

    def save(self, complete=False, damaged=None):
        """Makes what was added so far last; complete: the video has ended; damaged: what is missing of it, or None."""
        self.complete, self.damaged = complete, damaged
        self._rows.flush()
        self._times.flush()
        state = {
            "origin": self._origin,
            "frames": self.frames,
            "rows": self.rows,
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
        """(F,) seconds."""
        return np.fromfile(self.folder / "times.f64", np.float64, self.frames)

    def people(self):
        """{person: numbers (n,) of their rows}, a row a frame; and the rows, mapped.

        People have the numbers of the source if it has such, else numbers from 1 in order of appearance.
        """
        if not self.rows:
            return {}, np.empty(0, ROW)
        rows = np.memmap(self.folder / "rows.bin", ROW, "r", shape=(self.rows,))
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
        if not isinstance(state, dict) or state.get("origin") != self._origin or "warnings" not in state:
            return None
        return state if times >= state["frames"] * 8 and rows >= state["rows"] * ROW.itemsize else None


def _track(values):
    arrays = {key: np.array(values[key]) for key in ("begins", "ends", "colours")}
    return Track(**(values | arrays))
