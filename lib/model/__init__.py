"""Models, their registry, and opening one that is trained: `from lib.model import PoseMamba, MambaPose`."""

from importlib import import_module

_MODULES = {
    "PoseMamba": "posemamba",
    "DSTformer": "dstformer",
    "MotionAGFormer": "motionagformer.network",
    "MambaPose": "mambapose.network",
    "open_model": "opening",
}

__all__ = list(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lib.model.{_MODULES[name]}"), name)  # only now: it loads PyTorch
