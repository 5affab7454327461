"""Poses as text: JSON for programs, CSV for spreadsheets and data frames.

JSON, one frame a line, joints in the order of "joints":

    {"format_version": 1, "source": "walk.mp4", "fps": 25.0, "frame_count": 250, "size": [1920, 1080], "focal": 1600.0,
     "rotation": [3 rows of 3], "shift": [x, y, z],
     "joints": [17 names], "limbs": [[0, 1], and 15 more pairs of joints],
     "people": [{"id": 1, "frames": [
       {"frame": 0, "time": 0.0, "bridged": false, "keypoints": [17 times [x, y, confidence]],
        "camera": [17 times [x, y, z]], "world": [17 times [x, y, z]]}]}]}

CSV, one row for each person and frame: person, frame, time, bridged (0 or 1), then for each joint, here the right knee,
right_knee_x, right_knee_y, right_knee_z (world), right_knee_pixel_x, right_knee_pixel_y, right_knee_confidence.

Both: "frame" counts the video's frames from 0, "time" is in seconds from the first. "keypoints" and "pixel" are px of
the upright image, of "size" width and height; confidence is 0 to 1. "camera" is in m, x right, y down, z forward, and
"world" in m, x right, y forward, z up: world = rotation @ camera + shift. "bridged" means that nobody was detected and
the pose is interpolated. Values are rounded to 0.1 px, 0.1 mm, 1 us and a confidence of 0.001.
"""

import json

import numpy as np

from lib.body.skeleton import JOINTS, LIMBS
from lib.files import atomic_path

VERSION = 1
BLOCK = 1024  # frames held at once


def write_json(poses, path):
    """Write all of `poses` to the JSON file `path`, atomically and frame by frame.

    Raises:
        UserError: the file cannot be written.
    """
    head = {
        "format_version": VERSION,
        "source": poses.source,
        "fps": poses.fps,
        "frame_count": len(poses.times),
        "size": [int(poses.width), int(poses.height)],
        "focal": float(poses.focal),
        "rotation": np.asarray(poses.rotation).tolist(),
        "shift": np.asarray(poses.shift).tolist(),
        "joints": JOINTS,
        "limbs": LIMBS,
    }
    positions = _list_of("[%.4f, %.4f, %.4f]")
    row = (
        '{"frame": %d, "time": %.6f, "bridged": %s, "keypoints": ' + _list_of("[%.1f, %.1f, %.3f]")
        + f', "camera": {positions}, "world": {positions}}}'
    )  # fmt: skip
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as file:
        file.write(json.dumps(head)[:-1] + ',\n"people": [')
        for number, person in enumerate(poses.people):
            file.write(f'{"," if number else ""}\n{{"id": {person.id}, "frames": [')
            separator = "\n"
            for frame, time, bridged, values in _rows(poses, person, ("keypoints", "camera", "world")):
                file.write(separator + row % (frame, time, "true" if bridged else "false", *values))
                separator = ",\n"
            file.write("\n]}")
        file.write("\n]}\n")


def _list_of(item):
    return "[" + ", ".join([item] * len(JOINTS)) + "]"


def write_csv(poses, path):
    """Write all of `poses` to the CSV file `path`, atomically and frame by frame.

    Raises:
        UserError: the file cannot be written.
    """
    columns = ["person", "frame", "time", "bridged"]
    for joint in JOINTS:
        columns += [
            f"{joint.replace(' ', '_')}_{value}" for value in ("x", "y", "z", "pixel_x", "pixel_y", "confidence")
        ]
    row = "%d,%d,%.6f,%d," + ",".join(["%.4f,%.4f,%.4f,%.1f,%.1f,%.3f"] * len(JOINTS)) + "\n"
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as file:
        file.write(",".join(columns) + "\n")
        for person in poses.people:
            for frame, time, bridged, values in _rows(poses, person, ("world", "keypoints"), axis=2):
                file.write(row % (person.id, frame, time, bridged, *values))


def _rows(poses, person, names, axis=1):
    """Yield (frame, time, bridged, values) of each of the person's frames; values are the named arrays' joined at `axis`."""
    for start in range(0, len(person.frames), BLOCK):
        block = slice(start, start + BLOCK)
        frames = np.asarray(person.frames[block])
        values = np.concatenate([getattr(person, name)[block] for name in names], axis=axis)
        times = np.asarray(poses.times)[frames]
        bridged = np.asarray(person.bridged[block])
        yield from zip(
            frames.tolist(), times.tolist(), bridged.tolist(), values.reshape(len(frames), -1).tolist(), strict=True
        )
