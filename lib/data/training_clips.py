"""Training clips: cut from a data set on the fly, from published clip files, or from motion capture.

Each is a map-style data set: a list of clip numbers -> {"keypoints": (B, F, J, 2 or 3), "pose": (B, F, J, 3)}.
"""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from lib.body.skeleton import JOINTS
from lib.data.clips import split_clips
from lib.data.datasets import AMASS
from lib.data.datasets.base import TrainingClips
from lib.data.pickles import load_arrays
from lib.data.store import INDEX, open_store
from lib.data.transforms import true_keypoints
from lib.errors import UserError

AMASS_SCALE = 0.298  # units of normalised poses in a metre, as published


class FrameClips(Dataset):
    """Clips of a data set, cut on the fly: a frame that many clips share is stored once.

    Args:
        dataset: a `lib.data.datasets.base.Dataset`.
        clips: (m, F) frame numbers of its split "train".
    """

    def __init__(self, dataset, clips):
        self.dataset, self.clips = dataset, clips

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, indices):
        frames = self.clips[indices]
        return {key: torch.from_numpy(self.dataset.frames("train", key, frames)) for key in ("keypoints", "pose")}


class FileClips(Dataset):
    """Clips of a published folder: one pickle per clip, dict(data_input, data_label), each (F, 17, 3).

    Without detections a file's data_input is None; then the input is `true_keypoints`, if `synthetic`.

    Raises:
        UserError: a file is damaged, lacks detections, or a clip has another shape than (clip_len, 17, 3).
    """

    def __init__(self, files, clip_len, synthetic=False):
        self.files, self.shape, self.synthetic = files, (clip_len, len(JOINTS), 3), synthetic

    def __len__(self):
        return len(self.files)

    def __getitem__(self, indices):
        keypoints, poses = zip(*(self._read(self.files[index]) for index in indices))
        return {"keypoints": torch.from_numpy(np.stack(keypoints)), "pose": torch.from_numpy(np.stack(poses))}

    def _read(self, path):
        clip = load_arrays(path)
        keys = ("data_input", "data_label")
        if isinstance(clip, dict) and "data_input" in clip and clip["data_input"] is None:
            if not self.synthetic:
                raise UserError(f"{path}: has no 2D detections (data_input is None); set synthetic: True")
            keys = ("data_label",)
        for key in keys:
            if not isinstance(clip, dict) or np.shape(clip.get(key)) != self.shape:
                found = np.shape(clip.get(key)) if isinstance(clip, dict) else type(clip).__name__
                raise UserError(f"{path}: {key!r} is {found}, expected {self.shape}; set clip_len")
        label = np.asarray(clip["data_label"], np.float32)
        if len(keys) == 1:
            return true_keypoints(torch.from_numpy(label)).numpy(), label
        return np.asarray(clip["data_input"], np.float32), label


class MotionClips(Dataset):
    """Clips of a store of motion, `joints` (n, 17, 3) in m, z up; the input is `true_keypoints`.

    The camera is MotionBERT's for AMASS: it looks along y, and a metre is `AMASS_SCALE` of its units.

    Args:
        path: folder of the store, such as tools/convert_amass.py writes.
        frames, stride: of a clip, and between the starts of clips, after `sample_stride`.

    Raises:
        UserError: not such a store, or none of its motion gives a clip.
    """

    def __init__(self, path, frames, stride, sample_stride=1):
        split = open_store(path).splits.get("train")
        if split is None or split.arrays.get("joints", np.empty(0)).shape[1:] != (len(JOINTS), 3):
            raise UserError(f"{path}: has no 'joints' (n, {len(JOINTS)}, 3) in split 'train'; it is no store of motion")
        self.joints, self.sample_stride = split.arrays["joints"], sample_stride
        self.clips = split_clips(split.sequences.subsampled(sample_stride), frames, stride)
        if not len(self.clips):
            raise UserError(f"{path}: no motion is {frames} frames long; set clip_len or sample_stride")

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, indices):
        joints = torch.from_numpy(self.joints[self.clips[indices] * self.sample_stride])
        x, y, z = joints.unbind(-1)
        poses = torch.stack([x, -z, y], dim=-1) * AMASS_SCALE
        return {"keypoints": true_keypoints(poses), "pose": poses}


class MixedClips(Dataset):
    """Several data sets of clips as one, one after the other."""

    def __init__(self, datasets):
        self.datasets, self.ends = datasets, np.cumsum([len(dataset) for dataset in datasets])

    def __len__(self):
        return int(self.ends[-1])

    def __getitem__(self, indices):
        indices = np.asarray(indices)
        owner = np.searchsorted(self.ends, indices, side="right")
        order, found = [], []
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            start = self.ends[number] - len(self.datasets[number])
            order.append(places)
            found.append(self.datasets[number][(indices[places] - start).tolist()])
        back = torch.from_numpy(np.argsort(np.concatenate(order)))
        return {key: torch.cat([part[key] for part in found])[back] for key in found[0]}


def training_clips(config, dataset, files=False):
    """Return the `TrainingClips` of every subset of `subset_list`.

    AMASS is the store `dt_root`/`amass_file`, all other subsets are clips of the data set.

    Args:
        files: take clip files under `data_root`/subset/train in their place, where there are some.
    """
    subsets = list(config.subset_list)
    amass = None
    if AMASS in subsets and not any((Path(config.data_root) / AMASS / "train").glob("*.pkl")):
        subsets.remove(AMASS)
        amass = _amass_clips(config)
        if not subsets:
            return amass
    others = _recorded_clips(config, dataset, subsets, files)
    if not amass:
        return others
    return TrainingClips(MixedClips([amass.clips, others.clips]), f"{amass.origin}, {others.origin}")


def _amass_clips(config):
    path = Path(config.dt_root) / config.amass_file
    if not (path / INDEX).is_file():
        raise UserError(
            f"{path}: no such store; make it with tools/convert_amass.py, set amass_file, or leave {AMASS} out of "
            "subset_list"
        )
    clips = MotionClips(path, config.clip_len, config.data_stride, config.sample_stride)
    return TrainingClips(clips, f"{len(clips)} clips cut from {path}")


def _recorded_clips(config, dataset, subsets, files):
    if files and Path(config.data_root).is_dir():
        folders = [Path(config.data_root) / subset / "train" for subset in subsets]
        for folder in folders:
            if not any(folder.glob("*.pkl")):
                raise UserError(f"{folder}: holds no clips, though data_root is there; set data_root or subset_list")
        if found := sorted(file for folder in folders for file in folder.glob("*.pkl")):
            clips = FileClips(found, config.clip_len, config.synthetic)
            return TrainingClips(clips, f"{len(found)} files in {config.data_root}")
    clips, _ = dataset.get_split_id()
    if not len(clips):
        raise UserError(
            f"{dataset.path}: no training source is {config.clip_len} frames long; set clip_len or sample_stride"
        )
    return TrainingClips(FrameClips(dataset, clips), f"{len(clips)} clips cut from {dataset.path}")
