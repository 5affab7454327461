"""Writing files so that a crash leaves the old one or the new one, never half of one."""

import os
from contextlib import contextmanager, suppress
from pathlib import Path

from lib.errors import UserError, describe, nearest
from lib.system import lock

PROJECT = Path(__file__).resolve().parents[1]


def cannot_write(path, error):
    """Return the `UserError` for an `OSError` while `path` was written by way of hidden files beside it, which it leaves out."""
    reason = error.strerror or describe(error)
    path, other = Path(path), Path(error.filename or path)
    if other.absolute() != path.absolute() and f".{path.name}." not in str(other):
        reason += f": {other}"
    return UserError(f"{path}: cannot be written ({reason})")


@contextmanager
def only_one(path, named=None):
    """Keep other processes out of the same block for the same path; one that ends, however it ends, lets go.

    Args:
        named: what messages call it, if not `path`.

    Raises:
        UserError: another process is in it, or the folder cannot be written.
    """
    path, named = Path(path), named or path
    place = path.with_name(f".{path.name}.lock")
    while True:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            handle = open(place, "w")
        except OSError as error:
            raise cannot_write(named, error) from error
        try:
            lock(handle, named)
            if place.exists() and os.path.samestat(os.fstat(handle.fileno()), place.stat()):
                break  # else the one before has removed it meanwhile
        except BlockingIOError:
            handle.close()
            raise UserError(f"{named}: another process is writing it; wait until that is done") from None
        handle.close()
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows removes no open file: it stays, and does no harm
            place.unlink(missing_ok=True)
        handle.close()


@contextmanager
def atomic_path(path, named=None):
    """Yield a temporary path beside `path`; it takes the place of `path` if the block succeeds.

    Args:
        named: what messages call it, if not `path`.

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
        raise cannot_write(named or path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def require_folder(path, hint=""):
    """Return the path if it is a folder.

    Raises:
        UserError: it is not; the message ends with `hint`.
    """
    path = Path(path)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{path}: is a file, a folder is needed{hint}")
    raise UserError(f"{path}: no such folder{hint}")


def require_file(path, hint=""):
    """Return the path if it is a file.

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
