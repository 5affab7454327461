"""The footage's truth for tests: two people before four cameras, without the truth's own jitter."""

from functools import cache

import numpy as np
from conftest import ROOT
from scipy.signal import butter, sosfiltfilt

from lib.body.layouts import MEANS

FOLDER = ROOT / "benchmarks" / "footage"
KEYPOINTS = ROOT / "tests" / "data" / "footage_keypoints.npz"  # of the default detector in the four films
CAMERAS = ("cam01", "cam02", "cam03", "cam04")
SIZE, FPS = (1088, 1920), 60.0
FILTER = butter(2, 7, fs=FPS, output="sos")  # without delay: the truth's acceleration is mostly noise
LIMBS = [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16]  # joints that are triangulated


@cache
def truth():
    """The arrays of truth.npz: joints in m, filtered, with spine, nose and head made up where they should be."""
    arrays = dict(np.load(FOLDER / "truth.npz"))
    joints, frame = arrays["joints"] / 1e3, np.arange(arrays["joints"].shape[1])
    for person, joint in np.ndindex(2, 17):
        if (known := arrays["believed"][person, :, joint]).any():
            for axis in joints[person, :, joint].T:
                axis[:] = sosfiltfilt(FILTER, np.interp(frame, frame[known], axis[known]))
    for joint, parts in MEANS.items():
        joints[:, :, joint] = joints[:, :, list(parts)].mean(2)
    joints[:, :, 9], joints[:, :, 10] = joints[:, :, 8] + [0, 0, 0.15], joints[:, :, 8] + [0, 0, 0.28]
    return arrays | {"joints": joints, "t": arrays["t"] / 1e3}


def camera_poses(camera):
    """(2, F, 17, 3) m before the camera of this number."""
    return truth()["joints"] @ truth()["R"][camera].T + truth()["t"][camera]


def projected(camera):
    """(2, F, 17, 2) px."""
    k1, k2, p1, p2 = truth()["distortion"][camera]
    poses, matrix = camera_poses(camera), truth()["K"][camera]
    x, y = np.moveaxis(poses[..., :2] / poses[..., 2:], -1, 0)
    r = x * x + y * y
    radial = 1 + k1 * r + k2 * r * r
    places = [x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x), y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y]
    return np.stack(places, -1) @ matrix[:2, :2].T + matrix[:2, 2]


def up_error(camera, rotation):
    """Degrees between the world's up and the true one."""
    return np.degrees(np.arccos(rotation[2] @ truth()["R"][camera][:, 2]))


def on_ground(person):
    """(F,) bool: an ankle is still and low."""
    ankles = truth()["joints"][person][:, [3, 6]]
    speed = np.linalg.norm(np.gradient(ankles, axis=0), axis=-1) * FPS
    return ((speed < 0.3) & (ankles[..., 2] < ankles[..., 2].min() + 0.06)).any(1)


def match(poses, camera):
    """The `Person` of each of the two true people, by their keypoints."""
    places, believed = projected(camera), truth()["believed"]
    found = []
    for true in range(2):
        off = [
            np.median(np.linalg.norm(p.keypoints[..., :2] - places[true, p.frames], axis=-1)[believed[true, p.frames]])
            for p in poses.people
        ]
        found.append(poses.people[int(np.argmin(off))])
    return found
