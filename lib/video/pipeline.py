"""Pipeline from a video to the 3D poses of its people: detect, track, lift, place in the world, in constant memory."""

import logging
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lib.errors import UserError, first_invalid
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
from lib.video.track.detections import ROW, WITH_POSE, Detections
from lib.video.track.gaps import blocks, bridge, fill, interpolate
from lib.video.track.tracker import Tracker, shortest

MOST_PIXELS = 1920  # px of a image's longer side; larger ones are worked on smaller
_SAVE_EVERY = 300  # frames
_LOOK_BACK = 15  # frames, before an interrupted detection goes on

log = logging.getLogger(__name__)


class NobodySeen(UserError):
    """Error for a video without people."""


class Options(BaseModel):
    """Options of lifting a video."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weights: Path = WEIGHTS  # checkpoint file
    config: Path | None = None  # YAML file, where the checkpoint has none or other keys are wanted
    clip_len: int | None = Field(None, ge=1)  # frames of a window; the config's by default
    pixel: bool = False  # a network trained on whole images sees keypoints where they are
    lifter: Literal["posemamba", "mambapose"] = "posemamba"  # the second: poses are those of the detector mambapose
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
    """Return the `Options` of a dict.

    Raises:
        UserError: an option is unknown or has a wrong value.
    """
    try:
        return Options(**values)
    except ValidationError as error:
        known = Options.model_fields
        (key, *_), problem = first_invalid(error, known)
        if key not in known:
            raise UserError(f"{key}: {problem}; there are {', '.join(known)}") from error
        raise UserError(f"{key}: {values[key]!r}: {problem}") from error


def lift_video(video, progress=None, **options):
    """Return the `Poses` of a video's people, in memory.

    Args:
        video: path; an image whose longer side is above 1920 px is worked on, and its px are given, at that size.
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
    """Return the `Poses` of a `VideoSource`, memory-mapped in `folder`, where an interrupted detection resumes."""
    folder, progress = Path(folder), progress or _silent
    if options.smooth:
        check_cutoff(options.smooth, source.fps)
    lifter = _open_lifter(options)
    focal = _focal(options, source)
    _, _, first = next(iter(source))
    found = detect(source, folder / "detections", options, progress)
    try:
        return _lift(found, source, folder, lifter, focal, lines(first, focal), options, progress)
    finally:
        found.close()


def _open_lifter(options):
    """Open the lifting network of `options`; None where the detector gives poses itself."""
    if options.lifter == "posemamba":
        return open_lifter(options.weights, options.config, options.clip_len, options.pixel, options.device)
    if options.detector != "mambapose" or options.keypoints:
        raise UserError("lifter: mambapose sees images; set detector: mambapose, and no keypoints")
    return None


def _focal(options, source):
    return options.focal * source.scale if options.focal else FOCAL * max(source.width, source.height)


