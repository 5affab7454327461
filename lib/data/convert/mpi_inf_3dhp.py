"""Conversion of MPI-INF-3DHP's archive, or of the npz files derived from it, to a store."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from lib.body.skeleton import JOINTS, ROOT
from lib.data.pickles import load_npz_objects
from lib.data.store import Sequences, check_target, checksum, provenance_of, writing
from lib.errors import UserError, describe
from lib.files import require_file, require_folder

log = logging.getLogger(__name__)

from lib.data.datasets.mpi_inf_3dhp import MADE_BY, MOST_ACTIVITIES, STORED

# The archive's 17 joints: 0 head top, 1 neck, 2-4 right arm, 5-7 left arm, 8-10 right leg, 11-13 left leg, 14 root,
# 15 spine, 16 head. Entry j is the one that is joint j of `lib.body.skeleton.JOINTS`: neck is thorax, head is nose.
JOINT_ORDER = (14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4)

CAMERA_SIZES = {"2048x2048": (2048, 2048), "1920x1080": (1920, 1080)}  # px

TRAIN_CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
TRAIN_FRAMES = {  # frames of each camera that are used: the first ones
    "S1 Seq1": 6416, "S1 Seq2": 12430, "S2 Seq1": 6502, "S2 Seq2": 6081,
    "S3 Seq1": 12488, "S3 Seq2": 12283, "S4 Seq1": 6171, "S4 Seq2": 6675,
    "S5 Seq1": 12820, "S5 Seq2": 12312, "S6 Seq1": 6188, "S6 Seq2": 6145,
    "S7 Seq1": 6239, "S7 Seq2": 6320, "S8 Seq1": 6468, "S8 Seq2": 6054,
}  # fmt: skip
TEST_CAMERAS = {f"TS{n}": "1920x1080" if n in (5, 6) else "2048x2048" for n in range(1, 7)}
_LEAST_HEIGHT = 10  # mm, pelvis to head top

_JOINTS_OF_28 = (7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6)  # the archive's 17 in `annot.mat`

_CHANNELS = {"joint_2d": 2, "joint_3d": 3}
_ARCHIVE_KEYS = {"joint_2d": "annot2", "joint_3d": "univ_annot3"}
_NPZ_KEYS = {"joint_2d": "data_2d", "joint_3d": "data_3d"}

# Folders that are searched for the archive's S1 to S8 and TS1 to TS6.
_TRAIN_FOLDERS = (".", "data", "train", "train_data", "mpi_inf_3dhp")
_TEST_FOLDERS = (
    *(".", "mpi_inf_3dhp_test_set", "mpi_inf_3dhp_test_set/mpi_inf_3dhp_test_set", "test", "test_data"),
    "../mpi_inf_3dhp_test_set",
)

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def convert(source, target, progress=lambda items, label: items):
    """Write the store of MPI-INF-3DHP, unless it is there and up to date.

    Its splits "train" and "test" hold `joint_2d` (n, 17, 2) float32 px, `joint_3d` (n, 17, 3) float32 mm in camera
    coordinates, both in the project's joint order, `valid` (n,) bool and `activity` (n,) int8.

    Args:
        source: the `Archive` or `NpzFiles` to read.
        target: folder of the store.
        progress: wraps the files to hash or the sequences to write; the second argument is the name of the step.

    Returns:
        Whether it was written.

    Raises:
        UserError: a file is missing, unreadable or not in its layout (names file, sequence, camera and frame), or the
            store cannot be written; an earlier store is untouched then.
    """
    target = Path(target)
    check_target(target, MADE_BY)
    provenance = {
        "made_by": MADE_BY,
        "of": {
            name: {"bytes": path.stat().st_size, "sha256": checksum(path)}
            for name, path in progress(list(source.files.items()), "checksums")
        },
    }
    if provenance_of(target) == provenance:
        return False
    splits = source.splits(progress)
    if not any(sequence.valid.any() for sequence in splits["test"]):
        raise UserError(f"{splits['test'][0].file}: no frame of {', '.join(TEST_CAMERAS)} is valid; copy it again")
    with writing(target, provenance, CAMERA_SIZES) as writer:
        for split, sequences in splits.items():
            writer.split(split, _sequences_of(sequences))
        for split, sequences in splits.items():
            for key, (dtype, shape) in STORED.items():
                blocks = (_blocks(sequence, key) for sequence in progress(sequences, f"{split} {key}"))
                writer.array(split, key, dtype, shape, chain.from_iterable(blocks))
    return True


@dataclass(frozen=True)
class _Sequence:
    """One sequence of either layout: the frames of its cameras, concatenated."""

    file: Path
    sources: list  # of each camera: source, camera, action
    frames: list  # of each camera
    valid: np.ndarray  # (all frames,)
    activity: np.ndarray  # (all frames,)
    keys: dict  # names of "joint_2d" and "joint_3d" in the file
    read: Callable  # that key -> iterator of one array (frames, 17, 2 or 3) per camera, in the archive's joint order

    def __post_init__(self):
        for (source, _, _), frames in zip(self.sources, self.frames):
            if frames == 0:
                raise UserError(f"{self.file}: {source}: has no frames")


class Archive:
    """Archive as published: S1/Seq1/annot.mat to S8/Seq2/annot.mat and TS1/annot_data.mat to TS6/annot_data.mat.

    Args:
        root: the folder with S1 to S8, or one with a usual folder that has them.
        test_root: the same for TS1 to TS6; by default below or beside the training set.

    Raises:
        UserError: a folder or file is missing.
    """

    def __init__(self, root, test_root=None):
        subjects = sorted({name.split()[0] for name in TRAIN_FRAMES})
        train = _folder_of(subjects, root, _TRAIN_FOLDERS, "; give the folder of the archive, with S1 to S8")
        test = _folder_of(TEST_CAMERAS, test_root or root, _TEST_FOLDERS, "; or give its folder by --test-root")
        self.files = {}
        for name in TRAIN_FRAMES:
            self.files[name] = require_file(train.joinpath(*name.split(), "annot.mat"), "; all of S1 to S8 are needed")
        for name in TEST_CAMERAS:
            self.files[name] = require_file(test / name / "annot_data.mat", "; all of TS1 to TS6 are needed")

    def splits(self, progress):
        """Return {"train", "test": list of `_Sequence`}."""
        return {
            "train": [self._train(name) for name in progress(list(TRAIN_FRAMES), "frames")],
            "test": [self._test(name) for name in TEST_CAMERAS],
        }

    def _train(self, name):
        file, used = self.files[name], TRAIN_FRAMES[name]
        frames = [min(used, len(cell)) for cell in _read_mat(file, "annot2", TRAIN_CAMERAS)]
        if min(frames) < used:
            log.warning("%s: has %d frames, not %d", file, min(frames), used)
        return _train_sequence(file, name, frames, _ARCHIVE_KEYS, partial(_read_annot, file, frames))

    def _test(self, name):
        file = self.files[name]
        (valid,), (activity,) = (_read_mat(file, key) for key in ("valid_frame", "activity_annotation"))
        return _test_sequence(file, name, valid, activity, _ARCHIVE_KEYS, partial(_read_annot_data, file))


class NpzFiles:
    """Npz files that P-STMO derived from the archive and later papers share; they have no activity labels.

    Args:
        train: `data_train_3dhp.npz`: {"S1 Seq1": [{"0": {data_2d (n, 17, 2) px, data_3d (n, 17, 3) mm}, ...}, fps]}.
        test: `data_test_3dhp.npz`: {"TS1": {data_2d, data_3d, valid (n,)}, ...}.

    Raises:
        UserError: a file is missing.
    """

    def __init__(self, train, test):
        self.files = {"train": require_file(train), "test": require_file(test)}

    def splits(self, progress):
        """Return {"train", "test": list of `_Sequence`}, with the content of both files in memory."""
        train, test = (_content(self.files[split]) for split in progress(["train", "test"], "reading"))
        return {
            "train": [self._train(train, name) for name in TRAIN_FRAMES],
            "test": [self._test(test, name) for name in TEST_CAMERAS],
        }

    def _train(self, content, name):
        file = self.files["train"]
        entry = _entry(content, name, file)
        if not isinstance(entry, list | tuple | np.ndarray) or not len(entry):
            raise UserError(f"{file}: {name} is {type(entry).__name__}, expected [cameras, fps]")
        cameras = [_entry(entry[0], str(camera), f"{file}: {name}") for camera in TRAIN_CAMERAS]
        frames = [
            len(np.atleast_1d(_entry(arrays, "data_2d", f"{file}: {name} cam {camera}")))
            for camera, arrays in zip(TRAIN_CAMERAS, cameras)
        ]
        places = [f"{file}: {name} cam {camera}" for camera in TRAIN_CAMERAS]
        return _train_sequence(file, name, frames, _NPZ_KEYS, partial(_read_npz, places, cameras))

    def _test(self, content, name):
        file = self.files["test"]
        arrays = _entry(content, name, file)
        valid = np.asarray(_entry(arrays, "valid", f"{file}: {name}"))
        activity = np.zeros(valid.size, np.int8)
        return _test_sequence(file, name, valid, activity, _NPZ_KEYS, partial(_read_npz, [f"{file}: {name}"], [arrays]))


def _train_sequence(file, name, frames, keys, read):
    sources = [(f"{name} cam {camera}", "2048x2048", "") for camera in TRAIN_CAMERAS]
    count = sum(frames)
    return _Sequence(file, sources, frames, np.ones(count, bool), np.zeros(count, np.int8), keys, read)


def _test_sequence(file, name, valid, activity, keys, read):
    """Return the `_Sequence` of a test sequence; valid, activity: one number per frame."""
    for key, numbers, most in (("valid frames", valid, 1), ("activity labels", activity, MOST_ACTIVITIES)):
        if numbers.size != valid.size:
            raise UserError(f"{file}: {name}: has {numbers.size} {key}, but marks {valid.size} frames as valid or not")
        if numbers.dtype.kind not in "biuf" or not np.isin(numbers, range(most + 1)).all():
            raise UserError(f"{file}: {name}: has {key} other than 0 to {most}")
    sources = [(name, TEST_CAMERAS[name], name)]
    return _Sequence(file, sources, [valid.size], valid.ravel() == 1, activity.ravel(), keys, read)


def _sequences_of(sequences):
    """Return the `Sequences` of the frames of a list of `_Sequence`."""
    names = np.array([names for sequence in sequences for names in sequence.sources], dtype=str)
    frames = [frames for sequence in sequences for frames in sequence.frames]
    source, camera, action = names.T
    return Sequences(source, camera, action, np.cumsum([0, *frames]))


def _blocks(sequence, key):
    """Yield the checked arrays of a sequence that are stored under `key`."""
    if key not in _CHANNELS:
        yield getattr(sequence, key)
        return
    end = 0
    arrays = sequence.read(sequence.keys[key])
    for (source, _, _), frames, poses in zip(sequence.sources, sequence.frames, arrays):
        start, end = end, end + frames
        place = f"{sequence.file}: {source}: {sequence.keys[key]}"
        expected = (frames, len(JOINTS), _CHANNELS[key])
        if poses.shape != expected:
            _check_valid_is_as_long(sequence, key, poses)
            raise UserError(f"{place} has shape {poses.shape}, expected {expected}")
        if poses.dtype.kind not in "iuf":
            raise UserError(f"{place} holds {poses.dtype}, expected numbers")
        bad = ~np.isfinite(poses).all((1, 2))
        if key == "joint_3d":
            bad &= sequence.valid[start:end]  # a frame that is not valid may have no pose, but is a network's input
        if bad.any():
            raise UserError(f"{place} is not finite in frame {np.flatnonzero(bad)[0]}")
        poses = poses[:, JOINT_ORDER]
        if key == "joint_3d":
            _check_millimetres(place, poses[sequence.valid[start:end]])
        yield poses


def _check_valid_is_as_long(sequence, key, poses):
    """Raise a UserError if both arrays of a test sequence have poses for more or fewer frames than `valid`."""
    if len(sequence.frames) != 1 or poses.ndim != 3 or len(poses) == sequence.frames[0]:
        return
    (other,) = _CHANNELS.keys() - {key}
    (others,) = sequence.read(sequence.keys[other])
    if others.shape[:1] == poses.shape[:1]:
        raise UserError(
            f"{sequence.file}: {sequence.sources[0][0]}: has {sequence.frames[0]} valid frames (0 or 1), expected "
            f"{len(poses)}, as {sequence.keys[key]} and {sequence.keys[other]} have"
        )


def _check_millimetres(place, poses):
    """Raise a UserError if poses (n, 17, 3), n may be 0, are too small to be in mm."""
    heights = np.linalg.norm(poses[:, JOINTS.index("head top")] - poses[:, ROOT], axis=-1)
    if len(heights) and np.median(heights) < _LEAST_HEIGHT:
        raise UserError(f"{place}: pelvis to head top is {np.median(heights):.3g} at the median; expected poses in mm")


def _read_annot(file, frames, key):
    """Yield (frames, 17, 2 or 3) for each of `TRAIN_CAMERAS` from a training sequence's `annot.mat`."""
    joints, channels = 28, {"annot2": 2, "univ_annot3": 3}[key]
    for camera, count, cell in zip(TRAIN_CAMERAS, frames, _read_mat(file, key, TRAIN_CAMERAS)):
        if cell.ndim != 2 or cell.shape[1] != joints * channels or len(cell) < count:
            expected = (count, joints * channels)
            raise UserError(f"{file}: camera {camera}: {key} has shape {cell.shape}, expected {expected}")
        yield cell[:count].reshape(count, joints, channels)[:, _JOINTS_OF_28]


