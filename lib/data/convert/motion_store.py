"""Files of motion as one store (lib/data/store.py): `joints` (n, 17, 3) float32, m, z up.

Each file is a clip. It is read once and its joints kept in a hidden folder beside the store until all are there: a
conversion that was interrupted, or met a file that cannot be read, goes on with what it finds there.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.body.skeleton import JOINTS
from lib.data.store import Runs, provenance_of, writing
from lib.errors import UserError
from lib.files import atomic_path, only_one

ITEM = (len(JOINTS), 3)
PARTS = ("train", "test")
_NOT_OF_CLIPS = ("input", "skip_bad", "actions", "test")  # keys of a provenance on which no clip's joints depend


@dataclass(frozen=True)
class Conversion:
    """written: False where the store was there already; skipped: what was wrong with each clip left out."""

    written: bool
    clips: int = 0
    frames: int = 0
    skipped: tuple = ()

    def summary(self, out, fps):
        """One line about the store `out`."""
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
    part_of=lambda name: "train",
    action_of=lambda name: "",
):
    """Writes the store `out`, unless one of this provenance is there.

    Args:
        root: where the files are from, for a message.
        files: {clip's name: path}.
        made_of: {clip's name: hexadecimal checksum of all files that its joints come from}.
        read: path -> joints (n, 17, 3).
        skip_bad: leave out files that cannot be read instead of stopping.
        progress: wraps the list of files, given "clips".
        part_of, action_of: of a clip's name.

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
                for part in PARTS:
                    _write_part(
                        writer, part, {name: c for name, c in clips.items() if part_of(name) == part}, action_of
                    )
        except Exception as error:
            if not (isinstance(error, _Unreadable) and any(ready.glob("*.npy"))):
                shutil.rmtree(ready, ignore_errors=True)
            raise
        shutil.rmtree(ready)
        return Conversion(True, len(clips), sum(count for _, count in clips.values()), tuple(skipped))


class _Unreadable(UserError):
    """A clip's file cannot be read."""


def visible_files(root):
    """All files below a folder, sorted; those that are hidden, or in a hidden folder, are left out."""
    found = (path for path in root.rglob("*") if not any(part[0] == "." for part in path.relative_to(root).parts))
    return sorted(path for path in found if path.is_file())


def _finite_joints(path, read):
    """What `read` makes of a file.

    Raises:
        UserError: it cannot be read, or gives joints that are not finite (names the frame of the result).
    """
    with np.errstate(all="ignore"):  # what overflows is not finite
        joints = read(path)
    bad = np.flatnonzero(~np.isfinite(joints).all((1, 2)))
    if len(bad):
        raise UserError(f"{path}: its joints are not finite in frame {bad[0]}; values of the file are too large")
    return joints


def _frames_of(path):
    """Frames of a finished clip; None if it is not there, or damaged."""
    try:
        joints = np.load(path, mmap_mode="r", allow_pickle=False)
        return len(joints) if joints.shape[1:] == ITEM else None
    except Exception:  # NumPy raises many kinds for a damaged file
        return None


def _empty_unless_of(ready, provenance, named):
    """Removes clips that were made of or by something else, and labels the folder."""
    label, text = ready / "provenance.json", json.dumps(provenance, indent=1)
    if not label.is_file() or label.read_text(encoding="utf-8") != text:
        shutil.rmtree(ready, ignore_errors=True)
        with atomic_path(label, named) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _write_part(writer, part, clips, action_of):
    """clips: {name: (file of its joints, frames)}."""
    if not clips:
        return
    names = list(clips)
    start = np.cumsum([0] + [count for _, count in clips.values()])
    actions = np.array([action_of(name) for name in names])
    writer.part(part, Runs(np.array(names), np.full(len(names), ""), actions, start))
    writer.array(part, "joints", np.float32, ITEM, (np.load(file) for file, _ in clips.values()))
