"""The published place of PoseMamba's blocks, which lib/model/bistssm.py defines."""

from selective_scan import why_unavailable

from lib.model.bistssm import BiSTSSM, BiSTSSMBlock
from lib.model.mlp import Mlp

__all__ = ["BiSTSSM", "BiSTSSMBlock", "Mlp"]


def __getattr__(name):
    """Return `selective_scan_cuda_oflex_available`, which published code imports; asked for late, since it needs CUDA."""
    if name == "selective_scan_cuda_oflex_available":
        return not why_unavailable("cuda")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
