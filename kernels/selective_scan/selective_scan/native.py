"""Interface to the compiled scans by ctypes: the structures of `csrc/scan.h`, and loading of the libraries.

The libraries are independent of PyTorch: they get pointers to contiguous arrays and sizes.
"""

import ctypes
import functools
import importlib.machinery
import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import torch  # before a library is loaded, so that both use the OpenMP runtime that comes with PyTorch

MAX_STATES = 16  # as in scan.h
MAX_PATHS = 4
REPORT = Path(__file__).with_name("_build.json")  # written by setup.py: why a library was not built, what it needs
CPU_INFO = Path("/proc/cpuinfo")

_pointer, _size = ctypes.c_void_p, ctypes.c_int64


class _ScanPath(ctypes.Structure):
    _fields_ = [(name, _size) for name in ("start", "inner", "outer_step", "inner_step")]


class Scan(ctypes.Structure):
    _fields_ = [
        *((name, _pointer) for name in ("u", "step_sizes", "projections", "step_weight", "bias", "A", "D", "partners")),
        *((name, _size) for name in ("batch", "length", "directions", "channels", "states", "rank", "joints")),
        ("softplus", _size),
        ("paths", _ScanPath * MAX_PATHS),
        ("limbs", _size * MAX_PATHS),
    ]


class Gradients(ctypes.Structure):
    _fields_ = [
        *(
            (name, _pointer)
            for name in ("dy", "saved_states", "u", "step_sizes", "projections", "step_weight", "bias", "A", "D")
        ),
        ("parts", _size),
    ]


@dataclass
class Problem:
    """Arguments of a scan for the libraries: channel-last, contiguous; names and shapes as in `csrc/scan.h`."""

    u: torch.Tensor
    projections: torch.Tensor  # (batch, length, directions, rank + 2 * states)
    A: torch.Tensor
    bias: torch.Tensor | None
    D: torch.Tensor | None
    softplus: bool
    step_sizes: torch.Tensor | None = None
    step_weight: torch.Tensor | None = None
    paths: tuple = ()
    limbs: tuple = ()
    partners: torch.Tensor | None = None

    @property
    def rank(self):
        return 0 if self.step_weight is None else self.step_weight.shape[2]

    @property
    def sizes(self):
        """Return (batch, length, directions, channels, states)."""
        batch, length, directions, _ = self.projections.shape
        return batch, length, directions, self.A.shape[0] // directions, self.A.shape[1]

    def structure(self):
        tensors = ("u", "step_sizes", "projections", "step_weight", "bias", "A", "D", "partners")
        return Scan(
            *(address(getattr(self, name)) for name in tensors),
            *self.sizes,
            self.rank,
            0 if self.partners is None else len(self.partners),
            self.softplus,
            (_ScanPath * MAX_PATHS)(*(_ScanPath(*path) for path in self.paths)),
            (_size * MAX_PATHS)(*self.limbs),
        )

    def gradients(self, dy, saved_states, parts, pieces):
        """Return new tensors for all gradients, by the names of `Gradients`, and the structure that points to them.

        The first dimension is to be summed over: "u" of a cross-scan has one entry there for each half of the directions,
        "projections" has `parts`, those after it have `pieces`.
        """
        batch, length, directions, channels, states = self.sizes
        all_channels = directions * channels
        new = functools.partial(torch.empty, dtype=torch.float32, device=self.u.device)
        tensors = {
            "u": new(*((2,) if self.rank else ()), *self.u.shape),
            "step_sizes": None if self.rank else new(*self.u.shape),
            "projections": new(parts, directions, batch, length, self.rank + 2 * states),
            "step_weight": new(pieces, all_channels, self.rank) if self.rank else None,
            "bias": new(pieces, all_channels),
            "A": new(pieces, all_channels, states),
            "D": new(pieces, all_channels),
        }
        structure = Gradients(address(dy), address(saved_states), *map(address, tensors.values()), parts)
        return tensors, structure


ABI = 1_000_000 * 1 + 1000 * ctypes.sizeof(Scan) + ctypes.sizeof(Gradients)  # as in scan.h


def address(tensor):
    return None if tensor is None else tensor.data_ptr()


def install_command():
    """Return the command that builds the libraries (again)."""
    source = REPORT.parent.parent
    option = "-e "
    if not (source / "pyproject.toml").exists():
        source, option = _report().get("source", "kernels/selective_scan"), ""
    return (
        f"{shlex.quote(sys.executable)} -m pip install --force-reinstall --no-deps {option}{shlex.quote(str(source))}"
    )


def _report():
    return json.loads(REPORT.read_text()) if REPORT.exists() else {}


def is_built(name):
    return _file_of(name) is not None


def _file_of(name):
    candidates = (REPORT.with_name(f"_{name}{suffix}") for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    return next((path for path in candidates if path.exists()), None)


@functools.cache
def cpu_features():
    """Return the features of this CPU by Linux' names; None where they are not told."""
    found = CPU_INFO.exists() and re.search(r"^(flags|Features)\s*:(.*)", CPU_INFO.read_text(), re.MULTILINE)
    return frozenset(found[2].split()) if found else None


def missing_features(name):
    """Return the CPU features that library `_<name>` needs and this CPU lacks; none where either is not known."""
    needed, present = _report().get("needs", {}).get(name, ()), cpu_features()
    return [] if present is None else [feature for feature in needed if feature not in present]


@functools.cache
def library(name, functions):
    """Return the library `_<name>` with argument types set, or the reason why there is none (str).

    functions: pairs of a function's name and the tuple of its argument types.
    """
    if not is_built(name):
        return _report().get("reasons", {}).get(name) or "it was not built when the package was installed"
    if missing := missing_features(name):
        return (
            f"the extension was built for another CPU, with {', '.join(missing)}, which this one lacks; "
            f"{install_command()}"
        )
    try:
        loaded = ctypes.CDLL(str(_file_of(name)))
    except OSError as error:
        return f"the extension does not load: {error}"
    if getattr(loaded, "selective_scan_abi", lambda: None)() != ABI:
        return f"the extension was built from other sources; {install_command()}"
    for function, types in functions:
        getattr(loaded, function).argtypes = types
        getattr(loaded, function).restype = _size
    return loaded
