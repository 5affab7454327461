"""Writing pictures as an MP4 that plays everywhere, with the sound of another file, or as a small GIF."""

import logging
import os
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import av.filter
import cv2
import numpy as np

from lib.errors import UserError, describe
from lib.files import atomic_path, cannot_write

log = logging.getLogger(__name__)

_CLOCK = 60_000  # ticks a second: a whole number for 24, 25, 29.97, 30, 50 and 60 frames a second; MPEG-4 takes 65535
_COPIED = ("aac", "mp3", "ac3", "eac3", "alac")  # sound that players expect in MP4; other kinds become AAC
_AUDIO_RATE = 48_000  # Hz, of sound that becomes AAC
_GIF_CLOCK = 100  # ticks a second, the format's own


class VideoWriter:
    """Context manager that writes an H.264 MP4 (MPEG-4 part 2 where the encoder is missing), atomically.

    If the block fails or is interrupted, what was there before stays. The part written so far is dropped or, with
    `keep_partial`, kept beside it as a video that plays.

    Args:
        path: of the MP4.
        width, height: px, of the pictures; an odd side is filled up by a pixel.
        fps: frames per second, the mean rate.
        audio_from: file whose sound is kept, if it has any, from its first picture on, until the last one here.
        keep_partial: see above.

    Attributes:
        partial: path of the part that is kept.

    Raises:
        UserError: on entering, writing or leaving: the file cannot be written, or it got no picture.
    """

    def __init__(self, path, width, height, fps, audio_from=None, keep_partial=False):
        self.path = Path(path)
        self.partial = self.path.with_name(f"{self.path.stem}.partial.mp4")
        self._width, self._height = width + width % 2, height + height % 2
        self._fps = max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))
        self._audio_from = audio_from
        self._keep_partial = keep_partial
        self._ticks = -1

    def __enter__(self):
        self._block = self._writing()
        return self._block.__enter__()

    def __exit__(self, *error):
        return self._block.__exit__(*error)

    def write(self, rgb, seconds):
        """Adds a picture (height, width, 3) uint8, shown from `seconds` on; seconds ascend, the first are 0."""
        self._ticks = max(round(seconds * _CLOCK), self._ticks + 1)
        height, width = rgb.shape[:2]
        if (width, height) != (self._width, self._height):
            rgb = cv2.copyMakeBorder(
                rgb, 0, self._height - height, 0, self._width - width, borderType=cv2.BORDER_REPLICATE
            )
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.time_base = self._ticks, Fraction(1, _CLOCK)
        self._encode(frame)
        self._mux_sound(self._ticks / _CLOCK)

    @contextmanager
    def _writing(self):
        try:
            with atomic_path(self.path) as temporary:
                self._container = av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"})
                with self._container, _sound(self._audio_from, self._container) as self._sound:
                    self._waiting = next(self._sound, None)
                    self._video = self._video_stream()
                    try:
                        yield self
                        if self._ticks < 0:
                            raise UserError(f"{self.path}: not written, there is no picture to write")
                        self._finish()
                    except BaseException:
                        if self._keep_partial and self._ticks >= 0:
                            self._finish()
                            os.replace(temporary, self.partial)
                        raise
        except av.error.FFmpegError as error:
            raise cannot_write(self.path, error) from error

    def _video_stream(self):
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = self._container.add_stream(codec, rate=self._fps)
        stream.width, stream.height, stream.pix_fmt = self._width, self._height, "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, _CLOCK)
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # 16 to 235
        if codec == "libx264":
            context.options = {"crf": "20", "preset": "veryfast"}
        else:
            context.bit_rate = int(0.2 * self._width * self._height * self._fps)
        return stream

    def _finish(self):
        self._encode(None)
        self._mux_sound((self._ticks + _CLOCK / self._fps) / _CLOCK)
        self._container.close()

    def _encode(self, frame):
        for packet in self._video.encode(frame):
            if not packet.duration:
                packet.duration = round(1 / self._fps / packet.time_base)  # the last one's would be 0
            self._container.mux(packet)

    def _mux_sound(self, seconds):
        """Writes the sound until then, so that it lies beside its pictures."""
        while self._waiting and self._waiting[0] < seconds:
            self._container.mux(self._waiting[1])
            self._waiting = next(self._sound, None)


@contextmanager
def _sound(path, output):
    """Adds a stream for the sound of the file and yields an iterator of (seconds, packet to mux), in order.

    It is empty where there is no sound, and ends with a warning where that is damaged.
    """
    if path is None:
        yield iter(())
        return
    with av.open(str(path), metadata_errors="replace") as source:
        audio = next((stream for stream in source.streams.audio if stream.codec_context), None)
        if audio is None:
            yield iter(())
        elif audio.codec_context.name in _COPIED:
            yield _copied(source, audio, output.add_stream_from_template(audio))
        elif "aac" in av.codecs_available:
            yield _encoded(source, audio, output.add_stream("aac", rate=_AUDIO_RATE))
        else:
            log.warning("%s: its sound (%s) is left out, MP4 does not take it", path, audio.codec_context.name)
            yield iter(())


