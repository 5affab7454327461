"""Frames of Human3.6M, in the layout of MMPose's preprocessing script; `dt_root` is the folder of

    annotation_body3d/cameras.pkl       {(subject, camera): {"f": (2, 1), "c": (2, 1), ...}}, px
    annotation_body3d/fps50/h36m_train.npz, h36m_test.npz
    images/S1/S1_Directions_1.54138969/S1_Directions_1.54138969_000001.jpg

and `dt_file` the folder of the two .npz, such as annotation_body3d/fps50 or annotation_body3d/fps10. Each has `imgname`
(n,), below images/; `part` (n, 17, 3), keypoints in px and whether they are labelled; `S` (n, 17, 4), joints in the
camera's axes, m, and whether they are known. Joints are in the order of lib/body/skeleton.py. Crops are of the box about
the keypoints, and `center` and `scale`, which the files have too, are not read. Never run on the real files here.
"""

from functools import cache
from pathlib import Path

import numpy as np

from lib.body.camera import look_at_rotation
from lib.body.skeleton import limb_vectors, root_relative
from lib.data.crop_maps import shown_part
from lib.data.image_crops import ImageCrops, People, refuse_keys
from lib.data.image_transforms import training_transforms
from lib.data.npz_files import read_npz
from lib.data.pickles import load_arrays
from lib.data.synthetic.random_views import STANDARD_SIZE
from lib.errors import UserError
from lib.files import require_folder

_SHAPES = {"part": (17, 3), "S": (17, 4)}
_HALF_PIXEL = 0.5  # keypoints of the files count from the centre of the first pixel


class HumanImages:
    """Human3.6M's frames as a data set of crops with keypoints and joints.

    A pose is in the axes of the camera turned to the middle of its crop, root-relative, in m of a body of standard size.
    The lens's distortion is not undone.

    Args:
        path: the folder.
        annotations: folder of the .npz, below it.
        size: (width, height) of a crop, px.
        stride: every how manyth frame is read.

    Raises:
        UserError: a folder is missing.
    """

    protocol, baseline_split = "crops", "train"

    def __init__(self, path, annotations, size, stride=1):
        self.path, self.size, self.stride = require_folder(path, "; set dt_root"), tuple(size), stride
        self.annotations = require_folder(self.path / annotations, "; set dt_file: annotation_body3d/fps50")
        self._people = cache(self._read)

    @classmethod
    def open(cls, config):
        """Return the data set of a config."""
        return cls(Path(config.dt_root), config.dt_file, config.crop, config.sample_stride)

    def refuse_empty(self, config):
        """Raise UserError if there is no test frame."""
        if not len(self._people("test").images):
            raise UserError(f"{self._file('test')}: holds no frame")

    def training_transforms(self, joints):
        """Return the transforms of training crops."""
        return training_transforms(joints)

    def crops(self, split, keys):
        """Return the `ImageCrops` of a split, with these keys: "image", "h36m" and "pose"."""
        refuse_keys(keys, ("h36m", "pose"), "h36m_images")
        folder = require_folder(self.path / "images", "; set dt_root") if "image" in keys else None
        return ImageCrops(self._people(split), folder, keys, self.size, training=split == "train")

    def _file(self, split):
        return self.annotations / f"h36m_{split}.npz"

    def _read(self, split):
        """Return the `People` of a split."""
        path = self._file(split)
        arrays = read_npz(path, ("imgname", *_SHAPES))
        names = np.atleast_1d(arrays["imgname"])[:: self.stride].astype(str).tolist()
        for key, shape in _SHAPES.items():
            found, needed = arrays[key].shape, (len(arrays["imgname"]), *shape)
            if found != needed:
                raise UserError(f"{path}: {key} has the shape {found}, {needed} is needed: 17 joints of Human3.6M")
        keypoints = arrays["part"][:: self.stride].astype(np.float32)
        joints = arrays["S"][:: self.stride, :, :3].astype(np.float32)
        for key, values in (("part", keypoints), ("S", joints)):
            wrong = np.flatnonzero(~np.isfinite(values).all((1, 2)))
            if len(wrong):
                raise UserError(f"{path}: {key} of {names[wrong[0]]} is not finite")
        keypoints[..., :2] += _HALF_PIXEL
        keypoints[..., 2] = 2 * (keypoints[..., 2] > 0)
        low, high = keypoints[..., :2].min(1), keypoints[..., :2].max(1)
        centre, width = shown_part(np.concatenate([low, high - low], 1), self.size)
        focal, middle = self._cameras(names, path)
        seen_from = look_at_rotation((centre - middle) / focal, 1.0)
        pose = root_relative(joints @ np.swapaxes(seen_from, 1, 2).astype(np.float32))
        length = np.linalg.norm(limb_vectors(pose), axis=-1).sum(1)
        if not (length > 0).all() or not (width > 0).all():
            raise UserError(f"{path}: S or part of {names[(length * width).argmin()]} is all in one point")
        pose *= (STANDARD_SIZE / length)[:, None, None]
        return People(names, None, centre, width, {"h36m": keypoints, "pose": pose})

    def _cameras(self, names, path):
        """Return focal lengths and principal points (n, 2), px, of the cameras of images by name."""
        file = self.path / "annotation_body3d" / "cameras.pkl"
        cameras = load_arrays(file, "; set dt_root")
        known = {}
        for name in names:
            key = _camera_of(name, path)
            if key in known:
                continue
            try:
                camera = cameras[key]
                known[key] = np.stack([np.asarray(camera[part], float).reshape(2) for part in ("f", "c")])
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise UserError(f"{file}: has no f and c, of two numbers each, of camera {key}") from error
        found = np.array([known[_camera_of(name, path)] for name in names]).reshape(-1, 2, 2)
        return found[:, 0], found[:, 1] + _HALF_PIXEL


def _camera_of(name, path):
    """Return the subject and the camera in the name of an image, S1/.../S1_Directions_1.54138969_000001.jpg."""
    file = name.rpartition("/")[2]
    subject, camera = file.partition("_")[0], file.partition(".")[2].partition("_")[0]
    if not (subject.startswith("S") and camera.isdigit()):
        raise UserError(
            f"{path}: imgname {name!r} is not like S1/S1_Directions_1.54138969/S1_Directions_1.54138969_1.jpg"
        )
    return subject, camera
