"""Detections of people with ground truth: on real footage, and on rendered people."""

from dataclasses import dataclass

import numpy as np
import torch

from lib.body.camera import project
from lib.body.skeleton import limb_vectors
from lib.data.npz_files import read_npz
from lib.data.synthetic.random_views import STANDARD_SIZE
from lib.data.synthetic.sequences import FPS
from lib.data.synthetic.trunk import trunk_axes
from lib.data.synthetic.visibility import SEEN
from lib.files import atomic_path
from lib.video.detection import open_detector
from tools.bench.scoring.footage import Excerpt, read_views
from tools.bench.scoring.matching import Estimate, match

_NEAR = 1.0  # of a drawn person's size: median distance of joints up to which a detection is of them
_APART = 10.0  # s between sequences: the detector has forgotten who was there
_STEP = 0.01  # m
_OF_FRAMES = ("found", "truth", "visible", "axes")


@dataclass(frozen=True)
class Track:
    """Detections and truth of one person in F frames of one camera."""

    fps: float
    found: np.ndarray  # (F, 17, 3) px and confidence; NaN in frames in which the person was not found
    truth: np.ndarray  # (F, 17, 2) px; NaN where it is not known
    visible: np.ndarray  # (F, 17) of lib/data/synthetic/sequences.py's SEEN, HIDDEN, OUTSIDE
    size: float  # px, root mean square distance of all joints from their centre, as lib/body/normalize.py's
    axes: (
        np.ndarray
    )  # (F, 17, 2, 3) px that a joint moves by a metre to the trunk's right, up and back; NaN if not known


def footage_tracks(detector, progress=lambda views: views):
    """Yield the `Track`s of benchmarks/footage.

    What is hidden there is not known: all joints with truth count as seen.
    """
    for view in progress(read_views()):
        found = []
        with open_detector(detector) as opened:
            for number, seconds, image in Excerpt(view.path):
                found += [(number, person.keypoints) for person in opened.detect(image, seconds, number)]
        frames = np.array([number for number, _ in found], int)
        keypoints = np.stack([keypoints for _, keypoints in found])
        chosen, _ = match(Estimate(frames, keypoints[..., :2], np.zeros((len(frames), 17, 3))), view)
        for places, believed, numbers in zip(view.keypoints, view.believed, chosen):
            yield Track(
                view.fps,
                np.where((numbers >= 0)[:, None, None], keypoints[numbers], np.nan),
                np.where(believed[..., None], places, np.nan),
                np.full(believed.shape, SEEN),
                _size(places),
                np.full((*places.shape, 3), np.nan),
            )


def drawn_tracks(detector, stage, sequences, frames, seed, progress=lambda numbers: numbers):
    """Yield the `Track`s of drawn people, one for each of `sequences` sequences of so many frames."""
    with open_detector(detector) as opened:
        for number in progress(range(sequences)):
            sequence = stage.draw(frames, seed + number)
            yield _drawn_track(opened, sequence, _APART * number)


def _drawn_track(detector, sequence, start):
    """Return the `Track` of a sequence whose first frame is at `start` seconds."""
    size, found = _size(sequence.keypoints), []
    for frame, (image, truth) in enumerate(zip(sequence.images, sequence.keypoints)):
        people = [person.keypoints for person in detector.detect(image, start + frame / FPS, frame)]
        off = [np.median(np.linalg.norm(person[:, :2] - truth, axis=-1)) for person in people]
        near = people and min(off) < _NEAR * size
        found.append(people[int(np.argmin(off))] if near else np.full((17, 3), np.nan))
    axes = _axes(sequence.joints, sequence.focal)
    return Track(FPS, np.array(found), sequence.keypoints, sequence.visible, size, axes)


def save_tracks(path, tracks):
    """Write `Track`s as npz."""
    joined: dict = {key: np.concatenate([getattr(track, key) for track in tracks]) for key in _OF_FRAMES}
    joined |= {key: np.array([getattr(track, key) for track in tracks]) for key in ("fps", "size")}
    start = np.cumsum([0] + [len(track.found) for track in tracks])
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, start=start, **joined)


def load_tracks(path):
    """Return the `Track`s that `save_tracks` wrote.

    Raises:
        UserError: the file is missing, damaged or another.
    """
    arrays = read_npz(path, ("start", "fps", "size", *_OF_FRAMES), "; measure the tracks again")
    spans = [slice(a, b) for a, b in zip(arrays["start"], arrays["start"][1:])]
    return [
        Track(fps=float(fps), size=float(size), **{key: arrays[key][span] for key in _OF_FRAMES})
        for span, fps, size in zip(spans, arrays["fps"], arrays["size"])
    ]


def _size(places):
    return float(np.sqrt(np.square(places - places.mean((0, 1))).sum(-1).mean()))


def _axes(joints, focal):
    axes = trunk_axes(torch.from_numpy(np.ascontiguousarray(joints, np.float32))).numpy()
    metre = np.linalg.norm(limb_vectors(joints), axis=-1).sum(1).mean() / STANDARD_SIZE
    moved = joints[:, :, None] + _STEP * metre * axes[:, None]
    off = project(moved, focal) - project(joints, focal)[:, :, None]
    return np.swapaxes(off, -1, -2) / _STEP
