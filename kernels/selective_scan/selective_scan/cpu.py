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
    ("selective_scan_lanes", ()),
    ("selective_scan_chunk", ()),
    ("selective_scan_forward", (_scan, _size, _size, _pointer, _pointer)),
    ("selective_scan_backward", (_scan, _gradients, _size)),
)


def why_unavailable():
    """Why there is no compiled form; "" if there is."""
    found = _library()
    return found if isinstance(found, str) else ""


def borders_shape(batch, length, directions, channels, states):
    """Of the states that the forward pass keeps for the backward pass."""
    lanes, chunk = _library().selective_scan_lanes(), _library().selective_scan_chunk()
    return batch, directions, -(-channels // lanes), -(-length // chunk), native.MAX_STATES, lanes


def forward(problem, borders):
    """y, like u; fills `borders` unless it is None."""
    groups = 1
    if problem.rank and _tasks(problem, 1) < torch.get_num_threads():
        groups = 2
    y = problem.u.new_empty(groups, *problem.u.shape)
    _library().selective_scan_forward(
        problem.structure(), groups, torch.get_num_threads(), native.address(y), native.address(borders)
    )
    return y[0] if groups == 1 else y.sum(0)


def backward(problem, borders, dy):
    """See `Problem.gradients`; what has parts is summed here."""
    groups = 2 if problem.rank else problem.sizes[2]
    # Enough tasks for the threads even where there are few sequences and groups: the channels are cut into
    # parts, whose gradients of the factors are added up here in a fixed order.
    parts = max(1, min(_tasks(problem, 1), 2 * torch.get_num_threads() // max(1, problem.sizes[0] * groups)))
    tensors, structure = problem.gradients(dy, borders, parts, pieces=problem.sizes[0])
    _library().selective_scan_backward(problem.structure(), structure, torch.get_num_threads())
    return tensors


def _tasks(problem, groups):
    batch, _, _, channels, _ = problem.sizes
    return batch * groups * -(-channels // _library().selective_scan_lanes())


def _library():
    return native.library("cpu", _FUNCTIONS)
