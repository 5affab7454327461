"""Conversion of AMASS motion (SMPL-H) to a store (lib/data/store.py): `joints` (n, 17, 3) float32, m, z up, split "train".

A clip is one .npz file, named by its path: source "CMU/01/01_01_poses", camera and action "". The 17 joints are weighted
sums of the mesh's vertices, by a regressor file, or points of the skeleton, by configs/skeletons/smplh.yaml.
"""

import hashlib
from pathlib import Path

import numpy as np

from lib.body.skeleton import JOINTS
from lib.data.convert.mocap.joints import read_table
from lib.data.convert.mocap.motion import LEAST_FPS, MOST_FPS, resample
from lib.data.convert.motion_store import ITEM, visible_files, write_motion
from lib.data.convert.smplh import (
    JOINT_COUNT,
    JOINT_NAMES,
    POINT_NAMES,
    Regressed,
    Skeleton,
    check_array,
    find_model,
    read_model,
)
from lib.data.npz_files import read_npy, read_npz
from lib.data.store import check_target, checksum
from lib.errors import UserError
from lib.files import PROJECT, require_folder

MADE_BY = "tools/convert_amass.py"
TABLE = PROJECT / "configs" / "skeletons" / "smplh.yaml"
BLOCK = 2048  # frames posed at a time
_SUM_TOLERANCE = 1e-2  # of a regressor's row
GENDERS = ("male", "female")  # a neutral body is taken for female, as published

_KEYS = ["poses", "betas", "trans", "mocap_framerate", "gender"]
_NO_MOTION = ("shape.npz", "_stagei.npz")  # ends of the names of files that hold a shape and no motion


def convert(
    root, body_models, out, fps=60.0, regressor=None, table=None, skip_bad=False, progress=lambda items, what: items
):
    """Write the motion below `root` to the store `out`, unless it is there and up to date.

    Args:
        root: folder with AMASS's .npz files (SMPL-H), at any depth.
        body_models: folder of the SMPL-H models, see `find_model`.
        out: the store's folder.
        fps: frames per second of the result; motion of another rate is resampled.
        regressor: .npy file (17, V), joints from vertices, or None; its rows are in the order of
            `lib.body.skeleton.JOINTS`, and each sums to 1.
        table: YAML that defines the 17 joints by points of the skeleton, without a regressor; None: `TABLE`.
        skip_bad: leave out files that cannot be read instead of stopping.
        progress: wraps a list of files, such as `tqdm`; `what` is the name of the step.

    Returns:
        A `lib.data.convert.motion_store.Conversion`.

    Raises:
        UserError: no files; a file, model or regressor is missing or damaged (names file and array); `out` cannot be
            written.
    """
    root, out = Path(root), Path(out)
    check_target(out, MADE_BY)
    files = _find_files(root)
    bodies = _Bodies(body_models, regressor, table)
    checksums = {name: checksum(path) for name, path in progress(list(files.items()), "checksums")}
    provenance = {
        "made_by": MADE_BY,
        "code_sha256": [checksum(Path(__file__).with_name(name)) for name in ("amass.py", "smplh.py")],
        "fps": fps,
        "joints": bodies.described,
        "body_models": {gender: checksum(path) for gender, path in bodies.files.items()},
        "skip_bad": skip_bad,
        "input": _describe_input(files, checksums),
    }
    return write_motion(
        out, provenance, root, files, checksums, lambda path: read_motion(path, bodies, fps), skip_bad, progress
    )


