"""Writing files so that a crash leaves the old one or the new one, never half of one."""

import os
from contextlib import contextmanager
from pathlib import Path

from lib.errors import UserError, describe, nearest


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
