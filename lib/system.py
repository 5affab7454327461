"""Calls of Linux that other systems do not all have, each with its replacement there."""

import logging
import os

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_BLOCK = 2**24  # bytes

log = logging.getLogger(__name__)


def usable_cores():
    """Return how many CPU cores this process may use; all of the machine's where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def take_room(path):
    """Take the room on the disk that a file's length asks for; holes of a sparse file are taken too.

    Raises:
        OSError: the disk is full.
    """
    size = os.path.getsize(path)
    with open(path, "r+b") as handle:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle.fileno(), 0, size)
            return
        for start in range(0, size, _BLOCK):  # macOS, Windows: what is there is written over itself
            handle.seek(start)
            block = handle.read(_BLOCK)
            handle.seek(start)
            handle.write(block)


def lock(handle, named):
    """Lock an open file for this process alone, until it is closed; without locks of files a warning says so.

    Raises:
        BlockingIOError: another process has it.
    """
    if fcntl is None:
        log.warning("%s: this system has no fcntl, so a second process that writes it would not be noticed", named)
        return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
