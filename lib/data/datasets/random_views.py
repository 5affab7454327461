"""Random views of motion capture as a data set to train on and score."""

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

    Training draws a new random view of a clip whenever it is read: `views` samples one of an interval of `intervals`. The
    frames that can be read are those of the test split, bodies and speeds as recorded, drawn once, and, for the
    baselines, of a sample of training views. Poses are in m of a body of standard size.

    Args:
        n_frames: frames of a clip.
        data_stride_train: frames of motion capture from the start of one clip to that of the next.
        dt_root, motion_files: folder and names of files in the layout of data/README.md.
        held_back: subjects whose clips belong to the test split, whatever their file states.
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
        intervals = self.views.motion.intervals(n_frames, data_stride_train)
        source = np.searchsorted(motion["start"], intervals[:, 0].numpy(), side="right") - 1
        of_test = ((motion["split"] == "test") | np.isin(motion["subject"], list(held_back)))[source]
        self.intervals = intervals[torch.from_numpy(~of_test)]
        if not len(self.intervals) or not of_test.any():
            raise UserError(f"{self.path}: no clip is long enough for {n_frames} frames; set clip_len")
        self._arrays = self._draw(motion, intervals, source, of_test)

    def _draw(self, motion, intervals, source, of_test):
        """Return {split: arrays} of views, drawn from a seed of their own."""
        chosen = {
            "train": np.random.default_rng(_SEED).choice(np.flatnonzero(~of_test), _TRAIN_SAMPLE),
            "test": np.repeat(_apart(intervals, np.flatnonzero(of_test), _TEST_APART * self.n_frames), _TEST_VIEWS),
        }
        splits = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            for split, numbers in chosen.items():
                batches = [
                    self.views(intervals[some], plain=True)
                    for some in np.array_split(numbers, 1 + len(numbers) // _BATCH)
                ]
                inputs, poses = (torch.cat(views).flatten(0, 1).numpy() for views in zip(*batches))
                clip = np.repeat(source[numbers], self.n_frames)
                splits[split] = {
                    "inputs": inputs,
                    "poses": poses,
                    "joints_2.5d_image": poses * 1e3,
                    "2.5d_factor": np.ones(len(poses)),
                    "source": motion["name"][clip],
                    "action": motion["action"][clip],
                }
        return splits

    def training_clips(self, config):
        origin = f"{len(self.intervals)} clips of {', '.join(config.motion_files)} in {self.path}, in random views"
        return TrainingClips(_Intervals(self.intervals), origin, (self._view,), mirrored=True)

    def _view(self, batch):
        """Return a batch of random views of the clips of motion capture in a batch."""
        keypoints, poses = self.views(batch.pop("interval"))
        return batch | {"keypoints": keypoints, "pose": poses}

    def array(self, split, key, index=slice(None)):
        """Return entries of array `key` of a split; mm for `joints_2.5d_image`."""
        return self._arrays[split][key][index]

    def count(self, split):
        """Return the number of frames of a split."""
        return len(self._arrays[split]["poses"])

    def read_2d(self, split, index=slice(None)):
        """Return network input (..., 17, 3) of frames `index` (...)."""
        return self.array(split, "inputs", index)

    def read_3d(self, split, index=slice(None)):
        """Return poses (..., 17, 3), m, of frames `index` (...)."""
        return self.array(split, "poses", index)

    def read_mm(self, split, index=slice(None)):
        """Return poses (..., 17, 3), mm, of frames `index` (...)."""
        return self.array(split, "joints_2.5d_image", index)

    def unit(self, split, index=slice(None)):
        """Return the length in mm of one unit of poses, (...) like `index`."""
        return 1e3 * self.array(split, "2.5d_factor", index)

    def get_split_id(self):
        """Return the frame numbers of the clips: a sample of training views (m, n_frames), test views (k, n_frames)."""
        return tuple(np.arange(self.count(split)).reshape(-1, self.n_frames) for split in ("train", "test"))

    def denormalize(self, test_data, chosen=slice(None)):
        """Return poses of test clips in mm, (k, n_frames, 17, 3)."""
        return np.reshape(test_data, (-1, self.n_frames, len(JOINTS), 3)) * 1e3


def _apart(intervals, numbers, frames):
    """Return those of `numbers` whose intervals begin at least `frames` after the previous one kept."""
    kept, last = [], -frames
    for number in numbers:
        first = int(intervals[number, 0])
        if first - last >= frames:
            kept.append(number)
            last = first
    return np.array(kept)


class _Intervals(torch.utils.data.Dataset):
    """Intervals of motion capture (n, 2): first and last frame."""

    def __init__(self, intervals):
        self.intervals = intervals

    def __len__(self):
        return len(self.intervals)

    def __getitem__(self, indices):
        return {"interval": self.intervals[indices]}
