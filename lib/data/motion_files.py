"""Reader of the motion capture that ships with the project: files in the layout of data/README.md."""

import numpy as np

from lib.data.convert.cmu_views import read_motion
from lib.errors import UserError
from lib.files import require_file

FPS = 60.0  # frame rate of the result of `read_motion_files`


def read_motion_files(paths):
    """Return the clips of several files, at 60 frames per second, concatenated.

    Returns:
        {"joints": (n, 17, 3) float32, m, z up; "start": (m + 1,) first frames of the clips, and n; "name", "action",
        "split", "subject": (m,) strings}.

    Raises:
        UserError: a file is missing or damaged, or none is given.
    """
    if not paths:
        raise UserError("motion_files: is empty; name files of dt_root, such as cmu17_large.npz")
    files = [_read(path) for path in paths]
    lengths = np.concatenate([np.diff(file["start"]) for file in files])
    keys = ("joints", "name", "action", "split", "subject")
    return {
        **{key: np.concatenate([file[key] for file in files]) for key in keys},
        "start": np.cumsum([0, *lengths]),
    }


def _read(path):
    motion = read_motion(require_file(path, "; set dt_root and motion_files"))
    joints = (motion["root"][:, None] + motion["joints"].astype(np.float32)) * 1e-4  # 0.1 mm -> m
    clips = [_resample(joints[a:b], float(motion["fps"])) for a, b in zip(motion["start"], motion["start"][1:])]
    return {**motion, "joints": np.concatenate(clips), "start": np.cumsum([0, *map(len, clips)])}


def _resample(joints, fps):
    """Return joints (n, 17, 3) at `FPS`, linear between frames."""
    if fps == FPS:
        return joints
    times = np.arange(int((len(joints) - 1) * FPS / fps) + 1) * (fps / FPS)
    before = np.minimum(times.astype(int), len(joints) - 2)
    share = (times - before).astype(np.float32)[:, None, None]
    return joints[before] + share * (joints[before + 1] - joints[before])
