"""Readers of .npz and .npy files of plain arrays, with one error for a damaged file."""

import numpy as np

from lib.errors import UserError, describe
from lib.files import require_file


def read_npz(path, keys=None, hint="; copy it again"):
    """Return {key: array} of an .npz file without objects.

    Args:
        keys: the arrays that are needed, no others are read; None: all.
        hint: end of the message about a damaged file.

    Raises:
        UserError: the file is missing, truncated, lacks a key, or an array holds objects.
    """
    refuse_npy(require_file(path))
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            arrays = {key: archive[key] for key in (names if keys is None else keys) if key in names}
    except MemoryError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds for a damaged file
        raise _damaged(path, "an .npz file of plain arrays", error, hint) from error
    for key in keys or ():
        if key not in arrays:
            raise UserError(f"{path}: lacks array {key!r}; it has {', '.join(names) or 'none'}")
    return arrays


def read_npy(path, memory_map=False, hint="; copy it again"):
    """Return the array of a .npy file without objects; memory_map: it stays on disk.

    Raises:
        UserError: the file is missing, truncated, an .npz file, or holds objects.
    """
    path = require_file(path)
    try:
        array = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(path, "a .npy file of numbers", error, hint) from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path}: is an .npz file, expected .npy")
    return array


def refuse_npy(path):
    """Raise a UserError if a file is one .npy array, whatever its name."""
    with open(path, "rb") as handle:
        if handle.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
            raise UserError(f"{path}: is an .npy file, expected .npz (several arrays, as np.savez writes them)")


def _damaged(path, expected, error, hint):
    """Return the `UserError` for what `np.load` raised."""
    if any(text in str(error) for text in ("Object arrays cannot be loaded", "Python objects in dtype")):
        return UserError(f"{path}: holds Python objects, which are not loaded; expected {expected}")
    reason = "pickles are not loaded" if "allow_pickle" in str(error) else describe(error)
    return UserError(f"{path}: is truncated or not {expected} ({reason}){hint}")
