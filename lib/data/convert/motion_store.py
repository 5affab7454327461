"""Conversion of motion files to one store (lib/data/store.py): `joints` (n, 17, 3) float32, m, z up.

Each file is a clip. It is read once and its joints are kept in a hidden folder beside the store until all are there: a
conversion that was interrupted, or met a file that cannot be read, resumes from there.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.body.skeleton import JOINTS
from lib.data.store import Sequences, provenance_of, writing
from lib.errors import UserError
from lib.files import atomic_path, only_one

ITEM = (len(JOINTS), 3)
SPLITS = ("train", "test")
_NOT_OF_CLIPS = ("input", "skip_bad", "actions", "test")  # keys of a provenance that no clip's joints depend on


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    written: False if the store was up to date; skipped: the errors of the clips that were skipped.
    """

    written: bool
    clips: int = 0
    frames: int = 0
    skipped: tuple = ()

    def summary(self, out, fps):
        """Return one line about the store `out`."""
        if not self.written:
            return f"{out}: is up to date"
        left_out = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{out}: {self.clips} clips, {self.frames:,} frames at {fps:g} fps{left_out}"


def write_motion(
    out,
    provenance,
    root,
    files,
    made_of,
    read,
    skip_bad,
    progress,
    split_of=lambda name: "train",
    action_of=lambda name: "",
):
    """Write the store `out`, unless one of this provenance is there.

    Args:
        root: folder of the files, for a message.
        files: {clip's name: path}.
        made_of: {clip's name: hexadecimal checksum of all files that its joints come from}.
        read: path -> joints (n, 17, 3).
        skip_bad: leave out files that cannot be read instead of stopping.
        progress: wraps the list of files, with the label "clips".
        split_of, action_of: functions of a clip's name.

    Returns:
        A `Conversion`.

    Raises:
        UserError: a file cannot be read (none, if bad ones are skipped), or `out` cannot be written.
    """
    out = Path(out)
    ready = out.with_name(f".{out.name}.clips")
    if provenance_of(out) == provenance:
        shutil.rmtree(ready, ignore_errors=True)
        return Conversion(written=False)
    with only_one(ready, named=out):
        try:
            recipe = {key: value for key, value in provenance.items() if key not in _NOT_OF_CLIPS}
            _empty_unless_of(ready, recipe, named=out)
            clips, skipped = {}, []
            for name, path in progress(list(files.items()), "clips"):
                target = ready / f"{made_of[name]}.npy"
                if (frames := _frames_of(target)) is None:
                    try:
                        joints = _finite_joints(path, read)
                    except UserError as error:
                        if not skip_bad:
                            raise _Unreadable(f"{error}; to leave out what cannot be read: --skip-bad") from error
                        skipped.append(str(error))
                        continue
                    with atomic_path(target, named=out) as temporary, open(temporary, "wb") as handle:
                        np.save(handle, joints)
                    frames = len(joints)
                clips[name] = target, frames
            if not clips:
                raise UserError(f"{root}: none of its {len(files)} clips can be read; the first: {skipped[0]}")
            with writing(out, provenance, cameras={}) as writer:
                for split in SPLITS:
                    of_split = {name: clip for name, clip in clips.items() if split_of(name) == split}
                    _write_split(writer, split, of_split, action_of)
        except Exception as error:
            if not (isinstance(error, _Unreadable) and any(ready.glob("*.npy"))):
                shutil.rmtree(ready, ignore_errors=True)
            raise
        shutil.rmtree(ready)
        return Conversion(True, len(clips), sum(count for _, count in clips.values()), tuple(skipped))


class _Unreadable(UserError):
    """Error for a clip's file that cannot be read."""


def visible_files(root):
    """Return the files below a folder, sorted, without hidden ones and those in hidden folders."""
    found = (path for path in root.rglob("*") if not any(part[0] == "." for part in path.relative_to(root).parts))
    return sorted(path for path in found if path.is_file())


def _finite_joints(path, read):
    """Return the joints that `read` returns for a file.

    Raises:
        UserError: it cannot be read, or gives joints that are not finite (names the frame of the result).
    """
    with np.errstate(all="ignore"):  # overflow gives values that are not finite
        joints = read(path)
    bad = np.flatnonzero(~np.isfinite(joints).all((1, 2)))
    if len(bad):
        raise UserError(f"{path}: its joints are not finite in frame {bad[0]}; values of the file are too large")
    return joints


def _frames_of(path):
    """Return the number of frames of a finished clip; None if it is missing or damaged."""
    try:
        joints = np.load(path, mmap_mode="r", allow_pickle=False)
        return len(joints) if joints.shape[1:] == ITEM else None
    except Exception:  # NumPy raises many kinds for a damaged file
        return None


def _empty_unless_of(ready, provenance, named):
    """Remove clips of another provenance, and store this one's in the folder."""
    label, text = ready / "provenance.json", json.dumps(provenance, indent=1)
    if not label.is_file() or label.read_text(encoding="utf-8") != text:
        shutil.rmtree(ready, ignore_errors=True)
        with atomic_path(label, named) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _write_split(writer, split, clips, action_of):
    """Write a split of clips {name: (file of its joints, frames)}, if there are any."""
    if not clips:
        return
    names = list(clips)
    start = np.cumsum([0] + [count for _, count in clips.values()])
    actions = np.array([action_of(name) for name in names])
    writer.split(split, Sequences(np.array(names), np.full(len(names), ""), actions, start))
    writer.array(split, "joints", np.float32, ITEM, (np.load(file) for file, _ in clips.values()))
