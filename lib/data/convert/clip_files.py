"""Writer of the published folder of clips: one pickle per clip, read by `lib.data.training_clips.FileClips`."""

import pickle
import shutil
from pathlib import Path

import numpy as np

from lib.errors import UserError
from lib.files import cannot_write, only_one

SPLITS = ("train", "test")


def write_clip_files(reader, folder, progress=lambda clips: clips):
    """Write `folder`/{train,test}/%08d.pkl, dict(data_input (F, 17, 3), data_label (F, 17, 3)), normalised float32.

    Sources shorter than a clip are resampled from NumPy's seed 0, so that the folder is the same every time.

    Args:
        reader: a `DataReaderH36M` that reads confidence.
        folder: must not exist; it appears when all of it is written.
        progress: wraps the clip numbers of a split, such as `tqdm`.

    Returns:
        {split: number of clips}.

    Raises:
        UserError: `folder` is there already, cannot be written, or another process is writing it.
    """
    folder = Path(folder)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        with only_one(folder):
            if folder.exists():
                raise UserError(f"{folder}: is there already; remove it, or give another folder")
            try:
                shutil.rmtree(unfinished, ignore_errors=True)
                _write(reader, unfinished, progress)
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return {split: len(clips) for split, clips in zip(SPLITS, reader.get_split_id())}


def _write(reader, folder, progress):
    np.random.seed(0)
    for split, clips in zip(SPLITS, reader.get_split_id()):
        (folder / split).mkdir(parents=True)
        for number in progress(range(len(clips))):
            frames = clips[number]
            clip = {"data_input": reader.read_2d(split, frames), "data_label": reader.read_3d(split, frames)}
            with open(folder / split / f"{number:08d}.pkl", "wb") as handle:
                pickle.dump(clip, handle, protocol=4)
