"""Training clips as batches of tensors, from a reader's rows or from published clip files."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import BatchSampler, Dataset, RandomSampler

from lib.data.pickles import load_arrays
from lib.data.skeleton import JOINTS, ROOT, flip
from lib.errors import UserError


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

    Raises:
        UserError: a file is damaged, or a clip has another shape than (clip_len, 17, 3).
    """

    def __init__(self, files, clip_len):
        self.files, self.shape = files, (clip_len, len(JOINTS), 3)

    def __len__(self):
        return len(self.files)

    def __getitem__(self, indices):
        """A list of clip numbers -> input (B, F, J, 3), target (B, F, J, 3)."""
        clips = [self._read(self.files[index]) for index in indices]
        return tuple(torch.from_numpy(np.stack(part)) for part in zip(*clips))

    def _read(self, path):
        clip = load_arrays(path)
        for key in ("data_input", "data_label"):
            if not isinstance(clip, dict) or np.shape(clip.get(key)) != self.shape:
                found = np.shape(clip.get(key)) if isinstance(clip, dict) else type(clip).__name__
                raise UserError(f"{path}: {key!r} is {found}, expected {self.shape}; set clip_len")
        return tuple(np.asarray(clip[key], np.float32) for key in ("data_input", "data_label"))


def training_clips(config, reader):
    """The clips to train on: for Human3.6M, files under `data_root`/subset/train where there are some, else the reader's.

    Returns:
        The data set, and a line that says where the clips come from.
    """
    if config.dataset == "h36m" and Path(config.data_root).is_dir():
        folders = [Path(config.data_root) / subset / "train" for subset in config.subset_list]
        for folder in folders:
            if not any(folder.glob("*.pkl")):
                raise UserError(f"{folder}: holds no clips, though data_root is there; set data_root or subset_list")
        if files := sorted(file for folder in folders for file in folder.glob("*.pkl")):
            return FileClips(files, config.clip_len), f"{len(files)} files in {config.data_root}"
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


def network_input(inputs, targets, config):
    """What the network sees of clips (B, F, J, 2 or 3) with true poses (B, F, J, 3), normalised both.

    `gt_2d` puts the true 2D position in place of the detection, with confidence 1; `no_conf` leaves the
    confidence out.
    """
    if config.gt_2d:
        inputs = torch.cat([targets[..., :2], torch.ones_like(targets[..., :1])], dim=-1)
    return inputs[..., :2] if config.no_conf else inputs


def training_target(targets, config):
    """What the network learns of true poses (B, F, J, 3): root-relative, or depth from the first root (`rootrel`)."""
    if config.rootrel:
        return targets - targets[:, :, ROOT, None]
    depth = targets[..., 2:] - targets[:, :1, ROOT, None, 2:]
    return torch.cat([targets[..., :2], depth], dim=-1)


def flip_half(inputs, targets):
    """Mirrors each clip of a batch with probability 0.5, input and target alike."""
    chosen = (torch.rand(len(inputs)) < 0.5)[:, None, None, None]
    return torch.where(chosen, flip(inputs), inputs), torch.where(chosen, flip(targets), targets)
