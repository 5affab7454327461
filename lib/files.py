"""Writing files so that a crash leaves the old one or the new one, never half of one."""

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path

from lib.errors import UserError, describe, nearest


@contextmanager
def only_one(path):
    """Keeps other processes out of the same block for the same path; one that ends, however it ends, lets go.

    Raises:
        UserError: another process is in it.
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = open(lock, "w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.exists() and os.path.samestat(os.fstat(handle.fileno()), lock.stat()):
                break  # else the one before has removed it meanwhile
        except BlockingIOError:
            handle.close()
            raise UserError(f"{path}: another process is writing it; wait until that is done") from None
        handle.close()
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        handle.close()


@contextmanager
def atomic_path(path):
    """Yields a temporary path beside `path`; it takes the place of `path` if the block succeeds.

    Raises:
        UserError: the file cannot be written (no permission, disk full).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({describe(error)})") from error
    finally:
        temporary.unlink(missing_ok=True)


def require_file(path, hint=""):
    """The path if it is a file.

    Raises:
        UserError: it is not; names the most similar file of its folder, then `hint`.
    """
    path = Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{path}: is a folder, a file is needed{hint}")
    folder = path.parent
    siblings = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    raise UserError(f"{path}: no such file{nearest(path.name, siblings)}{hint}")