def read_motion(path, bodies, fps):
    """Return the 17 joints (n, 17, 3) of an AMASS file, float32, m, z up, at `fps`.

    Raises:
        UserError: the file is truncated, lacks an array, or has one of another shape or not finite.
    """
    found = read_npz(path, _KEYS)
    poses, trans, betas = found["poses"], found["trans"], found["betas"]
    if poses.ndim != 2 or poses.shape[1] != 3 * JOINT_COUNT or not len(poses):
        raise UserError(
            f"{path}: 'poses' has shape {poses.shape}, expected (n, {3 * JOINT_COUNT}): {JOINT_COUNT} joints, AMASS's "
            "SMPL+H files"
        )
    check_array(path, "poses", poses, poses.shape)
    check_array(path, "trans", trans, (len(poses), 3))
    check_array(path, "betas", betas, (betas.size,))
    rate = found["mocap_framerate"].reshape(()) if found["mocap_framerate"].size == 1 else found["mocap_framerate"]
    check_array(path, "mocap_framerate", rate, ())
    if not LEAST_FPS <= rate <= MOST_FPS:
        raise UserError(f"{path}: 'mocap_framerate' is {rate}, expected {LEAST_FPS} to {MOST_FPS} frames per second")
    ratio = float(rate) / fps
    step = max(1, round(ratio))
    if abs(ratio - step) <= 1e-3 * step:  # poses that `resample` would drop are not computed
        poses, trans, ratio = poses[::step], trans[::step], 1.0
    points_of = bodies.points_of(_gender(path, found["gender"]), betas.astype(np.float64))
    joints = np.empty((len(poses), *ITEM), np.float32)
    for start in range(0, len(poses), BLOCK):
        block = slice(start, start + BLOCK)
        joints[block] = points_of(poses[block].astype(np.float64), trans[block].astype(np.float64))
    return joints if ratio == 1 else resample(joints, ratio * fps, fps).astype(np.float32)


class _Bodies:
    """Body models of both genders, and the definition of the 17 joints by them."""

    def __init__(self, folder, regressor, table):
        self.files = {gender: find_model(folder, gender) for gender in GENDERS}
        self.models = {gender: read_model(path, regressor is not None) for gender, path in self.files.items()}
        if regressor is None:
            self.regressor, self.table = None, read_table(table or TABLE)
            try:
                self.table.positions(POINT_NAMES, np.zeros((1, len(POINT_NAMES), 3)))
            except UserError as error:
                raise UserError(f"{table or TABLE}: {error}") from error
            self.described = self.table.model_dump(mode="json")
        else:
            self.regressor = _read_regressor(regressor, self.models)
            self.described = {"regressor_sha256": checksum(regressor)}

    def points_of(self, gender, betas):
        """Return a function from poses (n, 156) and translations (n, 3) to the 17 joints (n, 17, 3)."""
        if self.regressor is not None:
            return Regressed(self.models[gender], betas, self.regressor)
        skeleton = Skeleton(self.models[gender], betas)
        return lambda poses, trans: self.table.positions(POINT_NAMES, skeleton(poses, trans))


def _read_regressor(path, models):
    regressor = read_npy(path)
    for model in models.values():
        check_array(path, "regressor", regressor, (len(JOINTS), len(model.template)))
    regressor = regressor.astype(np.float64)
    wrong = np.flatnonzero(np.abs(regressor.sum(1) - 1) > _SUM_TOLERANCE)
    if len(wrong):
        raise UserError(f"{path}: row {wrong[0]} sums to {regressor[wrong[0]].sum():g}, expected 1")
    for model in models.values():
        _check_sides(path, regressor, model)
    return regressor


def _check_sides(path, regressor, model):
    """Raise a UserError if the regressor's right hip is to the left of its left hip."""
    right, left = (regressor[JOINTS.index(name)] @ model.template for name in ("right hip", "left hip"))
    joints = model.regressor @ model.template
    to_the_right = joints[JOINT_NAMES.index("right_hip")] - joints[JOINT_NAMES.index("left_hip")]
    if (right - left) @ to_the_right <= 0:
        raise UserError(
            f"{path}: its rows are in another order (left and right legs are swapped); expected {', '.join(JOINTS)}"
        )


def _gender(path, array):
    value = array.item() if array.size == 1 else None
    value = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    value = value.removeprefix("b'").removesuffix("'").lower()  # bytes that some releases made text of
    if value not in (*GENDERS, "neutral"):
        raise UserError(f"{path}: 'gender' is {value!r}, expected male, female or neutral")
    return value if value in GENDERS else "female"


def _find_files(root):
    """Return {name: path} of the motion files below a folder, sorted; a name is the relative path without its suffix."""
    require_folder(root, "; give the one with AMASS's .npz files")
    paths = (path for path in visible_files(root) if path.suffix == ".npz" and not path.name.endswith(_NO_MOTION))
    files = {path.relative_to(root).with_suffix("").as_posix(): path for path in paths}
    if not files:
        raise UserError(f"{root}: has no .npz files of motion, at any depth")
    return files


def _describe_input(files, checksums):
    lines = [f"{name} {checksum}\n" for name, checksum in checksums.items()]
    size = sum(path.stat().st_size for path in files.values())
    return {"files": len(files), "bytes": size, "sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}
