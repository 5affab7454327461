"""Prepared data sets on disk: a folder of plain .npy arrays, which memory-map, and an index.

    NAME.store/
        index.json            the index; written last
        SPLIT.KEY.npy         one C-ordered array per split and key, (frames, ...)

index.json is an object of

    format, version           "pose-store", 1
    provenance                input and program that made it: any object; equal provenance means equal content
    cameras                   {camera: [width, height]} in px; {} without cameras
    parts                     {split: {rows, arrays, sources}}, such as "train" and "test"; rows: number of frames
        arrays                {key: {file, dtype, shape, sha256}}; sha256 is that of the whole file
        sources               {source, camera, action, start}: lists, one entry per sequence of frames with one source
                              (recording), camera and action; start is its first frame. Clips never cross a source.

Clips are cut on the fly: a frame that many of them share is stored once.
"""

import hashlib
import json
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from lib.data.npz_files import read_npy
from lib.errors import UserError, describe
from lib.files import cannot_write, only_one, require_file

SUFFIX = ".store"
FORMAT, VERSION = "pose-store", 1
INDEX = "index.json"
BLOCK = 65536  # frames read, converted, written or scored at a time
_BYTES = 2**22  # hashed at a time
_AGAIN = "convert the data again"  # what helps when a store is damaged


