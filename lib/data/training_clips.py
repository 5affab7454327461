"""Training clips as batches of tensors, from a reader's rows or from published clip files."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import BatchSampler, Dataset, RandomSampler

from lib.body.skeleton import JOINTS, ROOT, flip, root_relative
from lib.data.clips import split_clips
from lib.data.pickles import load_arrays
from lib.data.store import INDEX, open_store
from lib.errors import UserError

AMASS = "AMASS"  # in `subset_list`: motion without 2D detections
AMASS_SCALE = 0.298  # units of normalised poses in a metre, as published


class RowClips(Dataset):
    """A reader's clips, cut on the fly: a frame that many clips share is stored once.

    Args:
        reader: a `DataReaderH36M`, say: its `read_2d` and `read_3d` give rows by number.
        clips: (m, F) row numbers of its training part.
    """

    def __init__(self, reader, clips):
        self.reader, self.clips = reader, clips

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, indices):
        """A list of clip numbers -> input (B, F, J, 2 or 3), target (B, F, J, 3)."""
        rows = self.clips[indices]
        return torch.from_numpy(self.reader.read_2d("train", rows)), torch.from_numpy(
            self.reader.read_3d("train", rows)
        )


class FileClips(Dataset):
    """Clips of a published folder: one pickle a clip, dict(data_input, data_label), each (F, 17, 3).

    Without detections a file's data_input is None; then the input is `true_keypoints`, if `synthetic`.

    Raises:
        UserError: a file is damaged, lacks detections, or a clip has another shape than (clip_len, 17, 3).
    """

    def __init__(self, files, clip_len, synthetic=False):
        self.files, self.shape, self.synthetic = files, (clip_len, len(JOINTS), 3), synthetic

    def __len__(self):
        return len(self.files)

    def __getitem__(self, indices):
        """A list of clip numbers -> input (B, F, J, 3), target (B, F, J, 3)."""
        clips = [self._read(self.files[index]) for index in indices]
        return tuple(torch.from_numpy(np.stack(part)) for part in zip(*clips))

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

    The camera is MotionBERT's for AMASS: it looks along y, and `AMASS_SCALE` of its units are a metre.

    Args:
        path: folder of the store, such as tools/convert_amass.py writes.
        frames, stride: of a clip, and between the starts of clips, after `sample_stride`.

    Raises:
        UserError: not such a store, or none of its motion gives a clip.
    """

    def __init__(self, path, frames, stride, sample_stride=1):
        part = open_store(path).parts.get("train")
        if part is None or part.arrays.get("joints", np.empty(0)).shape[1:] != (len(JOINTS), 3):
            raise UserError(f"{path}: has no 'joints' (n, {len(JOINTS)}, 3) in part 'train'; it is no store of motion")
        self.joints, self.sample_stride = part.arrays["joints"], sample_stride
        self.clips = split_clips(part.runs.every(sample_stride), frames, stride)
        if not len(self.clips):
            raise UserError(f"{path}: no motion is {frames} frames long; set clip_len or sample_stride")

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, indices):
        """A list of clip numbers -> input (B, F, J, 3), target (B, F, J, 3)."""
        joints = torch.from_numpy(self.joints[self.clips[indices] * self.sample_stride])
        x, y, z = joints.unbind(-1)
        poses = torch.stack([x, -z, y], dim=-1) * AMASS_SCALE
        return true_keypoints(poses), poses


class MixedClips(Dataset):
    """Several data sets of clips as one, in a row."""

    def __init__(self, datasets):
        self.datasets, self.ends = datasets, np.cumsum([len(dataset) for dataset in datasets])

    def __len__(self):
        return int(self.ends[-1])

    def __getitem__(self, indices):
        """A list of clip numbers -> input (B, F, J, 3), target (B, F, J, 3)."""
        indices = np.asarray(indices)
        owner = np.searchsorted(self.ends, indices, side="right")
        order, found = [], []
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            start = self.ends[number] - len(self.datasets[number])
            order.append(places)
            found.append(self.datasets[number][(indices[places] - start).tolist()])
        back = torch.from_numpy(np.argsort(np.concatenate(order)))
        return tuple(torch.cat(part)[back] for part in zip(*found))


class Shots(Dataset):
    """Shots (n, 2) of motion capture, to be looked at by `lib.data.synthetic.random_views.RandomViews`."""

    def __init__(self, shots):
        self.shots = shots

    def __len__(self):
        return len(self.shots)

    def __getitem__(self, indices):
        """A list of shot numbers -> first rows (B,), last rows (B,)."""
        return self.shots[indices].unbind(1)


