"""3D poses of people in videos: `from lib.video import lift_video`, or `lift_keypoints` for existing keypoints."""

from importlib import import_module

_MODULES = {"Options": "pipeline", "lift_video": "pipeline", "lift_keypoints": "lift.keypoints"}

__all__ = list(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # only now: they load PyTorch, OpenCV and PyAV, which a detector may not need
    return getattr(import_module(f"lib.video.{_MODULES[name]}"), name)
