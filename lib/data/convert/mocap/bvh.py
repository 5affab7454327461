"""Reader of the BVH format: a skeleton and its motion in one file.

Follows the public descriptions of Biovision's format (M. Meredith, S. Maddock: "Motion Capture File Formats
Explained", 2001). Rotations multiply in the order of their channels: "Zrotation Yrotation Xrotation" is Rz Ry Rx.
Position channels are added to the root's OFFSET, as described there; those of other joints, which some tools
write, replace their OFFSET, as those tools mean them.
"""

import re

import numpy as np
from scipy.spatial.transform import Rotation

from lib.data.convert.mocap.motion import LEAST_FPS, MOST_FPS, Motion, Skeleton
from lib.data.convert.mocap.text import bad_line, number_table, numbers, read_lines
from lib.errors import UserError

_CHANNELS = {f"{axis}{kind}": (axis, kind) for axis in "xyz" for kind in ("position", "rotation")}


def read_bvh(path):
    """Read the `Motion` of a BVH file. Points are its joints; an End Site is "JOINT.end".

    Raises:
        UserError: the file is missing or damaged; names the line.
    """
    lines = read_lines(path)
    start = next((row for row, (_, line) in enumerate(lines) if line.split()[0].upper() == "MOTION"), None)
    if start is None:
        raise UserError(f"{path}: has no MOTION section; is it truncated or not a BVH file?")
    skeleton, channels = _hierarchy(path, _statements(lines[:start]))
    frames, fps = _header(path, lines[start + 1 : start + 3])
    rows = lines[start + 3 :]
    words = [line.split() for _, line in rows]
    if words and len(words[-1]) < len(channels) and all(len(line) == len(channels) for line in words[:-1]):
        raise bad_line(path, rows[-1][0], f"{len(words[-1])} values, expected {len(channels)}; the file is truncated")
    values = number_table(path, [number for number, _ in rows], words, len(channels))
    if len(rows) != frames:
        raise bad_line(
            path, lines[-1][0], f"the file ends after {len(rows)} of {frames} frames; it is truncated or changed"
        )

    rotations, translations = {}, {}
    for point in dict.fromkeys(point for point, _, _ in channels):
        own = [(column, axis, kind) for column, (p, axis, kind) in enumerate(channels) if p == point]
        turns = [(column, axis) for column, axis, kind in own if kind == "rotation"]
        moves = [(column, axis) for column, axis, kind in own if kind == "position"]
        if turns:
            order = "".join(axis for _, axis in turns).upper()  # upper case: about the rotated axes
            rotations[point] = Rotation.from_euler(order, values[:, [column for column, _ in turns]], degrees=True)
        if moves:
            offset = skeleton.offsets[point]
            place = np.tile(offset, (frames, 1))
            for column, axis in moves:
                axis = "xyz".index(axis)
                place[:, axis] = values[:, column] + (offset[axis] if skeleton.parents[point] < 0 else 0)
            translations[point] = place
    return Motion(skeleton, frames, rotations, translations, fps)


def _statements(lines):
    """Return [(line number, words)]; a brace is a statement of its own."""
    parts = ((number, part.split()) for number, line in lines for part in re.split("([{}])", line))
    return [(number, words) for number, words in parts if words]


def _hierarchy(path, lines):
    """Return the `Skeleton`, and (point, axis, kind) of every channel in the order of a frame's values."""
    names, parents, offsets, channels, open_points = [], [], {}, [], []
    for number, words in lines:
        key = words[0].upper()
        if key in ("ROOT", "JOINT", "END"):
            if (key == "ROOT") != (not names) or (key != "ROOT" and not open_points):
                raise bad_line(path, number, f"{key} is out of place; a file has one ROOT and the rest inside it")
            parent = open_points[-1] if open_points else -1
            name = f"{names[parent]}.end" if key == "END" else " ".join(words[1:])
            if not name or name in names:
                raise bad_line(path, number, f"joint {name!r} is given twice" if name else f"{key} without a name")
            names.append(name)
            parents.append(parent)
        elif key == "{":
            open_points.append(len(names) - 1)
        elif not open_points and key != "HIERARCHY":
            raise bad_line(path, number, f"{words[0]!r} outside of a joint's braces")
        elif key == "}":
            open_points.pop()
        elif key == "OFFSET":
            offsets[open_points[-1]] = numbers(path, number, words[1:], 3)
        elif key == "CHANNELS":
            if any(point == open_points[-1] for point, _, _ in channels):
                raise bad_line(path, number, "the joint's channels are given twice")
            channels += [(open_points[-1], *channel) for channel in _channels(path, number, words[1:])]
        elif key != "HIERARCHY":
            raise bad_line(path, number, f"unknown word {words[0]!r}")
    if open_points or not names:
        raise UserError(f"{path}: line {lines[-1][0] if lines else 1}: the hierarchy is not complete")
    for point, name in enumerate(names):
        if point not in offsets:
            raise UserError(f"{path}: joint {name!r} has no OFFSET")
    return Skeleton(tuple(names), tuple(parents), np.array([offsets[point] for point in range(len(names))])), channels


def _channels(path, number, words):
    """Return [(axis, kind)] of a CHANNELS line."""
    if not words or not words[0].isdecimal() or int(words[0]) != len(words) - 1:
        raise bad_line(path, number, "CHANNELS: expected their number, then as many names")
    channels = []
    for word in words[1:]:
        if word.lower() not in _CHANNELS:
            raise bad_line(path, number, f"unknown channel {word!r}; there are Xposition, Xrotation and so on")
        channels.append(_CHANNELS[word.lower()])
    if len(set(channels)) != len(channels):
        raise bad_line(path, number, "a channel is given twice")
    return channels


def _header(path, lines):
    """Return the number of frames and frames per second of "Frames: N" and "Frame Time: S"."""
    found = []
    for (number, line), label in zip(lines, ("Frames", "Frame Time")):
        name, _, value = line.partition(":")
        if name.split() != label.split():
            raise bad_line(path, number, f"expected '{label}: NUMBER'")
        found.append(numbers(path, number, value.split(), 1)[0])
        if found[-1] <= 0 or (label == "Frames" and found[-1] % 1):
            raise bad_line(path, number, f"{label}: {value.strip()} makes no sense")
        if label == "Frame Time" and not 1 / MOST_FPS <= found[-1] <= 1 / LEAST_FPS:
            raise bad_line(
                path, number, f"Frame Time: {value.strip()} s, expected {1 / MOST_FPS:g} to {1 / LEAST_FPS:g}"
            )
    if len(found) < 2:
        raise UserError(f"{path}: ends after MOTION; it is truncated")
    return int(found[0]), 1 / found[1]
