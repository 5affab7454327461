"""The shipped motion capture through `Views`, as a data set that training reads and scores."""

from pathlib import Path

import numpy as np
import torch

from lib.data.cmu import read_motion
from lib.data.skeleton import JOINTS
from lib.data.views import Motion, Views
from lib.errors import UserError
from lib.files import require_file

_SEED = 0  # of the test views, which are the same in every run
_TEST_VIEWS = 2  # of each test clip
_TRAIN_SAMPLE = 2048  # views of training clips that the baselines are fitted on
_BATCH = 64


class ViewReader:
    """Clips of motion capture, 60 frames per second, seen by drawn cameras and detectors.

    Training draws new views all the time: `shots` are what `views` looks at. The rows that a `DataReaderH36M` has
    are those of the test part, bodies and speeds as recorded, drawn once, and for the baselines a sample of training
    views. Poses are in m of a body of standard size.

    Args:
        n_frames: frames of a clip.
        data_stride_train: rows of motion capture from one shot to the next.
        dt_root, dt_file: folder and name of the project's cmu17_large.npz, or a file of that layout.

    Raises:
        UserError: the file is missing or damaged, or its clips are too short.
    """

    def __init__(self, n_frames, data_stride_train, dt_root, dt_file):
        self.path = Path(dt_root) / dt_file
        motion = read_motion(require_file(self.path, "; set dt_root and dt_file"))
        joints = (motion["root"][:, None] + motion["joints"].astype(np.float32)) * 1e-4  # 0.1 mm -> m
        self.n_frames = n_frames
        self.views = Views(Motion(joints, motion["start"]), n_frames)
        shots = self.views.motion.shots(n_frames, data_stride_train)
        source = np.searchsorted(motion["start"], shots[:, 0].numpy(), side="right") - 1
        of_test = motion["split"][source] == "test"
        self.shots = shots[torch.from_numpy(~of_test)]
        if not len(self.shots) or not of_test.any():
            raise UserError(f"{self.path}: no clip is long enough for {n_frames} frames; set clip_len")
        self._rows = self._draw(motion, shots, source, of_test)

    def _draw(self, motion, shots, source, of_test):
        """{part: arrays} of views, from their own random numbers."""
        chosen = {
            "train": np.random.default_rng(_SEED).choice(np.flatnonzero(~of_test), _TRAIN_SAMPLE),
            "test": np.repeat(_apart(shots, np.flatnonzero(of_test), 2 * self.n_frames), _TEST_VIEWS),
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
