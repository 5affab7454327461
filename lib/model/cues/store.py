"""Cues of a video on disk: a folder of .npy arrays, which memory-map, and an index.

    NAME.cues/
        index.json      what is there; replaced when a cue is complete
        flow.npy        (frames, 2, h, w) float16: from each frame to the next, px of the video's own frames
        depth.npy       (frames, h, w) float16: (inverse depth - median) / MAD over the frame

index.json is an object of

    format, version     "cue-store", 1
    video               {name, bytes, sha256} of the file
    frame               {width, height}, px, of its upright frames
    cues                {cue: {file, dtype, shape, sha256, estimator}}; sha256 is that of the whole file, estimator the
                        settings that the maps were made with: equal video and settings mean equal maps

Maps may be smaller than frames (`frame` tells their scale), flow is in px of frames all the same. While a cue is made
it grows in a hidden file beside, with a hidden record of how much of it is done; what was written after that counts not.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.data.store import StoredArray, checksum
from lib.errors import UserError, describe
from lib.files import require_file

SUFFIX = ".cues"
INDEX = "index.json"
FORMAT, VERSION = "cue-store", 1

DTYPE = np.dtype("<f2")


@dataclass(frozen=True)
class Cues:
    """Cues of a video; its arrays are not in memory."""

    folder: Path
    video: dict  # name, bytes, sha256
    frame: tuple  # (width, height) px
    arrays: dict  # cue: `StoredArray`
    estimators: dict  # cue: settings


def open_cues(folder):
    """Return the `Cues` of a folder; no array is read, only the length of its file is checked.

    Raises:
        UserError: the folder holds none, of a newer version, or a file of it is missing or truncated.
    """
    folder = Path(folder)
    index = read_index(folder)
    arrays = {cue: _array(folder, entry) for cue, entry in index["cues"].items()}
    estimators = {cue: entry["estimator"] for cue, entry in index["cues"].items()}
    return Cues(folder, index["video"], (index["frame"]["width"], index["frame"]["height"]), arrays, estimators)


def identify(video):
    """Return what identifies a video in an index."""
    path = require_file(video)
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": checksum(path)}


def check_target(folder, video):
    """Check that cues of a video, identified by `identify`, may be written to a folder.

    Raises:
        UserError: the folder holds cues of another video, or another kind of index.
    """
    folder = Path(folder)
    if (folder / INDEX).exists() and (there := read_index(folder)["video"]) != video:
        raise UserError(
            f"{folder}: holds cues of another video, {there['name']}, or of an earlier one of that name; remove it, or "
            "give another folder"
        )


def state_of(folder, cue, settings):
    """Return None if a cue is there, of these settings and undamaged; else why it is to be made, for a message.

    A cue that is not there yet gives an empty text.
    """
    folder = Path(folder)
    entry = read_index(folder)["cues"].get(cue) if (folder / INDEX).exists() else None
    if entry is None:
        return ""
    if entry["estimator"] != settings:
        return f"it was made by {entry['estimator']['name']} with other settings"
    path = folder / entry["file"]
    if not path.is_file():
        return f"{path} is gone"
    return None if checksum(path) == entry["sha256"] else f"{path} has changed since it was written"


def read_index(folder):
    """Return the content of a store's index.

    Raises:
        UserError: there is none, it is damaged, or of a newer version.
    """
    path = require_file(folder / INDEX, "; tools/extract_cues.py writes it")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise ValueError(f"format is {index['format']!r}")
        version = index["version"]
        if version == VERSION:
            _check_entries(index)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is damaged or no index of cues ({describe(error)}); {_again(folder)}") from error
    if version != VERSION:
        raise UserError(f"{path}: has version {version}, this project reads {VERSION}; {_again(folder)}")
    return index


def _check_entries(index):
    """Raise an error of Python's if an index lacks something or has the wrong kind of it."""
    int(index["frame"]["width"]), int(index["frame"]["height"]), index["video"]["name"]
    for entry in index["cues"].values():
        np.dtype(entry["dtype"]), math.prod(entry["shape"])
        Path(entry["file"]), str(entry["sha256"]), entry["estimator"]["name"]


def _array(folder, entry):
    path, dtype = folder / entry["file"], np.dtype(entry["dtype"])
    if require_file(path, f"; {_again(folder)}").stat().st_size <= math.prod(entry["shape"]) * dtype.itemsize:
        raise UserError(f"{path}: is truncated; {_again(folder)}")
    return StoredArray(path, entry["shape"], dtype)


def _again(folder):
    return f"remove {folder} and make the cues again"