def detect(source, folder, options, progress):
    """Return the `Detections` of all frames.

    Raises:
        UserError: the video has no frame, or a detector or a file of keypoints is bad.
    """
    models = [
        _identity(value) if Path(str(value)).exists() else str(value) for value in options.detector_options.values()
    ]
    origin = [options.detector, sorted(options.detector_options), models]
    row = ROW
    if options.keypoints:
        origin = [_identity(options.keypoints), options.keypoints_first]
    elif options.lifter == "mambapose":
        origin, row = [*origin, _focal(options, source)], WITH_POSE
    found = Detections(folder, [_identity(source.path), source.turn, *origin], row)
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
    """Continue the detections `found` until the video ends."""
    if options.keypoints:
        width, height = (source.height, source.width) if source.turn % 180 else (source.width, source.height)
        size, scale = (width / source.scale, height / source.scale), source.scale
        opened = read_keypoints(options.keypoints, options.keypoints_first, size)
        whole = View(0, 0, source.width, source.height, source.turn // 90)
    else:
        opened, scale, whole = _open_detector(options, _focal(options, source)), 1.0, None
    with opened as detector:
        found.open()
        already = found.frames
        tracker = Tracker(source.fps, found.tracks, found.sources)
        try:
            for number, seconds, frame in progress(source, "finding people", total=source.frames, unit="frame"):
                if number < already - _LOOK_BACK:
                    continue
                began = time.perf_counter()
                people = [_placed(person, scale, whole) for person in detector.detect(frame, seconds, number)]
                if number < already:  # so that the detector knows who is there
                    continue
                found.spent += time.perf_counter() - began
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


def _open_detector(options, focal):
    """Open the detector of `options`, on its device and told of the camera if it has the choice.

    focal: px.
    """
    device, own = choose_device(options.device), options_of_detector(options.detector)
    told = {"focal": focal, "poses": options.lifter == "mambapose"}
    told |= {"device": str(device)} if device.type == "cuda" else {}
    told = {key: value for key, value in told.items() if key in own}
    return open_detector(options.detector, **told | options.detector_options)


def _placed(detection, scale, whole):
    """Return a `Detection` in px of an image of another size, with the turn of the `View` undone."""
    if whole is None:
        return detection
    keypoints = detection.keypoints * np.array([scale, scale, 1], np.float32)
    keypoints[:, :2] = whole.back(keypoints[:, :2])
    return detection._replace(keypoints=keypoints, box=whole.back_box(detection.box * np.float32(scale)))


def _identity(path):
    """Return what identifies a file, or a folder of files: its name, size and time of change."""
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
    size = source.width, source.height
    rate = None if options.keypoints else len(times) / max(found.spent, 1e-9)
    return Poses(source.name, times, *size, focal, rotation, shift, people, warnings, rate)


def _turned(people):
    """Return a list with a warning if most people lie or stand on their heads in the image, else an empty one."""
    every = (np.asarray(p.keypoints[block]) for p in people for block in blocks(slice(0, len(p.frames))))
    if not (found := where_heads_point(every)):
        return []
    warning = "most heads point to the {} of the image: if the video is turned, pass --turn {}".format(*found)
    log.warning(warning)
    return [warning]


def _people(people, rows, times, folder, max_gap):
    """Return `Person`s with their keypoints, and files for the rest: one of each kind for all, who may be hundreds.

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
        if "pose" in rows.dtype.names:
            interpolate(frames[person], found[person], _Indexed(rows["pose"], people[person]), camera)
        bridged = ~np.isin(frames[person], found[person])
        made.append(Person(person, frames[person], keypoints, bridged, camera, world))
    return made


def _lift_person(person, lifter, size, fps, times, cutoff):
    """Write `person.camera`.

    Args:
        lifter: None: root-relative poses are there already.
        size: width, height and focal length, px.
        times: (n,) s of the person's frames.
        cutoff: of `smooth`.
    """
    keypoints, camera = person.keypoints, person.camera
    for segment in person.segments():
        if lifter:
            lifter.lift(keypoints[segment], camera[segment], *size, fps)
        confidence = np.array(keypoints[segment, :, 2])
        smooth(camera[segment], confidence, times[segment], cutoff)
        places = [roots(camera[block], keypoints[block], *size) for block in blocks(segment)]
        place = steady(np.concatenate(places), times[segment], smoothed=cutoff != 0)
        smooth(place[:, None], confidence.mean(1, keepdims=True), times[segment], cutoff)
        for block in blocks(segment):
            camera[block] += place[block.start - segment.start : block.stop - segment.start, None]


def _mapped(path, shape):
    """Return a float32 array in a file whose disk space is allocated; a full disk later would kill the process."""
    array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    take_room(path)
    return array


class _Indexed:
    """Entries of a mapped array by number, read on access."""

    def __init__(self, array, chosen):
        self.array, self.chosen = array, chosen

    def __getitem__(self, index):
        return self.array[self.chosen[index]]


def _silent(items, doing, **looks):
    return items


def _in_memory(person):
    return replace(person, **{name: np.array(getattr(person, name)) for name in ("keypoints", "camera", "world")})
