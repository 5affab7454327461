"""A video to the 3D poses of its people: detect and track, lift, place in the world. Memory does not grow with length."""

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from lib.config import load_config
from lib.errors import UserError
from lib.files import PROJECT
from lib.video.camera import FOCAL, World, roots, steady
from lib.video.detection import open_detector
from lib.video.detection.keypoints_file import read_keypoints
from lib.video.detections import Detections
from lib.video.gaps import BLOCK, bridge, fill
from lib.video.lifting import Lifter
from lib.video.poses import Person, Poses
from lib.video.smoothing import check_cutoff, smooth
from lib.video.source import VideoSource
from lib.video.tracking import SHORTEST, Tracker
from lib.weights import read_weights

WEIGHTS = PROJECT / "demo" / "posemamba_wild.safetensors"
MOST_PIXELS = 1920  # px of a picture's longer side; larger ones are worked on smaller
_SAVE_EVERY = 300  # frames


@dataclass(frozen=True)
class Options:
    """How a video is lifted.

    weights: checkpoint file; config: YAML file, where the checkpoint has none or other keys are wanted; clip_len:
    frames of a window, the config's by default; pixel: networks trained on whole pictures see keypoints where they are.
    detector: a key of `lib.video.detection.DETECTORS`; detector_options: for its class; keypoints: detections made
    elsewhere, in place of a detector; keypoints_first: the number they give the first frame. focus: the only person to keep; max_gap: s, the longest gap that is bridged;
    cutoff: Hz of a low-pass filter, or None; focal: px, or None for a usual one. device: "cpu", "cuda", or None for
    what there is.
    """

    weights: str | Path = WEIGHTS
    config: str | None = None
    clip_len: int | None = None
    pixel: bool = False
    detector: str = "mediapipe"
    detector_options: dict = field(default_factory=dict)
    keypoints: str | None = None
    keypoints_first: int = 0
    focus: int | None = None
    max_gap: float = 0.5
    cutoff: float | None = None
    focal: float | None = None
    device: str | None = None


def lift_video(video, progress=None, **options):
    """The `Poses` of a video's people, in memory.

    Args:
        video: path.
        progress: wraps what is gone through, as `lib.cli.progress_bar` does.
        options: fields of `Options`.

    Raises:
        UserError: the video, the weights or an option is bad, or nobody is found.
    """
    with tempfile.TemporaryDirectory() as folder:
        poses = lift(VideoSource(video, MOST_PIXELS), folder, Options(**options), progress)
        return replace(poses, people=[_in_memory(person) for person in poses.people])


def lift(source, folder, options, progress=None):
    """The `Poses` of a `VideoSource`, memory-mapped in `folder`, where an interrupted detection goes on."""
    folder, progress = Path(folder), progress or _silent
    if options.cutoff:
        check_cutoff(options.cutoff, source.fps)
    lifter = _lifter(options)
    found = detect(source, folder / "detections", options, progress)
    focal = options.focal * source.scale if options.focal else FOCAL * max(source.width, source.height)
    try:
        return _lift(found, source, folder, lifter, focal, options, progress)
    finally:
        found.close()


def detect(source, folder, options, progress):
    """The `Detections` of all frames.

    Raises:
        UserError: the video has no frame, or a detector or a file of keypoints is bad.
    """
    if options.keypoints:
        opened = read_keypoints(options.keypoints, options.keypoints_first)
        origin = [*_identity(options.keypoints), options.keypoints_first]
    else:
        opened = open_detector(options.detector, **options.detector_options)
        origin = [options.detector, options.detector_options]
    found = Detections(folder, [*_identity(source.path), *origin])
    if found.complete:
        return found
    already = found.frames
    tracker = Tracker(source.fps, found.tracks)
    try:
        with opened as detector:
            for number, seconds, frame in progress(source, "finding people", total=source.frames, unit="frame"):
                if number < already:
                    continue
                people = detector.detect(frame, seconds, number)
                found.add(seconds, people, tracker.update(people, frame, seconds))
                if found.frames % _SAVE_EVERY == 0:
                    found.save()
    finally:
        found.save()
    if not found.frames:
        raise UserError(f"{source.name}: has no frame")
    if options.keypoints:
        opened.check_frames(found.frames)
    found.save(complete=True)
    return found


