"""The scans compiled for CUDA (`csrc/scan_cuda.cu`)."""

import ctypes
import functools

import torch

from selective_scan import native

MAX_RANK = 32  # as dispatched in scan_cuda.cu

_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
_LANES = 32
_pointer, _size = ctypes.c_void_p, ctypes.c_int64
_scan, _gradients = ctypes.POINTER(native.Scan), ctypes.POINTER(native.Gradients)
_FUNCTIONS = (
    ("selective_scan_chunk", ()),
    ("selective_scan_problem", (_size,)),
    ("selective_scan_error", (_size,)),
    ("selective_scan_forward", (_scan, _size, _size, _pointer, _pointer, _pointer, _pointer)),
    ("selective_scan_backward", (_scan, _gradients, _size, _size, _pointer, _pointer, _pointer)),
)


def why_unavailable():
    """Why the compiled form cannot run here; "" if it can."""
    found = _library()
    if isinstance(found, str):
        return found
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device"
    return _why_not_on(torch.cuda.current_device())


@functools.cache
def _why_not_on(device):
    problem = _library().selective_scan_problem(device)
    if not problem:
        return ""
    capability = "{}.{}".format(*torch.cuda.get_device_capability(device))
    return f"{ctypes.string_at(problem).decode()} (build it with TORCH_CUDA_ARCH_LIST={capability})"


def borders_shape(batch, length, directions, channels, states):
    """Of the states that the forward pass keeps for the backward pass."""
    return batch, directions, -(-length // _library().selective_scan_chunk()), native.MAX_STATES, channels


def forward(problem, borders):
    """y, like u but float32; fills `borders` unless it is None."""
    y = torch.zeros((2, *problem.u.shape) if problem.rank else problem.u.shape, device=problem.u.device)
    if borders is None:
        borders = torch.empty(borders_shape(*problem.sizes), device=y.device)
    sums = torch.empty_like(borders[:, :, :, 0])
    _call("forward", problem, (), (y, borders, sums))
    return y.sum(0) if problem.rank else y


def backward(problem, borders, dy):
    """See `Problem.gradients`."""
    batch, _, _, channels, _ = problem.sizes
    tensors, structure = problem.gradients(dy, borders, parts=-(-channels // _LANES), pieces=batch * borders.shape[2])
    tensors["u"].zero_()
    carries = torch.empty_like(borders)
    sums = torch.empty_like(borders[:, :, :, 0])
    _call("backward", problem, (structure,), (carries, sums))
    return tensors


def _call(name, problem, structures, tensors):
    device = problem.u.device
    with torch.cuda.device(device):
        code = getattr(_library(), f"selective_scan_{name}")(
            problem.structure(),
            *structures,
            _TYPES[problem.u.dtype],
            device.index,
            torch.cuda.current_stream().cuda_stream,
            *map(native.address, tensors),
        )
    if code:
        message = ctypes.string_at(_library().selective_scan_error(code)).decode()
        raise RuntimeError(f"selective_scan {name} on {device}: {message}")


def _library():
    return native.library("cuda", _FUNCTIONS)
