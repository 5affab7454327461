"""Writing the cues of a video so that it can be stopped at any moment and goes on from there."""

import hashlib
import io
import json
import logging
import math
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from lib.data.store import checksum
from lib.errors import UserError, describe
from lib.files import atomic_path, cannot_write
from lib.model.cues.store import DTYPE, FORMAT, INDEX, VERSION, read_index

_LARGEST = float(np.finfo(DTYPE).max)
_SAVE_EVERY = 1.0  # s
_BYTES = 2**22  # read at a time

log = logging.getLogger(__name__)


class CueWriter:
    """Writer of one cue of a video, map by map; it goes on with what an interrupted process has written.

    Args:
        folder: of the store.
        cue: its name.
        video: of `identify`.
        frame: (width, height) px of the video's upright frames.
        shape: of a map.
        settings: of the estimator.

    Attributes:
        frames: how many maps are there.
        last: the last of them, float16; None if there is none.

    Raises:
        UserError: a file cannot be written.
    """

    def __init__(self, folder, cue, video, frame, shape, settings):
        self.path = Path(folder) / f"{cue}.npy"
        self.cue, self.shape, self.last = cue, tuple(shape), None
        self._origin = {"video": video, "frame": list(frame), "shape": list(shape), "estimator": settings}
        self._growing = self.path.with_name(f".{cue}.unfinished.npy")
        self._record = self.path.with_name(f".{cue}.unfinished.json")
        self._saved = time.monotonic()
        self.frames, self._digest = self._earlier()
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.frames:
                self._record.unlink(missing_ok=True)
                self._growing.write_bytes(self._header(0))
            self._handle = open(self._growing, "r+b")
            self._handle.truncate(self._length(self.frames))
            self._handle.seek(0, os.SEEK_END)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if not self._handle.closed:
            with suppress(UserError):  # the disk is full: what was saved before counts
                self._save()
            self._handle.close()

    def add(self, maps):
        """Write the next maps (n, *shape), finite numbers; those beyond float16 become its largest."""
        block = np.ascontiguousarray(np.clip(maps, -_LARGEST, _LARGEST), DTYPE)
        if block.shape[1:] != self.shape:
            raise ValueError(f"{self.cue}: maps of shape {block.shape[1:]} were given, expected {self.shape}")
        if not len(block):
            return
        with self._errors():
            self._handle.write(block.data.cast("B"))
        self._digest.update(block.data.cast("B"))
        self.frames, self.last = self.frames + len(block), block[-1]
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self._save()

    def finish(self):
        """Put the cue in its place, all of whose maps were added.

        The index comes first: should the process end before the array is there, the next one finds all maps written.
        """
        self._save()
        with self._errors():
            self._handle.seek(0)
            self._handle.write(self._header(self.frames))
            self._handle.close()
        folder = self.path.parent
        index = read_index(folder) if (folder / INDEX).exists() else {"cues": {}}
        entry = {
            "file": self.path.name,
            "dtype": DTYPE.str,
            "shape": [self.frames, *self.shape],
            "sha256": checksum(self._growing),
            "estimator": self._origin["estimator"],
        }
        width, height = self._origin["frame"]
        _write_json(
            folder / INDEX,
            {
                "format": FORMAT,
                "version": VERSION,
                "video": self._origin["video"],
                "frame": {"width": width, "height": height},
                "cues": index["cues"] | {self.cue: entry},
            },
        )
        with self._errors():
            os.replace(self._growing, self.path)
            self._record.unlink()

    def _save(self):
        """Make what was added so far count."""
        with self._errors():
            self._handle.flush()
            os.fsync(self._handle.fileno())
        _write_json(self._record, {"origin": self._origin, "frames": self.frames, "sha256": self._digest.hexdigest()})
        self._saved = time.monotonic()

    def _earlier(self):
        """Return how many maps an interrupted process has left, and the hash of their bytes."""
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
            if record["origin"] != self._origin:
                return 0, hashlib.sha256()
            frames, digest = record["frames"], hashlib.sha256()
            with open(self._growing, "rb") as handle:
                handle.seek(self._length(0))
                left = self._length(frames) - self._length(0)
                while left and (block := handle.read(min(left, _BYTES))):
                    digest.update(block)
                    left -= len(block)
            if left or digest.hexdigest() != record["sha256"]:
                raise ValueError("its checksum is wrong")
            if frames:
                place = self._length(frames - 1)
                self.last = np.memmap(self._growing, DTYPE, "r", place, self.shape).copy()
            return frames, digest
        except FileNotFoundError:
            return 0, hashlib.sha256()
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s: is damaged (%s); %s is made from its start", self._growing, describe(error), self.cue)
            return 0, hashlib.sha256()

    def _header(self, frames):
        """Return the head of a .npy file; NumPy leaves room in it, so that its length is the same for all numbers."""
        head = io.BytesIO()
        described = {"descr": DTYPE.str, "fortran_order": False, "shape": (frames, *self.shape)}
        np.lib.format.write_array_header_1_0(head, described)
        return head.getvalue()

    def _length(self, frames):
        """Return the length of the file of so many maps, bytes."""
        return len(self._header(frames)) + frames * math.prod(self.shape) * DTYPE.itemsize

    @contextmanager
    def _errors(self):
        try:
            yield
        except OSError as error:
            raise cannot_write(self.path, error) from error


def _write_json(path, content):
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