def training_clips(config, reader):
    """The clips to train on, of every subset of `subset_list`.

    For Human3.6M, files under `data_root`/subset/train where there are some; else AMASS is the store `dt_root`/
    `amass_file`, and all other subsets are the reader's clips.

    Returns:
        The data set, and a line that says where the clips come from.
    """
    subsets = list(config.subset_list)
    amass = None
    if AMASS in subsets and not any((Path(config.data_root) / AMASS / "train").glob("*.pkl")):
        subsets.remove(AMASS)
        amass = _amass_clips(config)
        if not subsets:
            return amass
    others = _recorded_clips(config, reader, subsets)
    if not amass:
        return others
    return MixedClips([amass[0], others[0]]), f"{amass[1]}, {others[1]}"


def _amass_clips(config):
    path = Path(config.dt_root) / config.amass_file
    if not (path / INDEX).is_file():
        raise UserError(
            f"{path}: no such store; make it with tools/convert_amass.py, set amass_file, or leave {AMASS} out of "
            "subset_list"
        )
    clips = MotionClips(path, config.clip_len, config.data_stride, config.sample_stride)
    return clips, f"{len(clips)} clips cut from {path}"


def _recorded_clips(config, reader, subsets):
    if config.dataset == "h36m" and Path(config.data_root).is_dir():
        folders = [Path(config.data_root) / subset / "train" for subset in subsets]
        for folder in folders:
            if not any(folder.glob("*.pkl")):
                raise UserError(f"{folder}: holds no clips, though data_root is there; set data_root or subset_list")
        if files := sorted(file for folder in folders for file in folder.glob("*.pkl")):
            return FileClips(files, config.clip_len, config.synthetic), f"{len(files)} files in {config.data_root}"
    clips, _ = reader.get_split_id()
    if not len(clips):
        raise UserError(
            f"{reader.path}: no training source is {config.clip_len} frames long; set clip_len or sample_stride"
        )
    return RowClips(reader, clips), f"{len(clips)} clips cut from {reader.path}"


class TrainingBatches:
    """Shuffled batches of a data set, in a new order every time; the last one may be smaller.

    Threads read ahead: NumPy and files let them run beside training, and unlike processes they share its memory (a
    process of its own that has loaded PyTorch takes 500 MB). What is random is drawn by who iterates, so that it
    does not depend on them.
    """

    def __init__(self, dataset, batch_size, workers=0):
        self.dataset, self.workers = dataset, workers
        self.sampler = BatchSampler(RandomSampler(dataset), batch_size, drop_last=False)

    def __len__(self):
        return len(self.sampler)

    def __iter__(self):
        if not self.workers:
            yield from map(self.dataset.__getitem__, self.sampler)
            return
        pool, coming = ThreadPoolExecutor(self.workers, "clips"), deque()
        try:
            for indices in self.sampler:
                coming.append(pool.submit(self.dataset.__getitem__, indices))
                if len(coming) > 2 * self.workers:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def true_keypoints(poses):
    """Where a perfect detector finds poses (..., J, 3): their x and y, with confidence 1."""
    return torch.cat([poses[..., :2], torch.ones_like(poses[..., :1])], dim=-1)


def network_input(inputs, targets, config):
    """What the network sees of clips (B, F, J, 2 or 3) with true poses (B, F, J, 3), normalised both.

    `gt_2d` puts the true 2D position in place of the detection, with confidence 1; `no_conf` leaves the
    confidence out.
    """
    if config.gt_2d:
        inputs = true_keypoints(targets)
    return inputs[..., :2] if config.no_conf else inputs


def training_target(targets, config):
    """What the network learns of true poses (B, F, J, 3): root-relative, or depth from the first root (`rootrel`)."""
    if config.rootrel:
        return root_relative(targets)
    depth = targets[..., 2:] - targets[:, :1, ROOT, None, 2:]
    return torch.cat([targets[..., :2], depth], dim=-1)


def flip_half(inputs, targets):
    """Mirrors each clip of a batch with probability 0.5, input and target alike."""
    chosen = (torch.rand(len(inputs)) < 0.5)[:, None, None, None]
    return torch.where(chosen, flip(inputs), inputs), torch.where(chosen, flip(targets), targets)
