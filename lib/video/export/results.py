"""Writers of a video's results: videos, a page, data."""

import json
import re
import shutil
from itertools import takewhile
from pathlib import Path

import cv2
import numpy as np

from lib.files import atomic_path
from lib.video.export.arrays import write_npz
from lib.video.export.bvh import write_all_bvh
from lib.video.export.quality import quality
from lib.video.export.tables import write_csv, write_json
from lib.video.io.source import VideoSource
from lib.video.io.writer import VideoWriter, write_gif
from lib.video.lift.smoothing import describe_smoothing
from lib.video.lift.stature import stature
from lib.video.show.render import Renderer
from lib.video.show.viewer import EMBED_MOST, write_viewer

_PREVIEW = 480  # px, the preview's height at most
_GIF_SECONDS = 30.0
_MOTIONS = re.compile(r"person_\d+(_from_frame_\d+)?\.bvh")
_FILES = ("poses.mp4", "poses.gif", "viewer.html", "preview.mp4", "poses.npz", "poses.json", "poses.csv", "report.json")
_HALF = re.compile(rf"\.({'|'.join(map(re.escape, _FILES))}|{_MOTIONS.pattern})\.\d+\.tmp")  # of a run that was killed


def is_result(path, folder):
    """Return whether a file is one of the results of `folder`."""
    path = Path(path).resolve()
    return path.parent == Path(folder).resolve() and bool(path.name in _FILES or _MOTIONS.fullmatch(path.name))


def write_data(poses, source, folder, cutoff=None):
    """Write poses.npz, poses.json, poses.csv, a BVH file for each unbroken motion, report.json.

    Args:
        cutoff: with which the poses were smoothed, see `lib.video.lift.smoothing.smooth`.

    Returns:
        {person: `Quality`}.
    """
    folder = Path(folder)
    for old in folder.glob("person_*.bvh"):
        if _MOTIONS.fullmatch(old.name):
            old.unlink()
    write_npz(poses, folder / "poses.npz")
    write_json(poses, folder / "poses.json")
    write_csv(poses, folder / "poses.csv")
    write_all_bvh(poses, folder)
    qualities = {person.id: quality(person, poses.fps) for person in poses.people}
    report = {
        "source": poses.source,
        "damaged": source.damaged,
        "warnings": poses.warnings,
        "frames": len(poses.times),
        "fps": round(poses.fps, 3),
        "detection_fps": poses.detection_fps and round(poses.detection_fps, 1),
        "smoothing": describe_smoothing(cutoff),
        "camera": _camera(poses),
        "people": {
            person.id: {
                "frames": len(person.frames),
                "bridged_frames": int(person.bridged.sum()),
                "first_s": round(float(poses.times[person.frames[0]]), 3),
                "last_s": round(float(poses.times[person.frames[-1]]), 3),
                "limb_deviation_mm": round(qualities[person.id].limb_deviation, 1),
                "height_m": round(stature(person), 2),
                "acceleration_m_s2": round(qualities[person.id].acceleration, 2),
            }
            for person in poses.people
        },
    }
    with atomic_path(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return qualities


def _camera(poses):
    """Return where the camera is taken to be and how it is held."""
    right, down, forward = poses.rotation[2]  # how far the camera's axes point up
    return {
        "height_m": round(float(poses.shift[2]), 2),
        "tilt_down_degrees": round(float(np.degrees(np.arcsin(np.clip(-forward, -1, 1)))), 1),
        "roll_degrees": round(float(np.degrees(np.arctan2(right, -down))), 1),
    }


def write_videos(poses, source, folder, working, audio, progress):
    """Write poses.mp4 (with the video's sound if `audio`), poses.gif (its first 30 s), viewer.html.

    A video too large to be in the page is kept beside it, as preview.mp4.

    Args:
        working: a folder for temporary files.
    """
    folder = Path(folder)
    for left in folder.glob(".*.tmp"):
        if _HALF.fullmatch(left.name):
            left.unlink()
    renderer, preview = Renderer(poses), Path(working) / "preview.mp4"
    share = min(1.0, _PREVIEW / source.height)
    small = max(2, round(source.width * share)), max(2, round(source.height * share))
    sound = source.path if audio else None
    film = VideoWriter(folder / "poses.mp4", *renderer.size, poses.fps, sound, keep_partial=True)
    with film, VideoWriter(preview, *small, poses.fps) as page:
        for number, seconds, rgb in progress(source, "drawing", total=len(poses.times), unit="frame"):
            film.write(renderer.render(number, rgb), seconds)
            page.write(cv2.resize(rgb, small, interpolation=cv2.INTER_AREA) if share < 1 else rgb, seconds)
    film.partial.unlink(missing_ok=True)
    if preview.stat().st_size > EMBED_MOST:
        preview = Path(shutil.move(preview, folder / "preview.mp4"))
    write_viewer(poses, folder / "viewer.html", preview)
    frames = takewhile(lambda frame: frame[1] < _GIF_SECONDS, VideoSource(folder / "poses.mp4"))
    write_gif(((rgb, seconds) for _, seconds, rgb in frames), folder / "poses.gif")
