"""Motion capture through `Views`, as a data set that training reads and scores."""

from pathlib import Path

import numpy as np
import torch

from lib.body.skeleton import JOINTS
from lib.data.datasets.base import Dataset, TrainingClips
from lib.data.motion_files import read_motion_files
from lib.data.synthetic.random_views import Motion, ViewSampler
from lib.errors import UserError

_SEED = 0  # of the test views, which are the same in every run
_TEST_VIEWS = 2  # of each test clip
_TEST_APART = 4  # clip lengths of motion capture from the start of one test clip to that of the next
_TRAIN_SAMPLE = 2048  # views of training clips that the baselines are fitted on
_BATCH = 64


class RandomViews(Dataset):
    """Clips of motion capture, 60 frames per second, seen by synthetic cameras and detectors.

    Training draws a new random view of a clip whenever it is read: `shots` are what `views` looks at. The rows that a `DataReaderH36M` has
    are those of the test split, bodies and speeds as recorded, drawn once, and for the baselines a sample of training
    views. Poses are in m of a body of standard size.

    Args:
        n_frames: frames of a clip.
        data_stride_train: frames of motion capture from the start of one clip to that of the next.
        dt_root, motion_files: folder and names of files in the layout of data/README.md.
        held_back: subjects whose clips are of the test split, whatever their file says.
        flip: whether half of the training clips are mirrored.

    Raises:
        UserError: a file is missing or damaged, there is no such subject, or clips are too short.
    """

    input = "person"
    pose_unit = "m"

    @classmethod
    def open(cls, config):
        return cls(
            config.clip_len, config.data_stride, config.dt_root, config.motion_files, config.held_back, config.flip
        )

    def __init__(self, n_frames, data_stride_train, dt_root, motion_files, held_back=(), flip=True):
        self.path = dt_root
        motion = read_motion_files([Path(dt_root) / name for name in motion_files])
        for subject in held_back:
            if subject not in motion["subject"]:
                known = ", ".join(sorted(set(motion["subject"]) - {""}))
                raise UserError(f"held_back: {subject!r} is no subject of {', '.join(motion_files)}; there are {known}")
        self.n_frames = n_frames
        self.views = ViewSampler(Motion(motion["joints"], motion["start"]), n_frames, flip=flip)
        shots = self.views.motion.intervals(n_frames, data_stride_train)
        source = np.searchsorted(motion["start"], shots[:, 0].numpy(), side="right") - 1
        of_test = ((motion["split"] == "test") | np.isin(motion["subject"], list(held_back)))[source]
        self.shots = shots[torch.from_numpy(~of_test)]
        if not len(self.shots) or not of_test.any():
            raise UserError(f"{self.path}: no clip is long enough for {n_frames} frames; set clip_len")
        self._rows = self._draw(motion, shots, source, of_test)

    def _draw(self, motion, shots, source, of_test):
        """{part: arrays} of views, from their own random numbers."""
        chosen = {
            "train": np.random.default_rng(_SEED).choice(np.flatnonzero(~of_test), _TRAIN_SAMPLE),
            "test": np.repeat(_apart(shots, np.flatnonzero(of_test), _TEST_APART * self.n_frames), _TEST_VIEWS),
        }
        parts = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            for part, numbers in chosen.items():
                batches = [
                    self.views(shots[some], plain=True) for some in np.array_split(numbers, 1 + len(numbers) // _BATCH)
                ]
                inputs, poses = (torch.cat(views).flatten(0, 1).numpy() for views in zip(*batches))
                clip = np.repeat(source[numbers], self.n_frames)
                parts[part] = {
                    "inputs": inputs,
                    "poses": poses,
                    "joints_2.5d_image": poses * 1e3,
                    "2.5d_factor": np.ones(len(poses)),
                    "source": motion["name"][clip],
                    "action": motion["action"][clip],
                }
        return parts

    def training_clips(self, config):
        origin = f"{len(self.shots)} clips of {', '.join(config.motion_files)} in {self.path}, in random views"
        return TrainingClips(_Shots(self.shots), origin, (self._see,))

    def _see(self, batch):
        """Return a batch of random views of the clips of motion capture in a batch."""
        keypoints, poses = self.views(batch.pop("shot"))
        return batch | {"keypoints": keypoints, "pose": poses}

    def rows(self, split, key, rows=slice(None)):
        """Entries of an array of "train" or "test"; mm for `joints_2.5d_image`."""
        return self._rows[split][key][rows]

    def count(self, split):
        return len(self._rows[split]["poses"])

    def read_2d(self, split, rows=slice(None)):
        """Network input (..., 17, 3) of rows (...)."""
        return self.rows(split, "inputs", rows)

    def read_3d(self, split, rows=slice(None)):
        """Poses (..., 17, 3), m, of rows (...)."""
        return self.rows(split, "poses", rows)

    def read_mm(self, split, rows=slice(None)):
        """Poses (..., 17, 3), mm, of rows (...)."""
        return self.rows(split, "joints_2.5d_image", rows)

    def unit(self, split, rows=slice(None)):
        """mm of one unit of poses, (...) like rows."""
        return 1e3 * self.rows(split, "2.5d_factor", rows)

    def get_split_id(self):
        """Row numbers of clips: of the sample of training views (m, n_frames), of the test views (k, n_frames)."""
        return tuple(np.arange(self.count(part)).reshape(-1, self.n_frames) for part in ("train", "test"))

    def denormalize(self, test_data, chosen=slice(None)):
        """Poses in mm of some test clips, (k, n_frames, 17, 3)."""
        return np.reshape(test_data, (-1, self.n_frames, len(JOINTS), 3)) * 1e3


def _apart(shots, numbers, rows):
    """Those of `numbers` whose shots begin at least `rows` after the one before in the same clip."""
    kept, last = [], -rows
    for number in numbers:
        first = int(shots[number, 0])
        if first - last >= rows:
            kept.append(number)
            last = first
    return np.array(kept)


class _Shots(torch.utils.data.Dataset):
    """Clips of motion capture (n, 2): first and last row each."""

    def __init__(self, shots):
        self.shots = shots

    def __len__(self):
        return len(self.shots)

    def __getitem__(self, indices):
        return {"shot": self.shots[indices]}
