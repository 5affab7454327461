"""Checkpoint files of a run: their names, and writing them safely. Reading: lib/model/weights.py."""

import os
import random
import re
import shutil
from contextlib import suppress

import numpy as np
import torch

from lib.errors import UserError, describe
from lib.files import atomic_path

LATEST = "latest_epoch.bin"
WITHIN = "latest_step.bin"  # within an epoch
PREVIOUS = "previous_epoch.bin"  # LATEST before the last epoch, in case that file is damaged
BEST = "best_epoch.bin"

_NUMBERED = re.compile(r"epoch_(\d+)\.bin")


def numbered(epoch):
    """Return the name of the checkpoint kept after `epoch` finished epochs."""
    return f"epoch_{epoch}.bin"


def checkpoint_files(folder):
    """Return {path: what changes when it is written} of the checkpoints in a folder, which need not exist."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.bin"))}


def numbered_in(folder):
    """Return {epoch: path} of the numbered checkpoints of a folder, the last epoch first."""
    found = {path: _NUMBERED.fullmatch(path.name) for path in folder.glob("epoch_*.bin")}
    return dict(sorted(((int(match[1]), path) for path, match in found.items() if match), reverse=True))


def write_checkpoint(path, content, others=(), keep=None):
    """Write a state to `path`, and as hard links to `others`.

    The others follow when `path` is in place; a run that is killed between the two adds them when it is resumed.

    Args:
        keep: a path for what `path` holds now.

    Raises:
        UserError: the file cannot be written; what was there before is untouched.
    """
    try:
        with atomic_path(path) as temporary:
            with open(temporary, "wb") as handle:
                torch.save(content, handle)
                handle.flush()
                os.fsync(handle.fileno())
            if keep and path.is_file():
                link(path, keep)
    except RuntimeError as error:  # torch's own writer, when the disk is full
        raise UserError(f"{path}: cannot be written ({describe(error)}); is the disk full?") from error
    for other in others:
        link(path, other)


def link(source, target):
    """Give a file a second name, which takes the place of another; a copy where the file system has no hard links.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_path(target) as temporary:
        with suppress(FileNotFoundError):
            temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def remove_unfinished(folder):
    """Remove the files that a killed run was about to write; nobody else may be writing to the folder."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def random_state():
    """Return the state of every generator that training draws from, as tensors and plain values."""
    version, words, gauss = random.getstate()
    name, key, position, has_gauss, cached = np.random.get_state(legacy=True)
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
