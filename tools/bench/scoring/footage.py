"""Real footage with 3D truth: several calibrated views of the same people (`benchmarks/footage`)."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.body.skeleton import ROOT
from lib.data.npz_files import read_npz
from lib.errors import UserError, describe
from lib.files import PROJECT, require_file
from lib.video.io.source import VideoSource
from lib.video.lift.smoothing import penalised
from lib.video.pipeline import MOST_PIXELS

FOLDER = PROJECT / "benchmarks" / "footage"
STEADY = 6.0  # Hz, to which the truth is smoothed where accelerations count
LEAST_JOINTS = 8  # believed joints of a frame that is judged
_TO_SHOULDERS = 0.779  # from ankle to hip and hip to shoulder, in body heights
_SEGMENTS = ((3, 2), (2, 1), (6, 5), (5, 4), (0, 8), (0, 8))  # shins and thighs of both legs, the trunk twice


@dataclass(frozen=True)
class View:
    """Ground truth of P people in F frames of one camera."""

    name: str
    path: Path
    fps: float
    longer_side: int  # px, of the film
    keypoints: np.ndarray  # (P, F, 17, 2) px of the film
    poses: np.ndarray  # (P, F, 17, 3) m, camera axes
    steady: np.ndarray  # the same without what shakes in the truth itself
    believed: np.ndarray  # (P, F, 17) bool; all False where too few joints of a frame are
    heights: np.ndarray  # (P, F) px: body height at the person's distance
    up: np.ndarray  # (3,) the world's up, camera axes
    levels: np.ndarray  # (P, F, 17) m, height of each joint above the truth's zero
    bystanders: np.ndarray  # (B, 4) px: x0, y0, x1, y1 of people without truth


class Excerpt(VideoSource):
    """First `frames` frames of a video (None: all), subsampled with a stride and numbered from 0."""

    def __init__(self, path, frames=None, stride=1):
        super().__init__(path, MOST_PIXELS)
        self._chosen = range(0, frames or self.frames, stride)
        self.fps, self.frames = self.fps / stride, len(self._chosen)

    def __iter__(self):
        for number, seconds, image in super().__iter__():
            if number >= self._chosen.stop:
                return
            if number in self._chosen:
                yield self._chosen.index(number), seconds, image


def read_views(folder=FOLDER, frames=None, stride=1):
    """Return the `View`s of a folder: `truth.npz`, a video `NAME.mp4` for each camera, and `bystanders.json`.

    Args:
        frames, stride: as of `Excerpt`.

    Raises:
        UserError: a file is missing or damaged.
    """
    truth = read_npz(Path(folder) / "truth.npz")
    bystanders = require_file(Path(folder) / "bystanders.json")
    try:
        boxes = json.loads(bystanders.read_text(encoding="utf-8"))
        chosen = slice(0, frames, stride)
        whole, fps = list(zip(truth["joints"] / 1e3, truth["believed"])), float(truth["fps"])
        statures = np.array([stature(*person) for person in whole])
        steady = np.stack([steadied(*person, fps) for person in whole])[:, chosen]
        joints, believed = truth["joints"][:, chosen] / 1e3, truth["believed"][:, chosen]
        believed = believed & (believed.sum(-1, keepdims=True) >= LEAST_JOINTS)
        views = []
        for c, name in enumerate(truth["cameras"].tolist()):
            K, distortion, R, t = (truth[key][c] for key in ("K", "distortion", "R", "t"))
            poses = joints @ R.T + t / 1e3
            film = VideoSource(Path(folder) / f"{name}.mp4")
            views.append(
                View(
                    name=name,
                    path=film.path,
                    fps=fps / stride,
                    longer_side=max(film.width, film.height),
                    keypoints=project(poses, K, distortion),
                    poses=poses,
                    steady=steady @ R.T + t / 1e3,
                    believed=believed,
                    heights=K[0, 0] * statures[:, None] / poses[:, :, ROOT, 2],
                    up=R[:, 2],
                    levels=joints[..., 2],
                    bystanders=np.array(boxes.get(name, []), float).reshape(-1, 4),
                )
            )
        return views
    except (OSError, MemoryError, UserError):
        raise
    except Exception as error:  # a damaged file raises whatever zipfile, NumPy and json do
        raise UserError(f"{folder}: is no footage with truth ({describe(error)})") from error


def project(points, K, distortion):
    """Return px (..., 2) of points (..., 3) in camera axes.

    Args:
        K: (3, 3) pinhole matrix, px.
        distortion: k1, k2 (radial), p1, p2 (tangential), as OpenCV's.
    """
    k1, k2, p1, p2 = distortion
    x, y = np.moveaxis(points[..., :2] / points[..., 2:], -1, 0)
    r = x * x + y * y
    radial = 1 + k1 * r + k2 * r * r
    bent = np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x),
            y * radial + 2 * p2 * x * y + p1 * (r + 2 * y * y),
        ],
        axis=-1,
    )
    return bent @ K[:2, :2].T + K[:2, 2]


def steadied(joints, believed, fps):
    """Return joints (F, 17, 3) of which movements faster than `STEADY` are taken away, believed ones only.

    The truth of the footage accelerates by 21 and 42 m/s^2 on average, of people who do so by about 5: it is made of
    single frames. It moves by 3 and 6 mm when it is smoothed.
    """
    times = np.arange(len(joints)) / fps
    columns = zip(np.moveaxis(joints.astype(float), 1, 0), believed.T.astype(float))
    return np.stack([penalised(joint, weights, times, STEADY) for joint, weights in columns], axis=1)


def stature(joints, believed):
    """Return the body height of a person, from legs and trunk, in the unit of the joints.

    Segments are 0.491 (ankle to hip) and 0.288 (hip to shoulder) of the height, after D. A. Winter, Biomechanics and
    Motor Control of Human Movement.

    Args:
        joints: (F, 17, 3).
        believed: (F, 17) bool.
    """
    lengths = [
        np.linalg.norm(joints[:, a] - joints[:, b], axis=-1)[believed[:, a] & believed[:, b]] for a, b in _SEGMENTS
    ]
    return sum(length.mean() for length in lengths) / 2 / _TO_SHOULDERS
