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


class _Unusable(Exception):
    """Reason why a device cannot run the library."""


def why_unavailable(device=None):
    """Return why the compiled form cannot run on a CUDA device, by number, or on the current one; "" if it can."""
    found = _library()
    if isinstance(found, str):
        return found
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device"
    try:
        _try(torch.cuda.current_device() if device is None else device)
    except _Unusable as reason:
        return str(reason)
    return ""


@functools.cache  # keeps successes only: a failure can pass
def _try(device):
    with torch.cuda.device(device):
        problem = _library().selective_scan_problem(device)
    if not problem:
        return
    reason = ctypes.string_at(problem).decode()
    if "kernel image" in reason or "device function" in reason:
        capability = "{}.{}".format(*torch.cuda.get_device_capability(device))
        reason = f"not compiled for this GPU; TORCH_CUDA_ARCH_LIST={capability} {native.install_command()}"
    raise _Unusable(reason)


def saved_states_shape(batch, length, directions, channels, states):
    """Return the shape of the states that the forward pass saves for the backward pass."""
    return batch, directions, -(-length // _library().selective_scan_chunk()), native.MAX_STATES, channels


def forward(problem, saved_states):
    """Return y, like u but float32; fill `saved_states` unless it is None."""
    shape = (2, *problem.u.shape) if problem.rank else problem.u.shape
    y = torch.zeros(shape, dtype=torch.float32, device=problem.u.device)
    if saved_states is None:
        saved_states = y.new_empty(saved_states_shape(*problem.sizes))
    sums = torch.empty_like(saved_states[:, :, :, 0])
    _call("forward", problem, (), (y, saved_states, sums))
    return y.sum(0) if problem.rank else y


def backward(problem, saved_states, dy):
    """Return the gradients as of `Problem.gradients`."""
    batch, _, _, channels, _ = problem.sizes
    tensors, structure = problem.gradients(
        dy, saved_states, parts=-(-channels // _LANES), pieces=batch * saved_states.shape[2]
    )
    tensors["u"].zero_()
    carries = torch.empty_like(saved_states)
    sums = torch.empty_like(saved_states[:, :, :, 0])
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
