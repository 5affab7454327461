"""InstaVariety's detections as 2D clips for pre-training, in the two arrays that MotionBERT's readers share.

`motion_all.npy` (n, 17, 3): x, y and confidence, joints in Human3.6M's order (spine and head top unknown: 0), a person's
box scaled to [-1, 1] and relative to the pelvis of the first frame; `id_all.npy` (n,): the number of the video of each
frame. Clips are cut on the fly from the memory-mapped file; one whose first pelvis has no confidence is left out.
"""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from lib.body.skeleton import JOINTS, ROOT
from lib.data.clips import split_clips
from lib.data.datasets.base import Clips2D
from lib.data.npz_files import read_npy
from lib.data.store import BLOCK, Sequences, StoredArray
from lib.errors import UserError

FRAMES, STRIDE = 81, 27  # of a clip, as published
_MOST = 1e4  # of a coordinate, in half sizes of a person's box

_HINT = "; put InstaVariety's arrays there or set data_root_2d, or leave InstaVariety out of subset_list_2d"


class InstaVarietyClips(Dataset):
    """Clips of a folder with `motion_all.npy` and `id_all.npy`.

    A video shorter than a clip is resampled to one, with draws from NumPy's global state.

    Args:
        folder: of the two files.
        frames, stride: of a clip, and between the starts of clips.

    Raises:
        UserError: a file is missing, truncated, of another shape or not finite (names the frame), or gives no clip.
    """

    def __init__(self, folder, frames=FRAMES, stride=STRIDE):
        path = Path(folder) / "motion_all.npy"
        motion, ids = _map(path), _map(path.with_name("id_all.npy"))
        if motion.shape[1:] != (len(JOINTS), 3):
            raise UserError(f"{path}: has shape {motion.shape}, expected (n, {len(JOINTS)}, 3)")
        if ids.shape != motion.shape[:1]:
            raise UserError(f"{path.with_name('id_all.npy')}: has shape {ids.shape}, expected {motion.shape[:1]}")
        for start in range(0, len(motion), BLOCK):
            sound = (np.abs(motion[start : start + BLOCK]) <= _MOST).all((1, 2))
            if not sound.all():
                raise UserError(
                    f"{path}: is not finite or beyond {_MOST:g} in frame {start + sound.argmin()}; copy it again"
                )
        first = np.flatnonzero(np.r_[len(ids) > 0, ids[1:] != ids[:-1]])
        nothing = np.full(len(first), "")
        clips = split_clips(Sequences(ids[first].astype(str), nothing, nothing, np.r_[first, len(ids)]), frames, stride)
        self.clips = clips[motion[clips[:, 0], ROOT, 2] > 0]
        if not len(self.clips):
            raise UserError(
                f"{path}: gives no clip of {frames} frames whose first pelvis has confidence; set a lower maxlen, or "
                "leave InstaVariety out of subset_list_2d"
            )
        self.motion = StoredArray(path, motion.shape, motion.dtype)

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, indices):
        """Return clips (B, F, 17, 3) by a list of numbers: x, y and confidence, as keypoints and as pose."""
        clips = torch.from_numpy(self.motion[self.clips[indices]].astype(np.float32))
        return {"keypoints": clips, "pose": clips}


def open_clips(config):
    """Return the `Clips2D` of a config."""
    folder = Path(config.data_root_2d) / "InstaVariety"
    frames = min(FRAMES, config.maxlen)
    clips = InstaVarietyClips(folder, frames, max(1, frames * STRIDE // FRAMES))
    return Clips2D(clips, f"{len(clips)} clips cut from {folder}", detected=True)


def _map(path):
    """Return a memory-mapped array of numbers."""
    if not path.exists():
        raise UserError(f"{path}: no such file{_HINT}")
    array = read_npy(path, memory_map=True)
    if array.dtype.kind not in "iuf":
        raise UserError(f"{path}: holds {array.dtype}, expected an array of real numbers")
    return array