@dataclass(frozen=True)
class Sequences:
    """Sequences of frames, each of one source, camera and action: arrays of names (n,); start (n + 1,), the end last."""

    source: np.ndarray
    camera: np.ndarray
    action: np.ndarray
    start: np.ndarray

    @classmethod
    def of_frames(cls, source, camera, action):
        """Return the sequences of frames by the names of every frame, each (n,)."""
        names = [np.asarray(of_frames).astype(str) for of_frames in (source, camera, action)]
        count = len(names[0])
        changes = np.any([name[1:] != name[:-1] for name in names], axis=0) if count else np.empty(0, bool)
        first = np.flatnonzero(np.r_[count > 0, changes])
        sources, cameras, actions = (name[first] for name in names)
        return cls(sources, cameras, actions, np.r_[first, count].astype(np.int64))

    def subsampled(self, stride):
        """Return the sequences that are left when their frames are subsampled with a stride."""
        start = -(-self.start // stride)
        left = np.diff(start) > 0
        return Sequences(self.source[left], self.camera[left], self.action[left], np.r_[start[:-1][left], start[-1]])

    def number(self, frames):
        """Return the number of the sequence of each frame; frames of any shape."""
        return np.searchsorted(self.start, frames, side="right") - 1

    @property
    def count(self):
        """Return the number of frames of all sequences."""
        return int(self.start[-1])


class StoredArray:
    """Array in a file; indexing reads from the file, and only the result stays mapped."""

    def __init__(self, path, shape, dtype, again=_AGAIN):
        self.path, self.shape, self.dtype, self._again = path, tuple(shape), np.dtype(dtype), again

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        return np.asarray(read_npy(self.path, memory_map=True, hint=f"; {self._again}")[index])


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    arrays: {key: (frames, ...)}, in memory or `StoredArray`s.
    """

    arrays: dict
    sequences: Sequences


@dataclass(frozen=True)
class Store:
    """Prepared data set on disk; its arrays are not in memory."""

    path: Path
    splits: dict  # name: Split
    cameras: dict  # name: (width, height), px
    provenance: dict


def open_store(folder, again=_AGAIN):
    """Open the `Store` of a folder; no array is read, only the length of its file is checked.

    Args:
        again: what messages about a damaged store advise.

    Raises:
        UserError: the folder is not a store, of a newer version, or a file of it is missing or truncated.
    """
    folder = Path(folder)
    index = _read_index(folder / INDEX, again)
    try:
        splits = {name: _split(folder, name, entry, again) for name, entry in index["parts"].items()}
        cameras = {name: tuple(size) for name, size in index["cameras"].items()}
        return Store(folder, splits, cameras, index["provenance"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{folder / INDEX}: is damaged ({describe(error)}); {again}") from error


def provenance_of(folder):
    """Return the provenance of a store; None if there is no good store."""
    try:
        return open_store(folder).provenance
    except UserError:
        return None


def check_store(folder, progress=lambda files: files):
    """Compare every file of a store with its checksum.

    Raises:
        UserError: a file differs, or the folder is not a store.
    """
    index = _read_index(open_store(folder).path / INDEX)
    entries = [entry for split in index["parts"].values() for entry in split["arrays"].values()]
    for entry in progress(entries):
        path = Path(folder) / entry["file"]
        if checksum(path) != entry["sha256"]:
            raise UserError(
                f"{path}: its content has changed since it was written; remove {Path(folder)} and convert the data again"
            )


def checksum(path):
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(_BYTES):
            digest.update(block)
    return digest.hexdigest()


def check_target(folder, made_by):
    """Check that a store may be written to a folder.

    Raises:
        UserError: the folder holds something other than a store made by the same program.
    """
    if not folder.exists():
        return
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder}: is there already and is no store; remove it, or give another folder")
    there = (provenance_of(folder) or {}).get("made_by", made_by)
    if there != made_by:
        raise UserError(f"{folder}: is a store of other data, made by {there}; remove it, or give another folder")


@contextmanager
def writing(folder, provenance, cameras):
    """Yield a `Writer`; the store that it wrote replaces `folder` when the block ends without an error.

    Files are written to a hidden folder beside it. An error removes that; an interruption leaves it, and writing with
    the same provenance resumes from it.

    Args:
        provenance: has "made_by", the program that writes it; a store made by another is not replaced.

    Raises:
        UserError: the folder cannot be written (no permission, disk full), another process is writing it, or it holds
            something else.
    """
    folder = Path(folder)
    check_target(folder, provenance["made_by"])
    unfinished = unfinished_of(folder)
    try:
        with only_one(folder):
            try:
                writer = Writer(unfinished, provenance, cameras)
                yield writer
                writer.finish(folder)
            except Exception:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
    except OSError as error:
        raise cannot_write(folder, error) from error


def unfinished_of(folder):
    """Return the hidden folder in which a store is written before it takes its place."""
    folder = Path(folder)
    return folder.with_name(f".{folder.name}.unfinished")


class Writer:
    """Writer of a store, array by array; see `writing`."""

    def __init__(self, unfinished, provenance, cameras):
        self.folder = unfinished
        self.index = {
            "format": FORMAT,
            "version": VERSION,
            "provenance": provenance,
            "cameras": {name: list(size) for name, size in cameras.items()},
            "parts": {},
        }
        if (unfinished / INDEX).is_file():
            earlier = _read_index(unfinished / INDEX)
            if earlier["provenance"] == provenance:
                self.index["parts"] = earlier["parts"]
        if not self.index["parts"] and unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(parents=True, exist_ok=True)

    def split(self, name, sequences):
        """Declare a split, before its arrays.

        Raises:
            ValueError: a sequence has no frames.
        """
        if (np.diff(sequences.start) <= 0).any():
            raise ValueError(f"{name}: a sequence has no frames")
        sources = {key: getattr(sequences, key).tolist() for key in ("source", "camera", "action")}
        entry = self.index["parts"].setdefault(name, {"arrays": {}})
        entry |= {"rows": sequences.count, "sources": sources | {"start": sequences.start[:-1].tolist()}}

    def array(self, split, key, dtype, item_shape, blocks):
        """Write one array (frames, *item_shape) from an iterable of consecutive arrays (n, *item_shape).

        An array that an interrupted process has finished is kept, and `blocks` is not read then.
        """
        entry, frames = self.index["parts"][split], self.index["parts"][split]["rows"]
        if key in entry["arrays"]:
            return
        with _ArrayFile(self.folder, split, key, dtype, (frames, *item_shape)) as file:
            for block in blocks:
                file.write(block)
        self._enter(split, [file])

    def arrays(self, split, layout, blocks, length):
        """Write several arrays of a split side by side; what an interrupted process has written is kept.

        Args:
            layout: {key: (dtype, item_shape)}.
            blocks: function from the number of frames that are there already, a multiple of `length` or all, to an
                iterable of {key: array (n, *item_shape)} of the following ones.
            length: frames of a block.
        """
        entry, frames = self.index["parts"][split], self.index["parts"][split]["rows"]
        if set(layout) <= set(entry["arrays"]):
            return
        self._write_index()
        with ExitStack() as stack:
            files = [
                stack.enter_context(_ArrayFile(self.folder, split, key, dtype, (frames, *item_shape), keep=True))
                for key, (dtype, item_shape) in layout.items()
            ]
            there = min(file.written for file in files)
            there = there if there == frames else there // length * length
            for file in files:
                file.go_on(there)
            for block in blocks(there):
                for file in files:
                    file.write(block[file.key])
        self._enter(split, files)

    def _enter(self, split, files):
        for file in files:
            self.index["parts"][split]["arrays"][file.key] = file.entry()
        self._write_index()

    def finish(self, folder):
        """Write the index and put the store in the place of `folder`."""
        self._write_index()
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        self.folder.rename(folder)
        shutil.rmtree(old, ignore_errors=True)

    def _write_index(self):
        temporary = self.folder / f".{INDEX}.tmp"
        temporary.write_text(json.dumps(self.index, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.folder / INDEX)


class _ArrayFile:
    """File of one array that is written block by block, and its checksum.

    Args:
        keep: whether frames that are in the file stay; `go_on` says how many.
    """

    def __init__(self, folder, split, key, dtype, shape, keep=False):
        self.key, self._name, self._path = key, f"{split}.{key}", folder / f"{split}.{key}.npy"
        self._dtype, self._shape = np.dtype(dtype).newbyteorder("<"), shape
        self._frame = int(np.prod(shape[1:], dtype=np.int64)) * self._dtype.itemsize  # bytes
        header = BytesIO()
        descr = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, descr)
        self._header, self.written = header.getvalue(), 0
        if keep and self._path.is_file():
            self.written = max(0, self._path.stat().st_size - len(self._header)) // self._frame
        self._digest = hashlib.sha256()

    def __enter__(self):
        self._handle = open(self._path, "r+b" if self.written else "w+b")
        if not self.written:
            self._put(self._header)
        return self

    def __exit__(self, *error):
        self._handle.close()

    def go_on(self, frames):
        """Keep some frames of the file, and write the next ones after them."""
        self.written = frames
        self._handle.truncate(len(self._header) + frames * self._frame)
        self._handle.seek(0)
        self._digest = hashlib.sha256()
        while block := self._handle.read(_BYTES):
            self._digest.update(block)

    def write(self, block):
        """Write an array (n, ...) of frames."""
        self._put(np.ascontiguousarray(block, self._dtype).reshape(-1, *self._shape[1:]).data.cast("B"))
        self.written += len(block)

    def entry(self):
        """Return the entry of the complete array in the index.

        Raises:
            ValueError: frames are missing, or there are too many.
        """
        if self.written != self._shape[0]:
            raise ValueError(f"{self._name}: {self.written} frames were given, expected {self._shape[0]}")
        file, sha256 = self._path.name, self._digest.hexdigest()
        return {"file": file, "dtype": self._dtype.str, "shape": list(self._shape), "sha256": sha256}

    def _put(self, data):
        self._handle.write(data)
        self._digest.update(data)


def blocks_of(array, item_shape):
    """Yield an array's frames as (n, *item_shape), `BLOCK` at a time."""
    for start in range(0, len(array), BLOCK):
        yield np.asarray(array[start : start + BLOCK]).reshape(-1, *item_shape)


def _read_index(path, again=_AGAIN):
    require_file(path, "; a store is a folder that a tools/convert_*.py has written")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise ValueError(f"format is {index['format']!r}")
        version = index["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not the index of a store ({describe(error)}); {again}") from error
    if version != VERSION:
        raise UserError(f"{path}: has version {version}, this project reads {VERSION}; {again}")
    return index


def _split(folder, name, content, again):
    sources, frames = content["sources"], content["rows"]
    start = np.array([*sources["start"], frames], np.int64)
    if (np.diff(start) <= 0).any() or (frames and start[0]):
        raise ValueError(f"sources of {name!r} do not follow each other")
    source, camera, action = (np.array(sources[key], dtype=str) for key in ("source", "camera", "action"))
    sequences = Sequences(source, camera, action, start)
    if not len(sequences.source) == len(sequences.camera) == len(sequences.action) == len(start) - 1:
        raise ValueError(f"sources of {name!r} are lists of different lengths")
    arrays = {}
    for key, entry in content["arrays"].items():
        path, dtype = folder / entry["file"], np.dtype(entry["dtype"])
        size = require_file(path).stat().st_size
        if size <= np.prod(entry["shape"], dtype=np.int64) * dtype.itemsize:  # the header comes on top
            raise UserError(f"{path}: is truncated ({size:,} bytes); {again}")
        if entry["shape"][0] != frames:
            raise ValueError(f"{key!r} of {name!r} has {entry['shape'][0]} frames, not {frames}")
        arrays[key] = StoredArray(path, entry["shape"], dtype, again)
    return Split(arrays, sequences)
