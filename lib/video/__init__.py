"""People in videos, in 3D: `from lib.video import lift_video`."""

from lib.video.pipeline import Options, lift_video

__all__ = ["Options", "lift_video"]
