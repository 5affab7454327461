"""Reader of the Acclaim format: a skeleton (ASF) and motions of it (AMC).

Follows "Acclaim Skeleton File Definition" (M. Schafer, 1994/95) and VICON's notes on it. A bone starts where its
parent ends; `direction` (in the world's axes, all joints at zero) times `length` is the bone. `axis` gives
C, the axes that the bone's angles refer to: with M the rotation by the angles listed in `dof`, the bone rotates by
C M C^-1 relative to its parent. Angles are listed in the order in which they are applied about fixed axes:
"XYZ" is Rz Ry Rx.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from lib.data.convert.mocap.motion import Motion, Skeleton
from lib.data.convert.mocap.text import bad_line, number_table, numbers, read_lines
from lib.errors import UserError, nearest

ROOT = "root"
_AXES = ("rx", "ry", "rz")
_PLACES = ("tx", "ty", "tz")


@dataclass
class Bone:
    """Bone of a skeleton.

    vector: (3,) from start to end, length units; axis: its C; channels: the ones listed in AMC, as ("rx", "rz").
    """

    vector: np.ndarray
    axis: Rotation
    channels: tuple


@dataclass(frozen=True)
class Acclaim:
    """Content of an ASF file; lengths have been divided by its `length`, which turns CMU's into inches."""

    skeleton: Skeleton
    bones: dict  # name: Bone, the root among them
    position: np.ndarray  # (3,) of the root, added to every frame's
    length: float
    degrees: bool


def read_asf(path):
    """Read the `Acclaim` of an ASF file.

    Raises:
        UserError: the file is missing or damaged; names the line.
    """
    sections = _sections(path)
    for name in (":root", ":bonedata", ":hierarchy"):
        if name not in sections:
            raise UserError(f"{path}: has no {name} section; is it an ASF skeleton?")
    length, degrees = _units(path, sections.get(":units", []))
    root, position = _root(path, sections[":root"], degrees)
    bones = {ROOT: root} | _bones(path, sections[":bonedata"], degrees)
    for bone in bones.values():
        bone.vector = bone.vector / length
    skeleton = _skeleton(path, sections[":hierarchy"], bones)
    return Acclaim(skeleton, bones, position / length, length, degrees)


def read_amc(path, acclaim):
    """Read the `Motion` of an AMC file; the format does not state the frame rate.

    Every frame has to list the bones of the first one, in its order, and those have to be all bones that move.

    Raises:
        UserError: the file is missing or damaged, or its bones are not the skeleton's; names the line.
    """
    lines = [(number, line) for number, line in read_lines(path) if line.lstrip()[0] != "#"]
    head = 0
    degrees = acclaim.degrees
    while head < len(lines) and lines[head][1].lstrip().startswith(":"):
        word = lines[head][1].split()[0].upper()
        degrees = {":DEGREES": True, ":RADIANS": False}.get(word, degrees)
        head += 1
    line_numbers, texts = zip(*lines[head:]) if lines[head:] else ((), ())
    if not texts:
        raise UserError(f"{path}: has no frames")

    names = _bones_of_first_frame(path, line_numbers, texts, acclaim)
    period = 1 + len(names)
    frames, rest = divmod(len(texts), period)
    first = int(texts[0])
    counted = (line.strip().isdecimal() and int(line) == first + frame for frame, line in enumerate(texts[::period]))
    if rest or not all(counted):
        raise _first_wrong_line(path, line_numbers, texts, names)
    index = {name: point for point, name in enumerate(acclaim.skeleton.names)}
    rotations, translations = {}, {}
    for place, name in enumerate(names, 1):
        bone = acclaim.bones[name]
        rows = [line.split() for line in texts[place::period]]
        if any(words.pop(0) != name for words in rows):
            raise _first_wrong_line(path, line_numbers, texts, names)
        values = number_table(path, line_numbers[place::period], rows, len(bone.channels))
        turns = [channel for channel in bone.channels if channel in _AXES]
        if turns:
            angles = values[:, [bone.channels.index(channel) for channel in turns]]
            turned = Rotation.from_euler("".join(c[1] for c in turns), angles, degrees=degrees)
            # The root's preset orientation rotates the whole figure; another bone's axis is the axes of its angles.
            rotations[index[name]] = bone.axis * turned if name == ROOT else bone.axis * turned * bone.axis.inv()
        if name == ROOT:
            path_of_root = np.zeros((frames, 3))
            for axis, channel in enumerate(_PLACES):
                if channel in bone.channels:
                    path_of_root[:, axis] = values[:, bone.channels.index(channel)]
            translations[index[name]] = path_of_root / acclaim.length + acclaim.position
    return Motion(acclaim.skeleton, frames, rotations, translations)


def _bones_of_first_frame(path, line_numbers, lines, acclaim):
    """Return the bones' names in the order of a frame; check that they are those of the skeleton that move."""
    if not lines[0].strip().isdecimal():
        raise bad_line(path, line_numbers[0], "expected a frame number")
    names = []
    for number, line in zip(line_numbers[1:], lines[1:]):
        if line.strip().isdecimal():
            break
        name = line.split()[0]
        if name not in acclaim.bones:
            raise bad_line(path, number, f"the skeleton has no bone {name!r}{nearest(name, acclaim.bones)}")
        if name in names:
            raise bad_line(path, number, f"bone {name!r} is given twice in a frame")
        names.append(name)
    missing = [name for name, bone in acclaim.bones.items() if bone.channels and name not in names]
    if missing:
        raise bad_line(path, line_numbers[len(names)], f"the frame ends without bone {missing[0]!r}")
    return names


