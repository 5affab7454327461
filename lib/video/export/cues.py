"""Writers of a video's cues for people to look at: pictures of a few frames, and a film."""

from pathlib import Path

import cv2
import numpy as np

from lib.files import atomic_path
from lib.video.io.writer import VideoWriter
from lib.video.show.cues import CuePanels

FILM = "cues.mp4"
_PICTURES = 4


def write_cue_videos(cues, source, folder, progress):
    """Write cues.mp4 (the frame, its flow and depth side by side) and frame_NNNNNN.png of a few frames.

    Args:
        cues: `lib.model.cues.store.Cues`.
        source: `VideoSource` of their video.
        progress: wraps what is gone through, as `lib.cli.progress_bar` does.

    Returns:
        Paths of all files, the film first.
    """
    folder, panels = Path(folder), CuePanels(cues)
    count = len(next(iter(cues.arrays.values())))
    chosen = set(np.linspace(0, count - 1, min(_PICTURES, count)).astype(int).tolist())
    written = [folder / FILM]
    with VideoWriter(folder / FILM, *panels.size, source.fps) as film:
        for number, seconds, image in progress(source, "film", total=count, unit="frame"):
            drawn = panels.draw(number, image)
            film.write(drawn, seconds)
            if number in chosen:
                written.append(folder / f"frame_{number:06d}.png")
                with atomic_path(written[-1]) as temporary:
                    temporary.write_bytes(cv2.imencode(".png", drawn[..., ::-1])[1].tobytes())
    return written
