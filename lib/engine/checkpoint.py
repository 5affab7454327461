"""Checkpoint files of a run: writing them safely, and finding the newest that is good. Reading: lib/model/weights.py."""

import logging
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from lib.errors import UserError, describe
from lib.files import atomic_path, require_folder
from lib.model.weights import read_checkpoint

LATEST = "latest_epoch.bin"
WITHIN = "latest_step.bin"  # within an epoch
BEST = "best_epoch.bin"

log = logging.getLogger(__name__)


def numbered(epoch):
    """Return the name of the checkpoint kept after `epoch` finished epochs."""
    return f"epoch_{epoch}.bin"


def write_checkpoint(paths, content):
    """Write one state to all of `paths`: one file, with hard links where the file system has them.

    The last of the paths appears when all others are there.

    Raises:
        UserError: the file cannot be written; what was there before is untouched.
    """
    *others, last = map(Path, paths)
    try:
        with atomic_path(last) as temporary:
            with open(temporary, "wb") as handle:
                torch.save(content, handle)
                handle.flush()
                os.fsync(handle.fileno())
            for path in others:
                with atomic_path(path) as link:
                    _link(temporary, link)
    except RuntimeError as error:  # torch's own writer, when the disk is full
        raise UserError(f"{last}: cannot be written ({describe(error)}); is the disk full?") from error


def _link(source, target):
    with suppress(FileNotFoundError):
        target.unlink()
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def newest_checkpoint(folder):
    """Return the newest `Checkpoint` of a run's folder that can be read; newer ones that cannot are named in the log.

    Raises:
        UserError: there is no such folder, or no good checkpoint in it.
    """
    folder = require_folder(folder, "; --resume wants a run's folder or a checkpoint")
    names = [folder / name for name in (LATEST, WITHIN, BEST)] + sorted(folder.glob("epoch_*.bin"))
    found = sorted((path for path in names if path.is_file()), key=lambda path: -path.stat().st_mtime_ns)
    for path in found:
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            log.warning("%s; the checkpoint before it is used", error)
            continue
        if checkpoint.optimizer is not None:
            return checkpoint
    raise UserError(f"{folder}: holds no checkpoint that can be resumed" + (", all are damaged" if found else ""))


def random_state():
    """Return the state of every generator that training draws from, as tensors and plain values."""
    version, words, gauss = random.getstate()
    name, key, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(key.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state):
    """Put every generator where `random_state` found it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, key, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, key.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