def _identity(path):
    """What tells a file, or a folder of files, from another one."""
    path = Path(path).resolve()
    return [str(path), path.stat().st_size, path.stat().st_mtime]


def _lift(found, source, folder, lifter, focal, options, progress):
    times, (people, rows) = found.times(), found.people()
    fps = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else source.fps
    if not people:
        shutil.rmtree(folder)
        raise UserError(f"{source.name}: nobody is seen for {SHORTEST} s in any of its {len(times)} frames")
    if options.focus is not None:
        if options.focus not in people:
            raise UserError(f"--focus: there is no person {options.focus}; there are {', '.join(map(str, people))}")
        people = {options.focus: people[options.focus]}
    world, lifted = World(), []
    for person, chosen in progress(people.items(), "lifting", total=len(people), unit="person"):
        lifted.append(_lift_person(person, rows, chosen, times, source, folder, lifter, focal, fps, options))
        for segment in lifted[-1].segments():
            for block in _blocks(segment):
                world.add(lifted[-1].camera[block])
    for person in lifted:
        for segment in person.segments():
            for block in _blocks(segment):
                world.rest(person.camera[block], fps)
    rotation, shift = world.rotation(), world.shift()
    for person in lifted:
        for block in _blocks(slice(0, len(person.frames))):
            person.world[block] = person.camera[block] @ rotation.T + shift
    return Poses(source.name, times, source.width, source.height, focal, rotation, shift, lifted)


def _lift_person(number, rows, chosen, times, source, folder, lifter, focal, fps, options):
    """The `Person` but for `world`, which is made and empty."""
    found = rows["frame"][chosen].astype(np.int64)
    frames = bridge(found, times, options.max_gap)
    keypoints, camera, world = (
        np.lib.format.open_memmap(folder / f"{number}_{name}.npy", "w+", np.float32, (len(frames), 17, 3))
        for name in ("keypoints", "camera", "world")
    )
    fill(frames, found, _Indexed(rows["keypoints"], chosen), keypoints)
    person = Person(number, frames, keypoints, ~np.isin(frames, found), camera, world)
    size = source.width, source.height, focal
    for segment in person.segments():
        lifter.lift(keypoints[segment], camera[segment], *size, fps)
        if options.cutoff:
            smooth(camera[segment], options.cutoff, fps)
        places = [roots(camera[block], keypoints[block], *size) for block in _blocks(segment)]
        place = steady(np.concatenate(places), fps)
        if options.cutoff:
            smooth(place[:, None], options.cutoff, fps)
        for block in _blocks(segment):
            camera[block] += place[block.start - segment.start : block.stop - segment.start, None]
    return person


class _Indexed:
    """Some rows of a mapped array, read when asked for."""

    def __init__(self, array, chosen):
        self.array, self.chosen = array, chosen

    def __getitem__(self, index):
        return self.array[self.chosen[index]]


def _lifter(options):
    checkpoint = read_weights(options.weights)
    size = checkpoint.size()
    config = load_config(options.config, (), {**checkpoint.config, **size}, checkpoint.path)
    clip_len = config.clip_len if options.clip_len is None else options.clip_len
    if not 1 <= clip_len <= config.maxlen:
        raise UserError(f"--clip_len: {clip_len}: the network takes 1 to {config.maxlen} frames")
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = config.build_model()
    checkpoint.load_into(model)
    return Lifter(model.to(device).eval(), config, device, clip_len, options.pixel)


def _silent(items, doing, **looks):
    return items


def _blocks(segment):
    return [slice(a, min(a + BLOCK, segment.stop)) for a in range(segment.start, segment.stop, BLOCK)]


def _in_memory(person):
    return replace(person, **{name: np.array(getattr(person, name)) for name in ("keypoints", "camera", "world")})
