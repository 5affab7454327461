"""Poses as a .npz file of plain arrays, which `numpy.load` reads without pickle.

    format_version  ()       1
    source          ()       text, the video's name
    fps             ()       mean frames per second
    times           (F,)     seconds of every frame from the first
    size            (2,)     width and height of the upright image, px
    focal           ()       px
    rotation        (3, 3)   camera axes -> world axes
    shift           (3,)     m: world = rotation @ camera + shift
    joints          (17,)    text
    limbs           (16, 2)  joints that a bone connects, from 0
    person_ids      (P,)     and then for each person, here the one whose id is 1, seen in n frames:
    person_1_frames     (n,)        numbers of the video's frames, from 0
    person_1_bridged    (n,)        bool: nobody was detected, the pose is interpolated
    person_1_keypoints  (n, 17, 3)  x, y in px, confidence 0 to 1
    person_1_camera     (n, 17, 3)  m: x right, y down, z forward
    person_1_world      (n, 17, 3)  m: x right, y forward, z up

The arrays are not compressed: deflate takes only 9 % off, as the last bits of estimated positions are noise, and
writes 25 MB/s.
"""

import zipfile

import numpy as np

from lib.body.skeleton import JOINTS, LIMBS
from lib.data import npz_files
from lib.errors import UserError, describe
from lib.files import atomic_path
from lib.video.poses import Person, Poses

VERSION = 1
BLOCK = 4096  # frames held at once
SHAPES = {
    "frames": (),
    "bridged": (),
    "keypoints": (len(JOINTS), 3),
    "camera": (len(JOINTS), 3),
    "world": (len(JOINTS), 3),
}  # of one frame


def write_npz(poses, path):
    """Write all of `poses` to the .npz file `path`, atomically and block by block.

    Raises:
        UserError: the file cannot be written.
    """
    arrays = {
        "format_version": VERSION,
        "source": poses.source,
        "fps": poses.fps,
        "times": poses.times,
        "size": (poses.width, poses.height),
        "focal": poses.focal,
        "rotation": poses.rotation,
        "shift": poses.shift,
        "joints": JOINTS,
        "limbs": LIMBS,
        "person_ids": np.array([person.id for person in poses.people], dtype=np.int64),
    }
    for person in poses.people:
        arrays |= {f"person_{person.id}_{name}": getattr(person, name) for name in SHAPES}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write_array(member, np.asarray(array))


def _write_array(member, array):
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(member, header)
    if array.ndim == 0:
        member.write(array.tobytes())
    else:
        for start in range(0, len(array), BLOCK):
            member.write(array[start : start + BLOCK].tobytes())


def read_npz(path):
    """Read the `Poses` that `write_npz` wrote.

    Raises:
        UserError: the file is missing, damaged or holds something else.
    """
    arrays = npz_files.read_npz(path)
    try:
        version = _array(arrays, "format_version", ())
        if version != VERSION:
            raise UserError(f"{path}: has format {version}, this program reads format {VERSION}")
        width, height = _array(arrays, "size", (2,)).tolist()
        return Poses(
            source=str(_array(arrays, "source", ())),
            times=_array(arrays, "times", (len(arrays["times"]),)),
            width=width,
            height=height,
            focal=float(_array(arrays, "focal", ())),
            rotation=_array(arrays, "rotation", (3, 3)),
            shift=_array(arrays, "shift", (3,)),
            people=[_person(arrays, id) for id in arrays["person_ids"].tolist()],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: holds no exported poses ({describe(error)})") from error


def _person(arrays, id):
    count = len(arrays.get(f"person_{id}_frames", ()))
    return Person(
        id, **{name: _array(arrays, f"person_{id}_{name}", (count, *shape)) for name, shape in SHAPES.items()}
    )


def _array(arrays, name, shape):
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    array = arrays[name]
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    return array
