"""The processes that `torchrun` started together: how they meet, and how they end, with one message of them all."""

import json
import logging
import os
import signal
import time
from contextlib import contextmanager, suppress
from datetime import timedelta

from lib.cli import ending
from lib.errors import TrainingStopped, UserError, describe

_COMING = 600  # seconds until all have to be there: starting Python and reading a checkpoint take no longer
_TALKING = timedelta(minutes=30)  # of one exchange: the others wait while process 0 scores, draws and saves
_LOST = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")


def rank_and_size():
    """Return this process's number among those that train together, from 0, and how many they are."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def meet(backend):
    """Join the process group of all processes.

    Raises:
        UserError: the environment is not torchrun's, or not all have come in time.
    """
    import torch.distributed as dist

    rank, size = rank_and_size()
    try:
        store, *_ = next(dist.rendezvous("env://", rank, size, timeout=timedelta(seconds=_COMING)))
    except ValueError as error:
        raise UserError(
            f"WORLD_SIZE is {size}, but {describe(error)}; start several processes with torchrun"
        ) from error
    store.add("here", 1)
    deadline = time.monotonic() + _COMING
    while (here := store.add("here", 0)) < size:  # in Python, where a signal is heard
        if time.monotonic() > deadline:
            raise UserError(f"only {here} of {size} processes have started; look at the output of the other nodes")
        time.sleep(0.05)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TALKING)


@contextmanager
def one_voice():
    """Let process 0 log, and the first process that fails say why; the others exit with its code, without a word."""
    if rank_and_size()[0]:
        logging.getLogger("lib").addHandler(logging.NullHandler())  # without one, warnings go to the terminal
    try:
        with lost_ones_explained():
            yield
    except SystemExit:
        raise
    except BaseException as error:
        rank, size = rank_and_size()
        if size == 1:
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends the others as soon as one has ended
        line, code = ending(error)
        first, _, code = _first_end(line or f"error: process {rank}: {type(error).__name__}: {describe(error)}", code)
        if first == rank:
            raise
        raise SystemExit(code) from error


@contextmanager
def lost_ones_explained():
    """Turn the errors of connections to a process that has ended into a `UserError` that says why it has.

    Raises:
        UserError: with the message and exit code of the first process that failed.
        TrainingStopped: a process ended without a message.
    """
    try:
        yield
    except RuntimeError as error:
        if rank_and_size()[1] == 1 or not any(text in str(error).lower() for text in _LOST):
            raise
        raise _why_lost() from error


def _why_lost():
    end = _first_end()
    if end is None:
        return TrainingStopped(
            f"process {rank_and_size()[0]} lost its connection to another, which was killed or ran out of memory; "
            "the last good checkpoint is kept"
        )
    _, line, code = end
    error = UserError(line.removeprefix("error: "))
    error.exit_code = code
    return error


def _first_end(line=None, code=None):
    """Return (rank, line, exit code) of the process that failed first; this one's are put down if none has so far.

    Without a line, only look: None if none has failed.
    """
    import torch.distributed as dist

    own = (rank_and_size()[0], line, code)
    key = f"end of attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    with suppress(KeyError, RuntimeError):  # no store, or its process has ended: then everyone speaks
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=10)
        )
        if line is not None:
            return tuple(json.loads(store.compare_set(key, "", json.dumps(own))))
        if store.check([key]):
            return tuple(json.loads(store.get(key)))
    return None if line is None else own
