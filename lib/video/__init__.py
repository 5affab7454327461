"""People in videos, in 3D: `from lib.video import lift_video`."""

__all__ = ["Options", "lift_video"]


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lib.video import pipeline  # only now: it loads PyTorch, OpenCV and PyAV, which a detector may not need

    return getattr(pipeline, name)
