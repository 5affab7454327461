"""Prepared data sets on disk: a folder of plain .npy arrays, which memory-map, and an index.

    NAME.store/
        index.json            what is here; written last
        PART.KEY.npy          one C-ordered array per part and key, (rows, ...)

index.json is an object of

    format, version           "pose-store", 1
    provenance                what it was made of and by: any object; equal provenance means equal content
    cameras                   {camera: [width, height]} in px, or of no camera: {}
    parts                     {part: {rows, arrays, sources}}, a part being "train" or "test", say
        arrays                {key: {file, dtype, shape, sha256}}; sha256 is that of the whole file
        sources               {source, camera, action, start}: lists, one entry per run of rows with one source
                              (recording), camera and action; start is its first row. Clips never cross a source.

Clips are cut on the fly: a frame that many of them share is stored once.
"""

import hashlib
import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.errors import UserError, describe
from lib.files import cannot_write, only_one, require_file

SUFFIX = ".store"
FORMAT, VERSION = "pose-store", 1
INDEX = "index.json"
BLOCK = 65536  # rows read, converted, written or scored at a time
_BYTES = 2**22  # hashed at a time


@dataclass(frozen=True)
class Runs:
    """Runs of rows with one source, camera and action each: arrays of names, and start (runs + 1,), the end last."""

    source: np.ndarray
    camera: np.ndarray
    action: np.ndarray
    start: np.ndarray

    @classmethod
    def of_rows(cls, source, camera, action):
        """From the names of every row, each (n,)."""
        names = [np.asarray(rows).astype(str) for rows in (source, camera, action)]
        count = len(names[0])
        changes = np.any([rows[1:] != rows[:-1] for rows in names], axis=0) if count else np.empty(0, bool)
        first = np.flatnonzero(np.r_[count > 0, changes])
        sources, cameras, actions = (rows[first] for rows in names)
        return cls(sources, cameras, actions, np.r_[first, count].astype(np.int64))

    def every(self, stride):
        """The runs that are left where only every how manyth row is read."""
        start = -(-self.start // stride)
        left = np.diff(start) > 0
        return Runs(self.source[left], self.camera[left], self.action[left], np.r_[start[:-1][left], start[-1]])

    def number(self, rows):
        """The number of the run that each row is in; rows of any shape."""
        return np.searchsorted(self.start, rows, side="right") - 1

    @property
    def count(self):
        """Rows of all runs."""
        return int(self.start[-1])


class StoredArray:
    """An array file; indexing reads from the file and keeps nothing mapped but what the result itself is."""

    def __init__(self, path, shape, dtype):
        self.path, self.shape, self.dtype = path, tuple(shape), np.dtype(dtype)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        return np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False)[rows])


@dataclass(frozen=True)
class Part:
    """arrays: {key: (rows, ...)}, in memory or `StoredArray`s."""

    arrays: dict
    runs: Runs


@dataclass(frozen=True)
class Store:
    path: Path
    parts: dict  # name: Part
    cameras: dict  # name: (width, height), px
    provenance: dict