def _read_annot_data(file, key):
    """Yield (frames, 17, 2 or 3) from a test sequence's `annot_data.mat`, which holds (2 or 3, 17, 1, frames)."""
    for array in _read_mat(file, key):
        yield array.T.squeeze(1) if array.ndim == 4 and array.shape[2] == 1 else array.T


def _read_npz(places, cameras, key):
    """Yield array `key` of each dict of a list; `places` are their names in messages."""
    for place, arrays in zip(places, cameras):
        yield np.asarray(_entry(arrays, key, place))


def _content(file):
    """Return the dict in one of the npz files."""
    content = load_npz_objects(file, "data")
    return content.item() if isinstance(content, np.ndarray) and content.size == 1 else content


def _entry(content, key, place):
    """Return an entry of a dict."""
    if not isinstance(content, dict):
        raise UserError(f"{place}: is {type(content).__name__}, expected a dict with {key!r}")
    if key not in content:
        raise UserError(f"{place}: lacks {key!r}")
    return content[key]


def _folder_of(names, root, folders, hint):
    """Return the first of `folders` below `root` that contains a folder of one of these names."""
    require_folder(root, hint)
    for folder in folders:
        if any((Path(root) / folder / name).is_dir() for name in names):
            return Path(root) / folder
    first, *_, last = names
    raise UserError(f"{root}: has none of the folders {first} to {last}, nor has any of {', '.join(folders[1:])}{hint}")