def _first_wrong_line(path, line_numbers, lines, names):
    """Return the error for the first line that does not fit a frame like the first one."""
    first = int(lines[0])
    for row, (number, line) in enumerate(zip(line_numbers, lines)):
        frame, place = divmod(row, 1 + len(names))
        found, expected = line.split()[0], names[place - 1] if place else f"{first + frame}"
        if found != expected and not (place == 0 and found.isdecimal() and int(found) == first + frame):
            kind = "bone" if place else "frame"
            return bad_line(path, number, f"{found!r} where {kind} {expected!r} was expected")
    return bad_line(path, line_numbers[-1], f"the file ends in the middle of a frame; {names[-1]!r} comes last in one")


def _sections(path):
    """Return {":keyword": [(number, words)]}; words after the keyword itself are its first line."""
    sections, current = {}, None
    for number, line in read_lines(path):
        words = line.split("#")[0].replace(",", " ").replace("(", " ").replace(")", " ").split()
        if not words:
            continue
        if words[0].startswith(":"):
            current = sections.setdefault(words[0].lower(), [])
            words = words[1:]
        if current is None:
            raise bad_line(path, number, f"{words[0]!r} before the first section; is it an ASF skeleton?")
        if words:
            current.append((number, words))
    return sections


def _units(path, lines):
    length, degrees = 1.0, True
    for number, words in lines:
        if words[0] == "length":
            length = numbers(path, number, words[1:], 1)[0]
            if length <= 0:
                raise bad_line(path, number, "the unit of length is not above 0")
        elif words[0] == "angle":
            if words[1:] not in (["deg"], ["rad"]):
                raise bad_line(path, number, "angle: expected deg or rad")
            degrees = words[1] == "deg"
    return length, degrees


def _root(path, lines, degrees):
    """Return the root as a bone without length, and its position (3,)."""
    channels, order, position, orientation = (), "xyz", np.zeros(3), np.zeros(3)
    for number, words in lines:
        if words[0] == "order":
            channels = _channels(path, number, words[1:], _AXES + _PLACES)
        elif words[0] == "axis":
            order = _axis_order(path, number, words[1:])
        elif words[0] == "position":
            position = numbers(path, number, words[1:], 3)
        elif words[0] == "orientation":
            orientation = numbers(path, number, words[1:], 3)
    if not channels:
        raise UserError(f"{path}: :root has no order line")
    return Bone(np.zeros(3), Rotation.from_euler(order, orientation, degrees=degrees), channels), position


def _bones(path, lines, degrees):
    bones, name, given = {}, None, {}
    for number, words in lines:
        key, values = words[0], words[1:]
        if key == "begin":
            name, given = None, {}
        elif key == "name":
            if len(values) != 1:
                raise bad_line(path, number, "name: expected one word")
            name = values[0]
            if name in bones or name == ROOT:
                raise bad_line(path, number, f"bone {name!r} is given twice")
        elif key == "direction":
            given[key] = numbers(path, number, values, 3)
            if not given[key].any():
                raise bad_line(path, number, "direction is 0 0 0")
        elif key == "length":
            given[key] = numbers(path, number, values, 1)[0]
        elif key == "axis":
            order = _axis_order(path, number, values[3:])
            given[key] = Rotation.from_euler(order, numbers(path, number, values[:3], 3), degrees=degrees)
        elif key == "dof":
            given[key] = _channels(path, number, values, _AXES)
        elif key == "end":
            for needed in ("direction", "length", "axis"):
                if name is None or needed not in given:
                    raise bad_line(path, number, f"bone {name or 'without a name'} has no {needed}")
            direction = given["direction"] / np.linalg.norm(given["direction"])
            bones[name] = Bone(direction * given["length"], given["axis"], given.get("dof", ()))
            name, given = None, {}
    return bones


def _axis_order(path, number, words):
    order = "".join(words).lower()
    if sorted(order) != ["x", "y", "z"]:
        raise bad_line(path, number, f"axis: expected an order such as XYZ, not {' '.join(words)!r}")
    return order


def _channels(path, number, words, known):
    channels = tuple(word.lower() for word in words)
    for channel in channels:
        if channel not in known:
            raise bad_line(
                path, number, f"degree of freedom {channel!r} is not supported; there are {', '.join(known)}"
            )
    if len(set(channels)) != len(channels):
        raise bad_line(path, number, "a degree of freedom is given twice")
    return channels


def _skeleton(path, lines, bones):
    """Return the `Skeleton` whose points are every bone's start, under its own name, and its end."""
    parents = {}
    for number, words in lines:
        if words in (["begin"], ["end"]):
            continue
        for name in words:
            if name not in bones:
                raise bad_line(path, number, f"there is no bone {name!r}{nearest(name, bones)}")
        for name in words[1:]:
            if name in parents or name == ROOT:
                raise bad_line(path, number, f"bone {name!r} has two parents")
            parents[name] = words[0]
    names = [ROOT]
    for parent in names:  # grows: parents come before their children
        names += [child for child, its_parent in parents.items() if its_parent == parent]
    loose = [name for name in bones if name not in names]
    if loose:
        raise UserError(f"{path}: bone {loose[0]!r} is not below the root in :hierarchy")

    points = [(ROOT, -1, np.zeros(3))]
    points += [(name, names.index(parents[name]), bones[parents[name]].vector) for name in names[1:]]
    points += [(f"{name}.end", place, bones[name].vector) for place, name in enumerate(names) if place]
    point_names, point_parents, offsets = zip(*points)
    return Skeleton(point_names, point_parents, np.array(offsets))
