"""The scans compiled for the CPU (`csrc/scan_cpu.cpp`)."""

import ctypes

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


def why_unavailable(device=None):
    """Return the reason why there is no compiled form; "" if there is one. (All CPUs are one device.)"""
    found = _library()
    return found if isinstance(found, str) else ""


def remark():
    """Return a remark for users about the form that is there; "" if there is none."""
    return "" if _library().selective_scan_openmp() else "one thread only: its compiler took no -fopenmp"


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


def _library():
    return native.library("cpu", _FUNCTIONS)