def _audio_packets(source, audio):
    """Packets from the first picture on, and the time of that picture in s."""
    start = next((float(v.start_time * v.time_base) for v in source.streams.video if v.start_time is not None), 0.0)
    packets = source.demux(audio)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            log.warning("%s: its sound is damaged and ends early (%s)", source.name, describe(error))
            return
        if packet is None:
            return
        if packet.pts is not None and float((packet.pts + (packet.duration or 0)) * packet.time_base) > start:
            yield packet, start


def _copied(source, audio, stream):
    for packet, start in _audio_packets(source, audio):
        shift = round(start / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, (packet.pts if packet.dts is None else packet.dts) - shift
        packet.stream = stream
        yield float(packet.pts * packet.time_base), packet


def _encoded(source, audio, stream):
    layout = "mono" if audio.codec_context.channels == 1 else "stereo"
    stream.codec_context.layout = layout
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=_AUDIO_RATE)
    clock = None

    def encoded(frame):
        nonlocal clock
        for part in resampler.resample(frame):
            part.pts, part.time_base = clock, Fraction(1, _AUDIO_RATE)
            clock += part.samples
            yield from stream.encode(part)

    def packets():
        nonlocal clock
        for packet, start in _audio_packets(source, audio):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in frames:
                if clock is None:
                    clock = round((float(frame.pts * frame.time_base) - start) * _AUDIO_RATE)
                yield from encoded(frame)
        if clock is not None:
            yield from encoded(None)
            yield from stream.encode(None)

    for packet in packets():
        yield float(packet.pts * packet.time_base), packet


def write_gif(frames, path, fps=10, width=640, most=300):
    """Writes a GIF, atomically, in flat memory; it shows less than all pictures where `fps` or `most` ask for that.

    Args:
        frames: iterable of (picture (H, W, 3) uint8 RGB, seconds), in order.
        fps: pictures per second at most.
        width: px at most.
        most: pictures at most; a longer video is shown at its true speed with fewer pictures a second.

    Returns:
        Seconds from one picture to the next, 1 / `fps` unless `most` made it longer.

    Raises:
        UserError: the file cannot be written, or there is no picture.
    """
    interval, kept = 1 / fps, {}  # time slot -> (seconds, PNG)
    for rgb, seconds in frames:
        slot = int(seconds / interval + 1e-6)
        if slot in kept:
            continue
        if rgb.shape[1] > width:
            size = width, max(1, round(rgb.shape[0] * width / rgb.shape[1]))
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        kept[slot] = seconds, cv2.imencode(".png", rgb)[1]
        if len(kept) > most:
            interval *= 2
            thinned = {}
            for slot, picture in kept.items():
                thinned.setdefault(slot // 2, picture)
            kept = thinned
    if not kept:
        raise UserError(f"{path}: not written, there is no picture to write")
    try:
        with atomic_path(path) as temporary, av.open(str(temporary), "w", format="gif") as container:
            _encode_gif(container, list(kept.values()), interval)
    except av.error.FFmpegError as error:
        raise cannot_write(path, error) from error
    return interval


def _encode_gif(container, pictures, interval):
    """One palette for all pictures, then the pictures in its colours."""
    first = next(_frames(pictures))
    graph = av.filter.Graph()
    makes, sink = graph.add("palettegen"), graph.add("buffersink")
    colours = _feed(graph, first, makes)
    makes.link_to(sink)
    graph.configure()
    for frame in chain(_frames(pictures), [None]):
        colours.push(frame)
    palette = sink.pull()

    graph = av.filter.Graph()
    uses, sink = graph.add("paletteuse", "dither=bayer:bayer_scale=4:diff_mode=rectangle"), graph.add("buffersink")
    feed, colours = _feed(graph, first, uses, 0), _feed(graph, palette, uses, 1)
    uses.link_to(sink)
    graph.configure()
    palette.pts, palette.time_base = 0, first.time_base
    colours.push(palette)
    colours.push(None)

    stream = container.add_stream("gif", rate=Fraction(1 / interval).limit_denominator(100))
    stream.width, stream.height, stream.pix_fmt = first.width, first.height, "pal8"
    stream.codec_context.time_base = first.time_base
    for frame in chain(_frames(pictures), [None]):
        feed.push(frame)
        for drawn in _pulled(sink):
            container.mux(stream.encode(drawn))
    container.mux(stream.encode(None))


def _frames(pictures):
    for seconds, png in pictures:
        frame = av.VideoFrame.from_ndarray(np.asarray(cv2.imdecode(png, cv2.IMREAD_COLOR), np.uint8), format="rgb24")
        frame.pts, frame.time_base = round(seconds * _GIF_CLOCK), Fraction(1, _GIF_CLOCK)
        yield frame


def _feed(graph, frame, target, place=0):
    """A source of such frames, linked to an input of `target`."""
    feed = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(1, _GIF_CLOCK)
    )
    feed.link_to(target, 0, place)
    return feed


def _pulled(sink):
    while True:
        try:
            yield sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
