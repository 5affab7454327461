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
    """Why there is no compiled form; "" if there is. (All CPUs are one device.)"""
    found = _library()
    return found if isinstance(found, str) else ""


def remark():
    """What a user should know of the form that is there; "" if nothing."""
    return "" if _library().selective_scan_openmp() else "one thread only: its compiler took no -fopenmp"


def borders_shape(batch, length, directions, channels, states):
    """Of the states that the forward pass keeps for the backward pass."""
    lanes, chunk = _library().selective_scan_lanes(), _library().selective_scan_chunk()
    return batch, directions, -(-channels // lanes), -(-length // chunk), native.MAX_STATES, lanes


def forward(problem, borders):
    """y, like u; fills `borders` unless it is None."""
    groups, threads = (1 if problem.rank else problem.sizes[2]), torch.get_num_threads()
    if problem.rank and _parts(problem, 1) * problem.sizes[0] < threads:
        groups = min(2, problem.sizes[2])
    y = problem.u.new_empty(*((groups,) if problem.rank else ()), *problem.u.shape)
    _library().selective_scan_forward(
        problem.structure(), groups, _parts(problem, groups), threads, native.address(y), native.address(borders)
    )
    return y.sum(0) if problem.rank and groups > 1 else y.view(problem.u.shape)


def backward(problem, borders, dy):
    """See `Problem.gradients`."""
    parts = _parts(problem, 2 if problem.rank else problem.sizes[2])
    tensors, structure = problem.gradients(dy, borders, parts, pieces=problem.sizes[0])
    _library().selective_scan_backward(problem.structure(), structure, torch.get_num_threads())
    return tensors


def _parts(problem, groups):
    """Into how many tasks to cut the channels, so that there is one for every thread."""
    batch, _, _, channels, _ = problem.sizes
    blocks = -(-channels // _library().selective_scan_lanes())
    return max(1, min(blocks, -(-torch.get_num_threads() // max(1, batch * groups))))


def _library():
    return native.library("cpu", _FUNCTIONS)
