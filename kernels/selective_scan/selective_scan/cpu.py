"""The selective scan compiled for the CPU (`csrc/scan_cpu.cpp`), called through ctypes.

The library knows nothing of PyTorch: it gets pointers to contiguous float32 arrays, sizes and a number of threads.
What the forward pass keeps for the gradient, beside its inputs, is one state per chunk of 64 steps.
"""

import ctypes
import functools
import importlib.util

import torch  # before the library is loaded, so that both use the OpenMP runtime that comes with PyTorch
from torch.autograd.function import once_differentiable

from selective_scan.chunked import selective_scan_chunked


def available():
    """Whether the compiled scan can be used, and if not why: (bool, reason)."""
    library = _library()
    return (False, library) if isinstance(library, str) else (True, "")


def selective_scan_cpu(u, delta, A, B, C, D=None, delta_bias=None, delta_softplus=False):
    """See :func:`selective_scan.selective_scan`; float64 `u` goes to the chunked PyTorch form."""
    if u.dtype == torch.float64:
        return selective_scan_chunked(u, delta, A, B, C, D, delta_bias, delta_softplus)
    tensors = [None if t is None else t.to(torch.float32).contiguous() for t in (u, delta, A, B, C, D, delta_bias)]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _Scan.apply(delta_softplus, *tensors).to(u.dtype)
    return _forward(_Call(tensors, delta_softplus), borders=None).to(u.dtype)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, delta_softplus, *tensors):
        call = _Call(tensors, delta_softplus)
        borders = torch.empty(_library().selective_scan_borders(*call.sizes))
        ctx.save_for_backward(borders, *tensors)
        ctx.delta_softplus = delta_softplus
        return _forward(call, borders)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        borders, *tensors = ctx.saved_tensors
        gradients = _backward(_Call(tensors, ctx.delta_softplus), borders, dy.contiguous())
        return None, *(g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad[1:]))


class _Call:
    """The arguments of a call as the library takes them; `tensors` are contiguous float32, or None."""

    def __init__(self, tensors, delta_softplus):
        self.tensors = tensors
        batch, groups, states, length = tensors[3].shape  # of B
        self.sizes = (batch, groups, tensors[0].shape[1] // groups, states, length)
        self.threads = torch.get_num_threads()
        self.arguments = (*map(_pointer, tensors), *self.sizes, int(delta_softplus), self.threads)


def _forward(call, borders):
    y = torch.empty_like(call.tensors[0])
    _library().selective_scan_forward(*call.arguments, _pointer(y), _pointer(borders))
    return y


def _backward(call, borders, dy):
    """Gradients of all seven tensors, None for those that are None."""
    u, delta, A, B, C, D, bias = call.tensors
    batch, groups, channels, _, _ = call.sizes
    # Enough tasks for the threads even where there are few sequences and groups: the channels of a group
    # are cut into parts, whose dB and dC are added up here in a fixed order.
    parts = max(1, min(-(-channels // _LANES), 2 * call.threads // max(1, batch * groups)))
    du, ddelta = torch.empty_like(u), torch.empty_like(delta)
    dA = A.new_empty(batch, *A.shape)
    dB, dC = B.new_empty(parts, *B.shape), C.new_empty(parts, *C.shape)
    dD, dbias = A.new_empty(2, batch, len(A))
    _library().selective_scan_backward(
        *call.arguments,
        _pointer(borders),
        parts,
        *map(_pointer, (dy, du, ddelta, dA, dB, dC, dD, dbias)),
    )
    dB, dC = (t[0] if parts == 1 else t.sum(0) for t in (dB, dC))
    return (
        du,
        ddelta,
        dA.sum(0),
        dB,
        dC,
        None if D is None else dD.sum(0),
        None if bias is None else dbias.sum(0),
    )


_LANES = 16  # channels that the library treats together


def _pointer(tensor):
    return None if tensor is None else tensor.data_ptr()


@functools.cache
def _library():
    """The loaded library, or why there is none (str)."""
    spec = importlib.util.find_spec("selective_scan._cpu")
    if spec is None:
        return "the extension was not built (no C++ compiler when the package was installed?)"
    try:
        library = ctypes.CDLL(spec.origin)
    except OSError as error:
        return f"the extension does not load: {error}"
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    arguments = [pointer] * 7 + [size] * 7
    library.selective_scan_borders.argtypes = [size] * 5
    library.selective_scan_borders.restype = size
    library.selective_scan_forward.argtypes = arguments + [pointer] * 2
    library.selective_scan_forward.restype = None
    library.selective_scan_backward.argtypes = arguments + [pointer, size] + [pointer] * 8
    library.selective_scan_backward.restype = None
    return library
