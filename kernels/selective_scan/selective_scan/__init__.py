"""Selective scans of state space models: the plain scan of Mamba and the cross-scan of PoseMamba.

`reference.py` holds the forms that are obviously right, `chunked.py` the PyTorch form that runs anywhere, `csrc/`
what is compiled for the CPU and for CUDA, `operators.py` its registration with PyTorch and `api.py` the functions
in front. `python -m selective_scan` tells what an installation has.
"""

from importlib import import_module

from selective_scan.directions import Direction

_API = (
    "IMPLEMENTATIONS",
    "cross_scan",
    "cross_scan_unfused",
    "default_implementation",
    "how_to_get",
    "selective_scan",
    "why_unavailable",
)

__all__ = ["Direction", *_API]


def __getattr__(name):
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("selective_scan.api"), name)  # only now: it loads PyTorch
