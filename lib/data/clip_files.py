"""Writing the published folder of clips: one pickle a clip, which `lib.data.dataset.FileClips` reads."""

import pickle
import shutil
from pathlib import Path

import numpy as np

from lib.errors import UserError, describe


def write_clip_files(reader, folder, progress=lambda clips: clips):
    """Writes `folder`/{train,test}/%08d.pkl, dict(data_input (F, 17, 3), data_label (F, 17, 3)), normalised float32.

    Sources shorter than a clip are resampled from NumPy's seed 0, so that the folder is the same every time.

    Args:
        reader: a `DataReaderH36M` that reads confidence.
        folder: is made; all of it appears when all of it is written.
        progress: wraps the clip numbers of a part, `tqdm` say.

    Returns:
        {part: number of clips}.

    Raises:
        UserError: `folder` is there already, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(f"{folder}: is there already; remove it, or give another folder")
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    np.random.seed(0)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        for split, clips in zip(("train", "test"), reader.get_split_id()):
            (unfinished / split).mkdir(parents=True)
            for number in progress(range(len(clips))):
                rows = clips[number]
                clip = {"data_input": reader.read_2d(split, rows), "data_label": reader.read_3d(split, rows)}
                with open(unfinished / split / f"{number:08d}.pkl", "wb") as handle:
                    pickle.dump(clip, handle, protocol=4)
        unfinished.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({describe(error)})") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return {split: len(clips) for split, clips in zip(("train", "test"), reader.get_split_id())}