def open_store(folder):
    """The `Store` of a folder. No array is read, only that each file is there and as long as it should be.

    Raises:
        UserError: the folder is not a store, of a newer version, or a file of it is missing or truncated.
    """
    folder = Path(folder)
    index = _read_index(folder / INDEX)
    try:
        parts = {name: _part(folder, name, part) for name, part in index["parts"].items()}
        cameras = {name: tuple(size) for name, size in index["cameras"].items()}
        return Store(folder, parts, cameras, index["provenance"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{folder / INDEX}: is damaged ({describe(error)}); convert the data again") from error


def provenance_of(folder):
    """What a store says of its making; None if there is no good store."""
    try:
        return open_store(folder).provenance
    except UserError:
        return None


def check_store(folder, progress=lambda files: files):
    """Compares every file with its checksum.

    Raises:
        UserError: a file differs, or the folder is not a store.
    """
    index = _read_index(open_store(folder).path / INDEX)
    entries = [entry for part in index["parts"].values() for entry in part["arrays"].values()]
    for entry in progress(entries):
        path = Path(folder) / entry["file"]
        if checksum(path) != entry["sha256"]:
            raise UserError(
                f"{path}: its content has changed since it was written; remove {Path(folder)} and convert the data again"
            )


def checksum(path):
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(_BYTES):
            digest.update(block)
    return digest.hexdigest()


def check_target(folder, made_by):
    """Where a store is to be written.

    Raises:
        UserError: something else is there than a store made by the same.
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
    """Yields a `Writer`; what it wrote takes the place of `folder` when the block ends well.

    Files are written to a hidden folder beside it. An error removes that; an interruption leaves it, and writing with
    the same provenance goes on from there.

    Args:
        provenance: has "made_by", what writes it; a store made by another is not replaced.

    Raises:
        UserError: the folder cannot be written (no permission, disk full), another process is writing it, or it holds
            something else.
    """
    folder = Path(folder)
    check_target(folder, provenance["made_by"])
    unfinished = folder.with_name(f".{folder.name}.unfinished")
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


class Writer:
    """Writes a store, array by array; see `writing`."""

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

    def part(self, name, runs):
        """Declares a part, before its arrays.

        Raises:
            ValueError: a run has no rows.
        """
        if (np.diff(runs.start) <= 0).any():
            raise ValueError(f"{name}: a run has no rows")
        sources = {key: getattr(runs, key).tolist() for key in ("source", "camera", "action")}
        part = self.index["parts"].setdefault(name, {"arrays": {}})
        part |= {"rows": runs.count, "sources": sources | {"start": runs.start[:-1].tolist()}}

    def array(self, part, key, dtype, item_shape, blocks):
        """Writes one array (rows, *item_shape) from an iterable of arrays (n, *item_shape) that follow each other.

        What an interrupted run has finished is kept, and `blocks` is not read then.
        """
        entry, rows = self.index["parts"][part], self.index["parts"][part]["rows"]
        if key in entry["arrays"]:
            return
        path = self.folder / f"{part}.{key}.npy"
        dtype, shape = np.dtype(dtype).newbyteorder("<"), (rows, *item_shape)
        written, digest = 0, hashlib.sha256()
        with open(path, "wb") as handle:
            both = _Tee(handle, digest)
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(both, header)
            for block in blocks:
                both.write(np.ascontiguousarray(block, dtype).reshape(-1, *item_shape).data.cast("B"))
                written += len(block)
        if written != rows:
            raise ValueError(f"{part}.{key}: {written} rows were given, expected {rows}")
        entry["arrays"][key] = {
            "file": path.name,
            "dtype": dtype.str,
            "shape": list(shape),
            "sha256": digest.hexdigest(),
        }
        self._write_index()

    def finish(self, folder):
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


class _Tee:
    """Writes to a file and a hash."""

    def __init__(self, handle, digest):
        self.handle, self.digest = handle, digest

    def write(self, data):
        self.handle.write(data)
        self.digest.update(data)


def blocks_of(array, item_shape):
    """The array's rows as (n, *item_shape), `BLOCK` at a time."""
    for start in range(0, len(array), BLOCK):
        yield np.asarray(array[start : start + BLOCK]).reshape(-1, *item_shape)


def _read_index(path):
    require_file(path, "; a store is a folder that a tools/convert_*.py has written")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise ValueError(f"format is {index['format']!r}")
        version = index["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not the index of a store ({describe(error)}); convert the data again") from error
    if version != VERSION:
        raise UserError(f"{path}: has version {version}, this project reads {VERSION}; convert the data again")
    return index


def _part(folder, name, part):
    sources, rows = part["sources"], part["rows"]
    start = np.array([*sources["start"], rows], np.int64)
    if (np.diff(start) <= 0).any() or (rows and start[0]):
        raise ValueError(f"sources of {name!r} do not follow each other")
    source, camera, action = (np.array(sources[key], dtype=str) for key in ("source", "camera", "action"))
    runs = Runs(source, camera, action, start)
    if not len(runs.source) == len(runs.camera) == len(runs.action) == len(start) - 1:
        raise ValueError(f"sources of {name!r} are lists of different lengths")
    arrays = {}
    for key, entry in part["arrays"].items():
        path, dtype = folder / entry["file"], np.dtype(entry["dtype"])
        size = require_file(path).stat().st_size
        if size <= np.prod(entry["shape"], dtype=np.int64) * dtype.itemsize:  # the header is on top of it
            raise UserError(f"{path}: is truncated ({size:,} bytes); convert the data again")
        if entry["shape"][0] != rows:
            raise ValueError(f"{key!r} of {name!r} has {entry['shape'][0]} rows, not {rows}")
        arrays[key] = StoredArray(path, entry["shape"], dtype)
    return Part(arrays, runs)
