"""A video to the 3D poses of its people: detect and track, lift, place in the world. Memory does not grow with length."""

import logging
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lib.errors import UserError, nearest
from lib.files import require_file
from lib.system import take_room
from lib.video.detection import open_detector, options_of_detector
from lib.video.detection.keypoints_file import read_keypoints
from lib.video.detection.search import View
from lib.video.io.source import VideoSource
from lib.video.lift.lifter import WEIGHTS, choose_device, open_lifter
from lib.video.lift.placement import FOCAL, roots, steady
from lib.video.lift.smoothing import check_cutoff, smooth
from lib.video.lift.turned import where_heads_point
from lib.video.lift.verticals import lines
from lib.video.lift.world import settle
from lib.video.poses import Person, Poses, mean_rate
from lib.video.track.detections import Detections
from lib.video.track.gaps import blocks, bridge, fill
from lib.video.track.tracker import Tracker, shortest

MOST_PIXELS = 1920  # px of a picture's longer side; larger ones are worked on smaller
_SAVE_EVERY = 300  # frames
_LOOK_BACK = 15  # frames, before an interrupted detection goes on

log = logging.getLogger(__name__)


class NobodySeen(UserError):
    """A video without people."""


class Options(BaseModel):
    """How a video is lifted."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weights: Path = WEIGHTS  # checkpoint file
    config: Path | None = None  # YAML file, where the checkpoint has none or other keys are wanted
    clip_len: int | None = Field(None, ge=1)  # frames of a window; the config's by default
    pixel: bool = False  # a network trained on whole pictures sees keypoints where they are
    detector: str = "accurate"  # a key of `lib.video.detection.DETECTORS`
    detector_options: dict = {}  # for its class
    keypoints: Path | None = None  # detections made elsewhere, in place of a detector
    keypoints_first: int = 0  # the number they give the first frame
    focus: int | None = None  # the only person to keep
    max_gap: float = Field(0.5, ge=0)  # s, the longest gap that is bridged
    smooth: float | None = Field(None, ge=0)  # Hz, of a low-pass filter; 0 for none; by confidence by default
    height: float | None = Field(None, gt=50, le=272)  # cm, of the body of the first person, or of `focus`
    turn: Literal[0, 90, 180, 270] = 0  # degrees clockwise that images are turned before all else
    focal: float | None = Field(None, gt=0)  # px; a usual one by default
    device: str | None = None  # "cpu", "cuda" or "cuda:1"; what there is by default


def options_of(values):
    """`Options` of a dict.

    Raises:
        UserError: an option is unknown or has a wrong value.
    """
    try:
        return Options(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            known = Options.model_fields
            raise UserError(f"{key}: unknown option{nearest(key, known)}; there are {', '.join(known)}") from error
        raise UserError(f"{key}: {values[key]!r}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def lift_video(video, progress=None, **options):
    """The `Poses` of a video's people, in memory.

    Args:
        video: path; a picture whose longer side is above 1920 px is worked on, and its px are given, at that size.
        progress: wraps what is gone through, as `lib.cli.progress_bar` does.
        options: fields of `Options`.

    Raises:
        UserError: the video, the weights or an option is bad, or nobody is found.
    """
    if not isinstance(video, (str, os.PathLike)):
        raise UserError(f"video: {video!r}: expected a path")
    chosen = options_of(options)
    with tempfile.TemporaryDirectory() as folder:
        poses = lift(VideoSource(require_file(video), MOST_PIXELS, chosen.turn), folder, chosen, progress)
        return replace(poses, people=[_in_memory(person) for person in poses.people])


def lift(source, folder, options, progress=None):
    """The `Poses` of a `VideoSource`, memory-mapped in `folder`, where an interrupted detection goes on."""
    folder, progress = Path(folder), progress or _silent
    if options.smooth:
        check_cutoff(options.smooth, source.fps)
    lifter = open_lifter(options.weights, options.config, options.clip_len, options.pixel, options.device)
    focal = options.focal * source.scale if options.focal else FOCAL * max(source.width, source.height)
    _, _, first = next(iter(source))
    found = detect(source, folder / "detections", options, progress)
    try:
        return _lift(found, source, folder, lifter, focal, lines(first, focal), options, progress)
    finally:
        found.close()


def detect(source, folder, options, progress):
    """The `Detections` of all frames.

    Raises:
        UserError: the video has no frame, or a detector or a file of keypoints is bad.
    """
    models = [
        _identity(value) if Path(str(value)).exists() else str(value) for value in options.detector_options.values()
    ]
    origin = [options.detector, sorted(options.detector_options), models]
    if options.keypoints:
        origin = [_identity(options.keypoints), options.keypoints_first]
    found = Detections(folder, [_identity(source.path), source.turn, *origin])
    if found.complete:
        source.damaged = found.damaged
        return found
    try:
        _detect(found, source, options, progress)
        return found
    except BaseException:
        found.close()
        if found.opened and not found.frames:
            shutil.rmtree(folder)
        raise


def _detect(found, source, options, progress):
    """Goes on with the detections `found` until the video ends."""
    if options.keypoints:
        width, height = (source.height, source.width) if source.turn % 180 else (source.width, source.height)
        size, scale = (width / source.scale, height / source.scale), source.scale
        opened = read_keypoints(options.keypoints, options.keypoints_first, size)
        whole = View(0, 0, source.width, source.height, source.turn // 90)
    else:
        opened, scale, whole = _open_detector(options), 1.0, None
    with opened as detector:
        found.open()
        already = found.frames
        tracker = Tracker(source.fps, found.tracks, found.sources)
        try:
            for number, seconds, frame in progress(source, "finding people", total=source.frames, unit="frame"):
                if number < already - _LOOK_BACK:
                    continue
                people = [_placed(person, scale, whole) for person in detector.detect(frame, seconds, number)]
                if number < already:  # so that the detector knows who is there
                    continue
                found.add(seconds, people, *tracker.update(people, frame, seconds))
                found.warn(detector.warnings)
                if found.frames % _SAVE_EVERY == 0:
                    found.save()
            if found.frames == 1:
                found.add_late(tracker.number_new(frame))
        finally:
            found.save()
    if options.keypoints:
        opened.check_frames(found.frames)
    found.save(complete=True, damaged=source.damaged)


def _open_detector(options):
    """The detector of `options`, on its device if it has the choice."""
    device = choose_device(options.device)
    if device.type == "cuda" and "device" in options_of_detector(options.detector):
        return open_detector(options.detector, device=str(device), **options.detector_options)
    return open_detector(options.detector, **options.detector_options)


def _placed(detection, scale, whole):
    """A `Detection` in px of an image of another size, which was turned: the `View` sees it as it was before."""
    if whole is None:
        return detection
    keypoints = detection.keypoints * np.array([scale, scale, 1], np.float32)
    keypoints[:, :2] = whole.back(keypoints[:, :2])
    return detection._replace(keypoints=keypoints, box=whole.back_box(detection.box * np.float32(scale)))


def _identity(path):
    """What tells a file, or a folder of files, from another one: its name, size and time of change."""
    path = Path(path).resolve()
    files = [file.stat() for file in (path.iterdir() if path.is_dir() else [path]) if file.is_file()]
    return [str(path), len(files), sum(f.st_size for f in files), max((f.st_mtime for f in files), default=0)]


def _lift(found, source, folder, lifter, focal, built, options, progress):
    times, (people, rows) = found.times(), found.people()
    fps = mean_rate(times, source.fps)
    if options.smooth:
        check_cutoff(options.smooth, fps)
    if not people:
        shutil.rmtree(folder)
        many = (
            f"for {shortest(times):.2g} s in any of its {len(times)} frames" if len(times) > 1 else "in its one frame"
        )
        raise NobodySeen(f"{source.name}: nobody is seen {many}")
    if options.focus is not None:
        if options.focus not in people:
            raise UserError(f"focus: there is no person {options.focus}; there are {', '.join(map(str, people))}")
        people = {options.focus: people[options.focus]}
    people = _people(people, rows, times, folder, options.max_gap)
    warnings = [*found.warnings, *_turned(people)]
    for person in progress(people, "lifting", total=len(people), unit="person"):
        _lift_person(person, lifter, (source.width, source.height, focal), fps, times[person.frames], options.smooth)
    rotation, shift = settle(people, times, options.height and options.height / 100, built)
    return Poses(source.name, times, source.width, source.height, focal, rotation, shift, people, warnings)


def _turned(people):
    """A warning if most people lie or stand on their heads in the image, or nothing."""
    every = (np.asarray(p.keypoints[block]) for p in people for block in blocks(slice(0, len(p.frames))))
    if not (found := where_heads_point(every)):
        return []
    warning = "most heads point to the {} of the image: if the video is turned, pass --turn {}".format(*found)
    log.warning(warning)
    return [warning]


def _people(people, rows, times, folder, max_gap):
    """`Person`s with their keypoints, and room for the rest: in one file of each kind for all, who may be hundreds.

    Args:
        people: {person: numbers of their `rows`}.
    """
    found = {person: rows["frame"][chosen].astype(np.int64) for person, chosen in people.items()}
    frames = {person: bridge(seen, times, max_gap) for person, seen in found.items()}
    edges = np.cumsum([0, *map(len, frames.values())]).tolist()
    arrays = [_mapped(folder / f"{name}.npy", (edges[-1], 17, 3)) for name in ("keypoints", "camera", "world")]
    made = []
    for person, start, stop in zip(people, edges, edges[1:]):
        keypoints, camera, world = (array[start:stop] for array in arrays)
        fill(frames[person], found[person], _Indexed(rows["keypoints"], people[person]), keypoints)
        bridged = ~np.isin(frames[person], found[person])
        made.append(Person(person, frames[person], keypoints, bridged, camera, world))
    return made


def _lift_person(person, lifter, size, fps, times, cutoff):
    """Write `person.camera`.

    Args:
        size: width, height and focal length, px.
        times: (n,) s of the person's frames.
        cutoff: of `smooth`.
    """
    keypoints, camera = person.keypoints, person.camera
    for segment in person.segments():
        lifter.lift(keypoints[segment], camera[segment], *size, fps)
        confidence = np.array(keypoints[segment, :, 2])
        smooth(camera[segment], confidence, times[segment], cutoff)
        places = [roots(camera[block], keypoints[block], *size) for block in blocks(segment)]
        place = steady(np.concatenate(places), times[segment], smoothed=cutoff != 0)
        smooth(place[:, None], confidence.mean(1, keepdims=True), times[segment], cutoff)
        for block in blocks(segment):
            camera[block] += place[block.start - segment.start : block.stop - segment.start, None]


def _mapped(path, shape):
    """A float32 array in a file whose room on the disk is taken; what is missing later would end the process."""
    array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    take_room(path)
    return array


class _Indexed:
    """Some rows of a mapped array, read when asked for."""

    def __init__(self, array, chosen):
        self.array, self.chosen = array, chosen

    def __getitem__(self, index):
        return self.array[self.chosen[index]]


def _silent(items, doing, **looks):
    return items


def _in_memory(person):
    return replace(person, **{name: np.array(getattr(person, name)) for name in ("keypoints", "camera", "world")})
