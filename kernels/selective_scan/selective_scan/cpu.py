"""The scans compiled for the CPU (`csrc/scan_cpu.cpp`): one form, or several of which the widest that runs here is taken.

SELECTIVE_SCAN_CPU_FORM names one of `FORMS` instead.
"""

import ctypes
import functools
import os

import torch

from selective_scan import native

_pointer, _size, _scan, _gradients = (
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.POINTER(native.Scan),
    ctypes.POINTER(native.Gradients),
)
_FUNCTIONS = (
    ("selective_scan_openmp", ()),
    ("selective_scan_lanes", ()),
    ("selective_scan_chunk", ()),
    ("selective_scan_forward", (_scan, _size, _size, _size, _pointer, _pointer)),
    ("selective_scan_backward", (_scan, _gradients, _size)),
)


FORMS = {"avx512": "cpu_avx512", "avx2": "cpu_avx2", "baseline": "cpu"}  # libraries, the widest vectors first
FORM_VARIABLE = "SELECTIVE_SCAN_CPU_FORM"


def why_unavailable(device=None):
    """Return the reason why there is no compiled form; "" if there is one. (All CPUs are one device.)"""
    found = _library()
    return found if isinstance(found, str) else ""


def remark():
    """Return a remark for users about the form that is there; "" if there is none."""
    built = [form for form, name in FORMS.items() if native.is_built(name)]
    remarks = [f"the form for {_form()}, of {', '.join(built)}"] if len(built) > 1 else []
    remarks += [] if _library().selective_scan_openmp() else ["one thread only: its compiler took no -fopenmp"]
    return "; ".join(remarks)


def saved_states_shape(batch, length, directions, channels, states):
    """Return the shape of the states that the forward pass saves for the backward pass."""
    lanes, chunk = _library().selective_scan_lanes(), _library().selective_scan_chunk()
    return batch, directions, -(-channels // lanes), -(-length // chunk), native.MAX_STATES, lanes


def forward(problem, saved_states):
    """Return y, like u; fill `saved_states` unless it is None."""
    groups, threads = (1 if problem.rank else problem.sizes[2]), torch.get_num_threads()
    if problem.rank and _parts(problem, 1) * problem.sizes[0] < threads:
        groups = min(2, problem.sizes[2])
    y = problem.u.new_empty(*((groups,) if problem.rank else ()), *problem.u.shape)
    _library().selective_scan_forward(
        problem.structure(), groups, _parts(problem, groups), threads, native.address(y), native.address(saved_states)
    )
    return y.sum(0) if problem.rank and groups > 1 else y.view(problem.u.shape)


def backward(problem, saved_states, dy):
    """Return the gradients as of `Problem.gradients`."""
    parts = _parts(problem, 2 if problem.rank else problem.sizes[2])
    tensors, structure = problem.gradients(dy, saved_states, parts, pieces=problem.sizes[0])
    _library().selective_scan_backward(problem.structure(), structure, torch.get_num_threads())
    return tensors


def _parts(problem, groups):
    """Return the number of tasks to split the channels into, so that there is one for every thread."""
    batch, _, _, channels, _ = problem.sizes
    blocks = -(-channels // _library().selective_scan_lanes())
    return max(1, min(blocks, -(-torch.get_num_threads() // max(1, batch * groups))))


def _form():
    """Return the form that is asked for, else the widest that is there and that this CPU runs for sure."""
    told = native.cpu_features() is not None
    sure = (f for f, name in FORMS.items() if told and native.is_built(name) and not native.missing_features(name))
    return os.environ.get(FORM_VARIABLE) or next(sure, "baseline")


@functools.cache
def _library():
    form = _form()
    if form not in FORMS:
        return f"{FORM_VARIABLE}: {form!r} is unknown; there are {', '.join(FORMS)}"
    return native.library(FORMS[form], _FUNCTIONS)
