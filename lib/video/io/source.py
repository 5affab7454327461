"""Reader of a video file or a camera frame by frame: upright RGB images with their times, in constant memory."""

import os
import time
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from lib.errors import UserError, describe
from lib.files import require_file

_CONVERT = "ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4"
_STATES_DURATION = ("mov", "mp4", "matroska", "webm", "avi", "flv")  # formats that say how long the file is
_SHORT = 0.5  # s that may be missing at the end of a whole file: streams of unequal length, rounding
_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
_CAMERA_FPS = 30.0  # where a camera does not say


class VideoSource:
    """Frames of a video file, or of the camera with a given number.

    Iterating yields (number from 0, seconds from the first frame, image (height, width, 3) uint8 RGB, contiguous).
    Images are upright (phones' rotation and mirroring undone), with square pixels. Seconds ascend strictly; they are
    the file's own, so a variable frame rate is kept, and the mean rate's where the file's are missing or go back.
    A file can be iterated again and again; a camera once, until it is closed or stops.

    Args:
        source: path, or a camera's number (`0`, `"0"`).
        max_side: px; larger images are handed out smaller, so that no side is longer.
        turn: degrees clockwise that images of a file are turned as well, where it does not say so itself: 0, 90, 180, 270.

    Attributes:
        turn: as given.
        name: the file's name, or "camera 0".
        path: of a file.
        width, height: px, of the images handed out.
        scale: their size over that of the upright video; 1.0 unless `max_side` bites.
        fps: frames per second, the mean rate.
        frames: how many there are, an estimate; None if it cannot be known.
        has_audio: whether the file has sound.
        damaged: after iterating, what is missing of a broken file, in a line; None if nothing is.

    Raises:
        UserError: there is no such file or camera, or no frame of it can be read; names it and the way out.
    """

    def __init__(self, source, max_side=None, turn=0):
        self.damaged, self.turn = None, turn
        self._max_side = max_side
        self._camera = None
        if str(source).isdecimal() and not Path(str(source)).is_file():
            self._open_camera(int(source))
        else:
            self._open_file(require_file(source))

    def __iter__(self):
        self.damaged = None
        return self._camera_frames() if self._camera else self._file_frames()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Release a camera; a file is open only while it is iterated."""
        if self._camera:
            self._camera.release()

    def _open_file(self, path):
        self.path = path
        self.name = path.name
        with self._container() as (container, stream):
            self.fps = float(stream.average_rate or stream.guessed_rate or 25)
            seconds = _stated_seconds(container)
            self.frames = stream.frames or (round(seconds * self.fps) if seconds else None)
            self.has_audio = any(audio.codec_context for audio in container.streams.audio)
            first = next((frame for packet in container.demux(stream) for frame in _decoded(packet) or ()), None)
            if first is None:
                raise UserError(f"{path}: has no frame that can be decoded; record or copy it again")
            aspect = float(stream.sample_aspect_ratio or 1)
        stored = first.width * aspect, first.height
        self.scale = min(1.0, (self._max_side or np.inf) / max(stored))
        self._stored_size = tuple(max(1, round(side * self.scale)) for side in stored)
        blank = np.empty((*self._stored_size[::-1], 3), np.uint8)
        self.height, self.width = self._turned(_upright(blank, _matrix(first))).shape[:2]

    @contextmanager
    def _container(self):
        """Return the open file and its video stream."""
        try:
            container = av.open(str(self.path), metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            raise UserError(f"{self.path}: {_why_not(self.path, error.strerror or describe(error))}") from error
        with container:
            videos = [s for s in container.streams.video if "attached_pic" not in _disposition(s)]
            if not container.streams:
                raise UserError(f"{self.path}: {_why_not(self.path, 'there is nothing in it')}")
            if not videos or container.format.name == "tty":  # tty: text, drawn as images
                has = "has only sound, no images" if container.streams.audio else "is not a video"
                raise UserError(f"{self.path}: {has}; give a video file (.mp4, .mov, .mkv, ...)")
            stream = videos[0]
            if stream.codec_context is None:
                raise UserError(f"{self.path}: its video codec is not known here; convert it: {_CONVERT}")
            stream.thread_type = "AUTO"
            yield container, stream

    def _file_frames(self):
        with self._container() as (container, stream):
            step, last, first_time = 1 / self.fps, None, None
            number, undecoded, at_end, end, stopped = 0, 0, False, 0.0, None
            reformatter = VideoReformatter()
            packets = container.demux()
            while True:
                try:
                    packet = next(packets, None)
                except (av.error.FFmpegError, OSError) as error:
                    stopped = error.strerror or describe(error)
                    break
                if packet is None:
                    break
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream.index != stream.index:
                    continue
                frames = _decoded(packet)
                if frames is None:
                    undecoded, at_end = undecoded + 1, True
                    continue
                at_end = at_end and not packet.size
                for frame in frames:
                    seconds = None if frame.pts is None else float(frame.pts * frame.time_base)
                    if last is not None and (seconds is None or seconds <= last):
                        seconds = last + step
                    last = seconds or 0.0
                    first_time = last if first_time is None else first_time
                    yield number, last - first_time, self._image(reformatter, frame)
                    number += 1
            missing = (_stated_seconds(container) or 0) - (end - (container.start_time or 0) / 1e6)
            if stopped is None and missing > _SHORT and container.format.name.startswith(_STATES_DURATION):
                stopped = f"{missing:.1f} s are missing"
            elif stopped is None and at_end:
                stopped = "what follows cannot be decoded"
            if stopped:
                self.damaged = f"ends after frame {number - 1}: {stopped}"
            elif undecoded:
                self.damaged = f"{undecoded} of about {number + undecoded} frames cannot be decoded"

    def _image(self, reformatter, frame):
        width, height = self._stored_size
        smaller = width * height < frame.width * frame.height
        rgb = reformatter.reformat(
            frame,
            width,
            height,
            "rgb24",
            src_colorspace="ITU601" if frame.colorspace in (2, 4, 5, 6) else "ITU709",  # 2: not stated
            dst_colorspace="ITU601",  # PyAV 14 heeds the first only if there is a second
            interpolation="AREA" if smaller else "BILINEAR",
        )
        return self._turned(_upright(rgb.to_ndarray(), _matrix(frame)))

    def _turned(self, image):
        return cv2.rotate(image, _TURNS[self.turn]) if self.turn else image

    def _open_camera(self, index):
        self.name = f"camera {index}"
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it prints a page where there is no camera
        try:
            self._camera = cv2.VideoCapture(index)
            ok, image = self._camera.read()
        finally:
            cv2.utils.logging.setLogLevel(level)
        if not ok:
            raise UserError(f"{self.name}: there is none, or another program holds it; give a video file instead")
        height, width = image.shape[:2]
        self.scale = min(1.0, (self._max_side or np.inf) / max(width, height))
        self.width, self.height = round(width * self.scale), round(height * self.scale)
        self.fps = self._camera.get(cv2.CAP_PROP_FPS) or _CAMERA_FPS
        self.frames, self.has_audio = None, False

    def _camera_frames(self):
        number, began, last = 0, None, -1.0
        while True:
            ok, image = self._camera.read()
            if not ok:
                return
            now = time.monotonic()
            began = now if began is None else began
            last = max(now - began, last + 1e-3)
            if self.scale < 1:
                image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
            yield number, last, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            number += 1


def _decoded(packet):
    """Return the frames of a packet; None if it is damaged."""
    try:
        return None if packet.is_corrupt else packet.decode()
    except av.error.FFmpegError:
        return None


def _stated_seconds(container):
    return container.duration / 1e6 if container.duration else None


def _disposition(stream):
    return getattr(getattr(stream, "disposition", None), "name", None) or ""  # PyAV 14.0 does not tell


def _matrix(frame):
    """Return the 2 x 2 part of the display matrix ((a, b), (c, d)): a stored pixel (x, y) is shown at (ax + cy, bx + dy)."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
            return a, b, c, d
    return 1, 0, 0, 1


def _upright(image, matrix):
    """Return the image rotated by multiples of 90 degrees and mirrored by the display matrix."""
    a, b, c, d = matrix
    if abs(a) < abs(b):
        image, a, d = cv2.transpose(image), c, b
    if a < 0 or d < 0:
        image = cv2.flip(image, -1 if a < 0 and d < 0 else 1 if a < 0 else 0)
    return np.ascontiguousarray(image)


def _why_not(path, reason):
    """Return what is wrong with a file that cannot be opened, and the way out."""
    if not os.access(path, os.R_OK):
        return "cannot be read (permission denied)"
    if path.stat().st_size == 0:
        return "is empty; record or copy it again"
    with open(path, "rb") as handle:
        head = handle.read(4096)
    if head[4:8] in (b"ftyp", b"mdat", b"wide"):
        return "is cut off: the index of the file, at its end, is missing; record or copy it again"
    if b"\0" not in head:
        return "is text, not a video; give a video file (.mp4, .mov, .mkv, ...)"
    return f"is not a video that can be read ({reason}); convert it: {_CONVERT}"
