"""Selective scans of state space models: the plain scan of Mamba and the cross-scan of PoseMamba.

`reference.py` holds the forms that are obviously right, `chunked.py` the PyTorch form that runs anywhere, `csrc/`
what is compiled for the CPU and for CUDA, `operators.py` its registration with PyTorch and `api.py` the functions
in front. `python -m selective_scan` tells what an installation has.
"""

from selective_scan.api import (
    IMPLEMENTATIONS,
    cross_scan,
    cross_scan_unfused,
    default_implementation,
    how_to_get,
    selective_scan,
    why_unavailable,
)
from selective_scan.directions import Direction

__all__ = [
    "IMPLEMENTATIONS",
    "Direction",
    "cross_scan",
    "cross_scan_unfused",
    "default_implementation",
    "how_to_get",
    "selective_scan",
    "why_unavailable",
]
