"""Crops of rendered people, as tools/render_people.py writes them."""

from pathlib import Path

import numpy as np
import torch

from lib.data.image_transforms import training_transforms
from lib.data.store import INDEX, open_store, unfinished_of
from lib.data.synthetic.body import SOMEONE
from lib.errors import UserError, nearest

MADE_BY, CAMERA = "tools/render_people.py", "crop"
KEYS = ("image", "flow", "depth", "mask", "coco", "h36m", "pose")

_STORED = {"mask": "segments"}  # key: the array that it is made of, if not its own
_MADE = {
    "mask": lambda segments: segments < SOMEONE,
    "flow": np.float32,
    "depth": np.float32,
}


class RenderedSet:
    """Rendered people as a data set to train on and score; `dt_root`/`dt_file` is the folder of the set.

    Attributes:
        size: (width, height) of a crop, px.
        protocol: how keypoints are scored, a key of `lib.eval.KEYPOINT_SCORERS`.
        baseline_split: the split whose mean pose is scored too; None: no mean pose is.
    """

    protocol, baseline_split = "crops", "train"

    def __init__(self, path):
        self.path = Path(path)
        self.size = self.crops("test", ["pose"]).size

    @classmethod
    def open(cls, config):
        """Return the data set of a config."""
        return cls(Path(config.dt_root) / config.dt_file)

    def refuse_empty(self, config):
        """Do nothing: a set of rendered people has both splits."""

    def training_transforms(self, joints):
        """Return the transforms of training crops."""
        return training_transforms(joints)

    def crops(self, split, keys):
        """Return the `RenderedPeople` of a split, with these keys."""
        return RenderedPeople(self.path, split, keys)


class RenderedPeople(torch.utils.data.Dataset):
    """Crops of one split; they are read from disk when they are asked for.

    Args:
        path: folder of the set.
        split: "train" or "test".
        keys: arrays of a batch; beside `KEYS` there are "segments" (B, H, W) uint8, the parts of the person as in
            lib/data/synthetic/body.py; "root" (B, 3) m, the pelvis in camera axes; "body_size" (B,) m, lengths of its limbs
            in all; "focal" (B,) px; "person", "clip" (B,), numbers of them.

    Attributes:
        size: (width, height) px.

    Raises:
        UserError: there is no such set, split or key, or the set is unfinished or damaged.
    """

    def __init__(self, path, split, keys=KEYS):
        self.path, self.keys = Path(path), tuple(keys)
        store = _open(self.path)
        if split not in store.splits:
            raise UserError(f"{path}: split {split!r} is unknown{nearest(split, store.splits)}; there are train, test")
        arrays = store.splits[split].arrays
        for key in self.keys:
            if _STORED.get(key, key) not in arrays:
                raise UserError(
                    f"{path}: has no {key!r}{nearest(key, arrays)}; it has {', '.join(KEYS)} and {', '.join(arrays)}"
                )
        self._arrays = {key: arrays[_STORED.get(key, key)] for key in self.keys}
        self._length = store.splits[split].sequences.count
        self.size = store.cameras[CAMERA]

    def __len__(self):
        return self._length

    def __getitem__(self, indices):
        """Return crops by number: a list of B numbers, or a slice.

        Returns:
            {"image": (B, 3, H, W) uint8, RGB; "flow": (B, 2, H, W) float32, px to the next frame, 1/30 s later;
            "depth": (B, 1, H, W) float32, m; "mask": (B, H, W) bool, of the person; "coco", "h36m": (B, 17, 3) float32,
            x, y in px, (0.5, 0.5) the centre of the first pixel, and 2 where an image shows the joint, 1 where it is
            hidden, 0 outside; "pose": (B, 17, 3) float32, m of a body of standard size, camera axes, the pelvis at 0},
            those of `keys`.
        """
        return {
            key: torch.from_numpy(np.require(_MADE.get(key, np.asarray)(array[indices]), requirements=("C", "W")))
            for key, array in self._arrays.items()
        }


def _open(path):
    """Return the `Store` of a set."""
    command = f"python {MADE_BY} --out {path}"
    if not (path / INDEX).is_file() and unfinished_of(path).is_dir():
        raise UserError(f"{path}: is not rendered to its end; the command that began it goes on, such as {command}")
    if not path.is_dir():
        raise UserError(f"{path}: no such set of rendered people; make one: {command}")
    store = open_store(path, f"remove it and render it again: {command}")
    made_by = store.provenance.get("made_by")
    if made_by != MADE_BY:
        raise UserError(f"{path}: holds other data, made by {made_by}; make a set of rendered people: {command}")
    return store
