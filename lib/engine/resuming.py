"""Going on with a run: which checkpoint, with which keys, and what becomes of those after it."""

import logging
import math
from pathlib import Path

from lib.engine.checkpoint import BEST, LATEST, PREVIOUS, WITHIN, link, numbered, numbered_in
from lib.errors import UserError
from lib.files import require_folder
from lib.model.weights import read_checkpoint

ABANDONED = "abandoned"  # folder of checkpoints after the one that was resumed

# What a resumed run may change; all else decides its clips, targets, schedule or parameters.
_FREE = (
    "epochs", "checkpoint_frequency", "checkpoint_minutes", "log_every", "profile", "no_eval", "num_workers",
    "flip_test", "compile", "amp", "finetune", "dt_root", "data_root_2d",
)  # fmt: skip
_FREE_BETWEEN_EPOCHS = ("batch_size", "accumulate")  # where there is no warm-up, whose steps they decide

log = logging.getLogger(__name__)


def newest_checkpoint(folder):
    """Return the newest `Checkpoint` of a run's folder that can be read, and what is wrong with others, as text.

    How far a run had come decides, not the time of a file, which copying changes.

    Raises:
        UserError: there is no such folder, or no good checkpoint in it.
    """
    folder = require_folder(folder, "; --resume wants a run's folder or a checkpoint")
    damaged = []
    recent = [_read(folder / name, damaged) for name in (LATEST, WITHIN, PREVIOUS)]
    if any(recent):
        return max(filter(None, recent), key=_progress), damaged
    for path in (*numbered_in(folder).values(), folder / BEST):  # as it is named, the best is older than any
        if checkpoint := _read(path, damaged):
            return checkpoint, damaged
    why = f" ({'; '.join(damaged)})" if damaged else ""
    raise UserError(f"{folder}: holds no checkpoint that a run can be resumed from{why}")


def refuse_other_keys(config, resume):
    """Raise UserError for the first key that a resumed run has to keep and that differs."""
    within = _progress(resume)[1:] != (0, 0)
    free = {*_FREE, *(() if config.warmup_steps or within else _FREE_BETWEEN_EPOCHS)}
    for key, field in type(config).model_fields.items() if resume.config else ():
        recorded = resume.config.get(key, field.default)  # a file without it was written before the key was there
        if key not in free and getattr(config, key) != recorded:
            raise UserError(
                f"{key}: the run of {resume.path} has {recorded!r}, not {getattr(config, key)!r}; "
                "a resumed run keeps it (a new run from its weights: finetune=True)"
            )


def put_in_front(resume, folder, frequency):
    """Make a checkpoint the newest and complete one of a run's folder, and return its best score, mm.

    Checkpoints after it are moved to the folder `ABANDONED`, best ones too. The best score is the checkpoint's own
    where the file of a better one is gone with them.

    Args:
        frequency: of numbered checkpoints, in epochs.
    """
    path, best = Path(resume.path), math.inf if resume.min_loss is None else resume.min_loss
    if path.resolve().parent == folder.resolve():
        _move_later_ones(resume, folder)
        if path.name not in (LATEST, WITHIN):
            link(path, folder / LATEST)
    own = _own_score(resume)
    target = folder / numbered(resume.epoch)
    if own is not None and resume.epoch % frequency == 0 and not target.exists():  # killed before it was there
        link(path, target)
    for file in (folder / BEST, path.parent / BEST):
        if (kept := _read(file)) and kept.min_loss == best:
            if file.parent != folder:
                link(file, folder / BEST)
            return best
    if own is None:
        return best
    if own > best:
        log.info(
            "the file of the best epoch, %.1f mm, is gone: epoch %d, %.1f mm, counts as it", best, resume.epoch, own
        )
    link(path, folder / BEST)
    return own


def _move_later_ones(resume, folder):
    names = (PREVIOUS, WITHIN, BEST, LATEST)  # in this order: a kill in between leaves one to resume from
    read = {folder / name: _read(folder / name) for name in names}
    numbers = [path for epoch, path in numbered_in(folder).items() if epoch > resume.epoch]
    later = numbers + [path for path, found in read.items() if found and _progress(found) > _progress(resume)]
    for path in later:
        target = folder / ABANDONED / path.name
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
    if later:
        names = ", ".join(path.name for path in later)
        log.info("%s: of later steps, which are abandoned; moved to %s", names, folder / ABANDONED)


def _own_score(checkpoint):
    """Return the score of a checkpoint of an epoch's end, mm, or None where there is none."""
    if not checkpoint.history or _progress(checkpoint)[1:] != (0, 0):
        return None
    return checkpoint.history[-1].get("test/mpjpe")


def _read(path, damaged=None):
    """Return the `Checkpoint` of a file that a run can be resumed from, or None; `damaged` gets what is wrong."""
    if not path.is_file():
        return None
    try:
        checkpoint = read_checkpoint(path)
    except UserError as error:
        if damaged is not None:
            damaged.append(str(error))
        return None
    return checkpoint if checkpoint.optimizer is not None else None


def _progress(checkpoint):
    """Return a tuple that is larger the further a run had come."""
    position = (checkpoint.state or {}).get("position", {})
    return checkpoint.epoch, position.get("task", 0), position.get("batch", 0)
