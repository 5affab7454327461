"""Reader of the field's pickle files that runs no code of theirs."""

import pickle
import zipfile
from contextlib import contextmanager

import numpy as np

from lib.data.npz_files import refuse_npy
from lib.errors import UserError, describe
from lib.files import require_file

# What NumPy's arrays, dtypes and scalars are rebuilt from, in NumPy 1 and 2, in every pickle protocol.
# `_codecs.encode` is how protocols before 3 write bytes.
_ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        if module.startswith("numpy.core"):
            # NumPy 2 keeps the old path as a shim that warns; NumPy 1 knows only the old path.
            try:
                return super().find_class(module.replace("numpy.core", "numpy._core", 1), name)
            except ImportError:
                pass
        return super().find_class(module, name)


def load_arrays(path, hint=""):
    """Return the content of a pickle file of NumPy arrays and plain containers.

    Raises:
        UserError: there is no such file, it is truncated or not a pickle, or it holds anything else
            (a pickle may name any code to run; such a file is refused before that code runs).
    """
    path = require_file(path, hint)
    with _damage_of(path, "a pickle"), open(path, "rb") as handle:
        return _ArrayUnpickler(handle).load()


def load_npz_objects(path, name, hint=""):
    """Return array `name` of an .npz file, an object array of NumPy arrays and plain containers.

    Raises:
        UserError: as `load_arrays`, or the file has no such array.
    """
    path = require_file(path, hint)
    refuse_npy(path)
    with _damage_of(path, "an .npz file"), zipfile.ZipFile(path) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist()]
        if name not in names:
            raise UserError(f"{path}: lacks array {name!r}; it has {', '.join(names) or 'none'}")
        with archive.open(f"{name}.npy") as member:
            version = np.lib.format.read_magic(member)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            _, _, dtype = read_header(member)
            if not dtype.hasobject:
                raise UserError(f"{path}: {name!r} holds {dtype}, expected objects")
            return _ArrayUnpickler(member).load()


@contextmanager
def _damage_of(path, kind):
    """Turn errors of reading a file of that kind into a `UserError`."""
    try:
        yield
    except (OSError, MemoryError, UserError):
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = describe(error)
        if "it asks for" in reason:
            raise UserError(
                f"{path}: refused: only NumPy arrays and plain containers are read, and {reason}"
            ) from error
        raise UserError(f"{path}: is truncated or not {kind} ({reason}); copy it again") from error