def _read_mat(path, name, cells=None):
    """Yield variable `name` of a MATLAB file of any version, or its cells of these numbers, in MATLAB's shape.

    Raises:
        UserError: there is no such variable or cell, the file is damaged, or the package to read it is missing.
    """
    with open(path, "rb") as handle:
        start = handle.read(512 + len(_HDF5_SIGNATURE))  # MATLAB puts 512 bytes of its own before
    try:
        yield from (_read_mat_73 if _HDF5_SIGNATURE in start else _read_mat_5)(path, name, cells)
    except (MemoryError, UserError):
        raise
    except ImportError as error:
        package = error.name.split(".")[0]
        raise UserError(f"{path}: a package that reads it is missing: pip install {package}") from error
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{path}: is truncated or not a MATLAB file ({describe(error)}); copy it again") from error


def _read_mat_5(path, name, cells):
    from scipy.io import loadmat

    stored = loadmat(path, variable_names=[name])
    _check_variable(path, name, stored)
    if cells is None:
        yield stored[name]
        return
    arrays = stored[name].ravel()
    _check_cells(path, name, arrays, cells)
    for cell in cells:
        yield arrays[cell]


def _read_mat_73(path, name, cells):
    """MATLAB 7.3 writes HDF5, which has the axes in the opposite order, and cells as references."""
    import h5py

    with h5py.File(path) as stored:
        _check_variable(path, name, stored)
        array = stored[name][()]
        if cells is None:
            yield array.T
            return
        references = array.ravel()
        _check_cells(path, name, references, cells)
        for cell in cells:
            yield stored[references[cell]][()].T


def _check_variable(path, name, stored):
    if name not in stored:
        raise UserError(f"{path}: lacks {name!r}")


def _check_cells(path, name, arrays, cells):
    if arrays.dtype.kind != "O":
        raise UserError(f"{path}: {name!r} holds {arrays.dtype}, expected cells, one for each camera")
    if len(arrays) <= max(cells):
        raise UserError(f"{path}: {name!r} has {len(arrays)} cells, camera {max(cells)} is missing")
