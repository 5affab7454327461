"""Image of truth and result over a few frames of each view."""

import cv2
import numpy as np

from lib.body.skeleton import LIMBS
from lib.files import atomic_path

_HEIGHT = 360  # px, of a frame
_MARGIN = 0.12  # of the people's extent
_TRUTH, _FOUND = (60, 230, 90), (250, 60, 200)  # RGB


def write_overlay(path, views, estimates, frames_of, count=4):
    """Write a PNG with a row a view: `count` frames, evenly spaced, with truth (green) and result (magenta).

    Args:
        views: list of `View`.
        estimates: an `Estimate` for each.
        frames_of: function of a view that returns its `VideoSource`.
    """
    rows = [_row(view, estimate, frames_of(view), count) for view, estimate in zip(views, estimates)]
    width = max(row.shape[1] for row in rows)
    image = np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])
    with atomic_path(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def _row(view, estimate, source, count):
    judged = np.flatnonzero(view.believed.any(-1).all(0))
    wanted = {int(part[len(part) // 2]) for part in np.array_split(judged, count) if len(part)}
    shown = view.keypoints[view.believed]
    middle, size = (shown.min(0) + shown.max(0)) / 2, np.ptp(shown, axis=0) * (1 + 2 * _MARGIN)
    scale = _HEIGHT / size[1]
    window = np.array([[scale, 0, 0], [0, scale, 0]]), np.ceil(size * scale).astype(int)
    window[0][:, 2] = window[1] / 2 - scale * middle
    images = []
    for number, _, frame in source:
        if number in wanted:
            images.append(_draw(frame, number, view, estimate, source.scale, *window))
    return np.concatenate(images, axis=1) if images else np.zeros((_HEIGHT, 1, 3), np.uint8)


def _draw(frame, number, view, estimate, source_scale, window, size):
    """Return the window (2, 3) of a frame, from px of the film to its own, with everybody in it."""
    from_frame = window / [source_scale, source_scale, 1]
    image = cv2.warpAffine(frame, from_frame, size.tolist(), flags=cv2.INTER_AREA)
    for keypoints, known in zip(view.keypoints[:, number], view.believed[:, number]):
        _skeleton(image, keypoints @ window[:, :2].T + window[:, 2], known, _TRUTH, 2)
    for keypoints in estimate.keypoints[estimate.frames == number]:
        _skeleton(image, keypoints @ window[:, :2].T + window[:, 2], np.ones(17, bool), _FOUND, 1)
    cv2.putText(image, f"{view.name} {number}", (6, 18), cv2.FONT_HERSHEY_DUPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return image


def _skeleton(image, places, known, colour, thick):
    places = np.clip(places, -20_000, 20_000).round().astype(int).tolist()
    for a, b in LIMBS:
        if known[a] and known[b]:
            cv2.line(image, places[a], places[b], colour, thick, cv2.LINE_AA)
    for place, shown in zip(places, known):
        if shown:
            cv2.circle(image, place, thick + 1, colour, -1, cv2.LINE_AA)
