"""Conversion of a folder of motion capture files to a store (lib/data/store.py): `joints` (n, 17, 3) float32, m, z up.

A clip is one AMC or BVH file, named after it: source "05_01", camera "".
"""

import csv
import hashlib
import logging
from pathlib import Path

import numpy as np

from lib.data.convert.mocap.acclaim import read_amc, read_asf
from lib.data.convert.mocap.bvh import read_bvh
from lib.data.convert.mocap.joints import read_table
from lib.data.convert.mocap.motion import point_positions, resample
from lib.data.convert.mocap.text import bad_line, read_lines
from lib.data.convert.motion_store import visible_files, write_motion
from lib.data.store import check_target, checksum
from lib.errors import UserError, nearest
from lib.files import PROJECT, require_folder

log = logging.getLogger(__name__)

MADE_BY = "tools/convert_cmu.py"
_CODE = Path(__file__).parent
_TABLES = PROJECT / "configs" / "skeletons"
TABLES = {".amc": _TABLES / "cmu_asf.yaml", ".bvh": _TABLES / "cmu_bvh.yaml"}


def convert(
    root, out, fps=60.0, table=None, actions=None, test=None, skip_bad=False, progress=lambda items, what: items
):
    """Write the clips below `root` to the store `out`, unless it is there and up to date.

    Args:
        root: folder with ASF/AMC files, BVH files or both, at any depth.
        out: the store's folder.
        fps: frames per second of the result; clips of another rate are resampled.
        table: YAML that defines the 17 joints by points of the skeleton; by default `TABLES`, by kind of file.
        actions: CSV of clip name and action; a clip that is not in it has action "".
        test: file with one clip name per line; those are the split "test", the rest "train".
        skip_bad: leave out clips that cannot be read instead of stopping.
        progress: wraps a list of files, such as `tqdm`; `what` is the name of the step.

    Returns:
        A `lib.data.convert.motion_store.Conversion`.

    Raises:
        UserError: no clips; a clip, or another file given, cannot be read (names file and line); `out` cannot be written.
    """
    root, out = Path(root), Path(out)
    check_target(out, MADE_BY)
    clips = _find_clips(root)
    table_files = {kind: table or default for kind, default in TABLES.items()}
    tables = {kind: read_table(file) for kind, file in table_files.items()}
    action_of = _read_actions(actions, clips)
    in_test = _read_names(test, clips)
    checksums = {path: checksum(path) for path in progress(_files(root, {".asf", *TABLES}), "checksums")}
    provenance = {
        "made_by": MADE_BY,
        "code_sha256": _digest({path: checksum(path) for path in _CODE.glob("*.py")}, _CODE),
        "fps": fps,
        "skeletons": {
            kind: tables[kind].model_dump(mode="json") for kind in sorted({p.suffix.lower() for p in clips.values()})
        },
        "actions": action_of,
        "test": sorted(in_test),
        "skip_bad": skip_bad,
        "input": _describe_input(root, checksums),
    }

    def read(path):
        kind = path.suffix.lower()
        return read_clip(path, tables[kind], fps, table_files[kind])

    return write_motion(
        out,
        provenance,
        root,
        clips,
        {name: _made_of(path, checksums) for name, path in clips.items()},
        read,
        skip_bad,
        progress,
        split_of=lambda name: "test" if name in in_test else "train",
        action_of=lambda name: action_of.get(name, ""),
    )


def read_clip(path, table, fps, table_file):
    """Return the 17 joints (n, 17, 3) of an AMC or BVH file, float32, m, z up, at `fps`; `table` is that of `table_file`.

    Raises:
        UserError: the file, or its skeleton, cannot be read.
    """
    motion = read_bvh(path) if path.suffix.lower() == ".bvh" else read_amc(path, read_asf(_asf_of(path)))
    source_fps = motion.fps or table.fps
    if source_fps is None:
        raise UserError(f"{path}: does not state its frame rate; give fps in the skeleton's YAML file")
    if motion.frames <= table.skip_frames:
        raise UserError(f"{path}: has {motion.frames} frames, of which skip_frames leaves out {table.skip_frames}")
    try:
        joints = table.positions(motion.skeleton.names, point_positions(motion)[table.skip_frames :])
    except UserError as error:
        raise UserError(f"{path}: {error}; its table is {table_file}, --skeleton gives another") from error
    return resample(joints, source_fps, fps).astype(np.float32)


def _find_clips(root):
    """Return {name: path} of the clips below a folder, sorted by path."""
    require_folder(root, "; give the one with the ASF/AMC or BVH files")
    clips = {}
    for path in _files(root, TABLES):
        if path.stem in clips:
            raise UserError(f"{path}: there is another clip of this name, {clips[path.stem]}; rename or remove one")
        clips[path.stem] = path
    if not clips:
        raise UserError(f"{root}: has no .amc or .bvh files, at any depth")
    return clips


def _files(root, suffixes):
    return [path for path in visible_files(root) if path.suffix.lower() in suffixes]


def _asf_of(path):
    """Return the skeleton file of an AMC file: in its folder, the ASF of the name before its "_", or the only one."""
    there = _skeletons_beside(path)
    subject = path.stem.split("_")[0]
    fitting = [asf for asf in there if asf.stem.lower() == subject.lower()]
    if not fitting and len(there) == 1:
        log.warning("%s: its folder has no %s.asf; %s is taken", path, subject, there[0].name)
        return there[0]
    if not fitting:
        found = f"has {len(there)} ASF files, none of them" if there else "has no ASF file"
        raise UserError(f"{path}: its folder {found} {subject}.asf; put the clip's skeleton there")
    return fitting[0]


def _skeletons_beside(path):
    return sorted(file for file in path.parent.iterdir() if file.suffix.lower() == ".asf" and file.name[0] != ".")


def _made_of(path, checksums):
    """Return the checksum of a clip's name (which determines its skeleton), its file and the skeletons beside it."""
    parts = [path.name, checksums[path], *(checksums[asf] for asf in _skeletons_beside(path))]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _read_actions(path, clips):
    """Return {clip name: action} of a CSV file; its first line may be the heading name,action."""
    actions = {}
    for number, line in read_lines(path) if path else []:
        row = [cell.strip() for cell in next(csv.reader([line]))]
        if len(row) != 2 or not row[0]:
            raise bad_line(path, number, "expected a clip's name and its action: name,action")
        if actions.get(row[0], row[1]) != row[1]:
            raise bad_line(path, number, f"clip {row[0]!r} has another action before")
        if number == 1 and row == ["name", "action"]:
            continue
        if row[0] not in clips:
            raise _no_clip(path, number, row[0], clips)
        actions[row[0]] = row[1]
    return actions


def _read_names(path, clips):
    """Return the set of clip names in a file, one per line; # begins a comment."""
    names = set()
    for number, line in read_lines(path) if path else []:
        name = line.split("#")[0].strip()
        if name and name not in clips:
            raise _no_clip(path, number, name, clips)
        names |= {name} - {""}
    return names


def _no_clip(path, number, name, clips):
    return bad_line(path, number, f"there is no clip {name!r}{nearest(name, clips)}")


def _describe_input(root, checksums):
    size = sum(path.stat().st_size for path in checksums)
    return {"files": len(checksums), "bytes": size, "sha256": _digest(checksums, root)}


def _digest(checksums, root):
    """Return the SHA-256 of files' paths below `root` and their checksums, {path: checksum}, in path order."""
    lines = sorted(f"{path.relative_to(root).as_posix()} {found}\n" for path, found in checksums.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
