"""Detections made elsewhere, read from a file in place of a detector.

What is read, and how its frames are numbered:

- AlphaPose's JSON, and COCO results: a list of {image_id, keypoints: x, y, confidence of 17 (COCO) or 26 (Halpe)
  joints in a row, idx: the person (optional)}. The frame is the image_id, or the last digits in it if it is a name
  ("12.jpg", "img_000012.png"). AlphaPose counts a video's frames from 0.
- OpenPose's folder: a file "..._000000000012_keypoints.json" for each frame, with `people`, each with
  pose_keypoints_2d of 25 (BODY_25) or 18 (COCO) joints. OpenPose counts from 0.
- MMPose's JSON: {meta_info, instance_info: [{frame_id from 1, instances: [{keypoints: [[x, y], ...],
  keypoint_scores}]}]} by its demos, or that list alone with frame_id from 0 by its inferencer.
- NumPy's .npz: keypoints (n, K, 3) x, y in px of the upright frame and confidence, frame (n,) from 0, layout: the name
  of the K joints' order in `joints.LAYOUTS`, and person (n,), optional: the same number for one person in all frames.

Images cut from a video are often counted from 1: `first` says so. The people's numbers are used if all have one
and no frame has one twice; AlphaPose writes 0 for all if it did not track. A detection's box is around the joints of confidence above 0, its
score their mean confidence after the change to Human3.6M's joints; the formats' own differ in meaning.
"""

import json
import logging
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lib.body.layouts import LAYOUTS, to_h36m
from lib.errors import UserError, describe, nearest
from lib.files import require_file
from lib.video.detection import Detection, Detector
from lib.video.lift.strays import LEAST_JOINTS, enough_seen, unsee_strays

log = logging.getLogger(__name__)

_DOUBLE = 0.02  # of a person's size, that joints are apart of one who is there twice

OPENPOSE_END = "_keypoints.json"
COCO = {17: "coco17", 26: "halpe26"}  # layout by the number of joints
OPENPOSE = {25: "openpose25", 18: "openpose18"}
MMPOSE = {"h36m": {17: "h36m17"}, "mpii": {16: "mpii16"}}  # dataset_name: the same; any other is COCO


class Entry(NamedTuple):
    """A person in a frame as the file has them."""

    where: str  # the file and the entry, for messages
    frame: object  # a number, or a name that ends in one
    keypoints: object  # (K, 3), or as many numbers in a row
    layouts: dict  # number of joints: layout
    person: object = None  # a number, or a list of one


class KeypointsFile(Detector):
    """A detector that looks people up by the frame's number.

    Args:
        people: {frame number from 0: list of `Detection`s}.
        last: (number, where) of the entry of the highest frame.
        warnings: as every detector's.
    """

    def __init__(self, people, last, warnings):
        self.people, self.last, self.warnings = people, last, warnings

    def detect(self, frame, seconds, number):
        """As every detector's; the frame itself is not looked at and may be None."""
        return self.people.get(number, [])

    def check_frames(self, count):
        """Raises a `UserError` if the file has a frame beyond a video of `count` frames."""
        number, where = self.last
        if number >= count:
            hint = "; if the file counts from 1 pass --keypoints-first 1" if number == count else ""
            raise UserError(f"{where}: frame {number}, counted from 0, is beyond the video's {count} frames{hint}")


def read_keypoints(path, first=0, size=None):
    """Reads a file or folder of detections.

    Joints far outside of the image are taken as not seen, people of fewer than 3 joints are left out; a warning says so.

    Args:
        first: the number of the video's first frame, where a file counts otherwise than its format as said above.
        size: width and height of the upright image, px; None: joints may be anywhere.

    Returns:
        A `KeypointsFile`.

    Raises:
        UserError: there is no such file, it is none of the formats, or an entry is wrong; names the entry.
    """
    path = Path(path)
    if path.is_dir():
        entries = _openpose(path)
    elif require_file(path).suffix == ".npz":
        entries = _npz(path)
    else:
        entries = _json(path)
    people, last, count, strays, bare = {}, None, 0, 0, 0
    for entry in entries:
        number, (detection, stray) = _frame(entry, first), _detection(entry, size)
        if detection is not None:
            count, strays = count + 1, strays + stray
            last = max(last or (number, entry.where), (number, entry.where), key=lambda pair: pair[0])
            if enough_seen(detection.keypoints):
                people.setdefault(number, []).append(detection)
            else:
                bare += 1
    warnings = []
    if strays:
        warnings.append(f"{path}: joints of {strays} of {count} people are far outside of the image: not seen")
    if bare:
        warnings.append(f"{path}: {bare} of {count} people have fewer than {LEAST_JOINTS} joints: left out")
    if doubled := [number for number, found in people.items() if _has_doubles(found)]:
        warnings.append(
            f"{path}: somebody is there twice, with nearly the same joints, in {len(doubled)} of {len(people)} frames, "
            f"first in frame {min(doubled)}: both are kept"
        )
    for line in warnings:
        log.warning(line)
    if not people:
        raise UserError(f"{path}: holds no person{f' of {LEAST_JOINTS} joints or more' if count else ''}")
    if any(_twice(ids) or None in ids for ids in ([d.person for d in found] for found in people.values())):
        people = {number: [d._replace(person=None) for d in people[number]] for number in people}
    return KeypointsFile(people, last, warnings)


def _openpose(folder):
    files = sorted(folder.glob(f"*{OPENPOSE_END}"))
    if not files:
        raise UserError(f"{folder}: holds no OpenPose output (*{OPENPOSE_END})")
    numbers = {}
    for path in files:
        frame = path.name.removesuffix(OPENPOSE_END)
        number = _frame(Entry(path, frame, None, OPENPOSE), 0)
        if number in numbers:
            raise UserError(f"{path}: is of the same frame as {numbers[number].name}; a folder is of one video")
        numbers[number] = path
        for index, person in enumerate(_list(_get(_load_json(path), "people", path), f"{path}: people")):
            where = f"{path}: people[{index}]"
            identity = _get(person, "person_id", where, [-1])
            identity = None if identity == [-1] else identity  # -1: not tracked
            yield Entry(where, frame, _get(person, "pose_keypoints_2d", where), OPENPOSE, identity)


def _json(path):
    content = _load_json(path)
    if isinstance(content, dict) and "instance_info" in content:
        dataset = _get(content.get("meta_info", {}), "dataset_name", f"{path}: meta_info", None)
        return _mmpose(path, content["instance_info"], MMPOSE.get(dataset, COCO), 1)
    if not isinstance(content, list):
        raise UserError(f"{path}: is neither a list (AlphaPose, COCO results) nor MMPose's, with instance_info")
    if content and isinstance(content[0], dict) and "instances" in content[0]:
        return _mmpose(path, content, COCO, 0)
    return _results(path, content)


def _results(path, content):
    """Of AlphaPose and of COCO."""
    for index, person in enumerate(content):
        where = f"{path}: entry {index}"
        frame, keypoints = _get(person, "image_id", where), _get(person, "keypoints", where)
        yield Entry(where, frame, keypoints, COCO, _get(person, "idx", where, None))


def _mmpose(path, frames, layouts, first):
    """Frames are counted from `first`."""
    for index, frame in enumerate(_list(frames, f"{path}: instance_info")):
        where = f"{path}: entry {index}"
        number = _whole(_get(frame, "frame_id", where), where, "frame_id")
        for person, instance in enumerate(_list(_get(frame, "instances", where), f"{where}: instances")):
            place = f"{where}: instances[{person}]"
            try:
                points = np.column_stack([_get(instance, "keypoints", place), _get(instance, "keypoint_scores", place)])
            except ValueError as error:
                raise UserError(f"{place}: keypoints and keypoint_scores do not fit ({describe(error)})") from error
            yield Entry(place, number - first, points, layouts)


def _npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except Exception as error:  # zipfile's, zlib's and NumPy's have no common base
        raise UserError(f"{path}: cannot be read as .npz ({describe(error)})") from error
    keypoints, frames, layout = (_get(arrays, key, path) for key in ("keypoints", "frame", "layout"))
    if str(layout) not in LAYOUTS:
        raise UserError(f"{path}: layout: unknown {str(layout)!r}{nearest(layout, LAYOUTS)}: {', '.join(LAYOUTS)}")
    layouts = {len(LAYOUTS[str(layout)]): str(layout)}
    people = arrays.get("person", np.full(frames.shape, None))
    needed = {"keypoints": (frames.size, *layouts, 3), "frame": (frames.size,), "person": (frames.size,)}
    for (key, shape), array in zip(needed.items(), (keypoints, frames, people)):
        if array.shape != shape:
            raise UserError(f"{path}: {key} has the shape {array.shape}, {shape} is needed")
    for index, (frame, points, person) in enumerate(zip(frames, keypoints, people)):
        yield Entry(f"{path}: entry {index}", frame, points, layouts, person)


def _load_json(path):
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not text.strip():
        raise UserError(f"{path}: is empty")
    try:
        return json.loads(text)
    except ValueError as error:  # not JSON, or not UTF-8
        raise UserError(f"{path}: is no JSON or is cut short ({describe(error)})") from error


def _get(table, key, where, *default):
    """The value of a key, or the default if one is given."""
    if not isinstance(table, dict):
        raise UserError(f"{where}: is no table with {key}")
    if key in table:
        return table[key]
    if default:
        return default[0]
    raise UserError(f"{where}: {key} is missing")


def _list(value, where):
    if not isinstance(value, list):
        raise UserError(f"{where}: is no list")
    return value


def _has_doubles(people):
    """Whether two of the `Detection`s of a frame have nearly the same joints."""
    if len(people) < 2:
        return False
    places = np.stack([person.keypoints[:, :2] for person in people])
    near = _DOUBLE * np.ptp(places, axis=1).max(1)
    middles = places.mean(1)
    close = np.linalg.norm(middles[:, None] - middles, axis=-1) < near  # few of many pairs
    pairs = np.argwhere(np.triu(close, 1))
    return any(np.median(np.linalg.norm(places[a] - places[b], axis=1)) < near[b] for a, b in pairs)


def _twice(values):
    return len(set(values)) < len(values)


def _frame(entry, first):
    """The number of the video's frame, from 0."""
    value = entry.frame
    if isinstance(value, str):
        digits = re.findall(r"\d+", re.sub(r"\.[A-Za-z]\w*$", "", value))
        if not digits:
            raise UserError(f"{entry.where}: the name {value!r} has no frame number")
        value = int(digits[-1])
    number = _whole(value, entry.where, "frame") - first
    if number < 0:
        raise UserError(f"{entry.where}: frame {value} is before the first, {first}")
    return number


def _whole(value, where, what):
    try:
        number = int(value)
        if number == value:
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    value = value.item() if isinstance(value, np.generic) else value  # NumPy's say their type, too
    raise UserError(f"{where}: {what} is no whole number: {value!r}")


def _detection(entry, size):
    """The entry as a `Detection`, or None if no joint was seen, and whether joints were far outside of the image."""
    try:
        with np.errstate(over="ignore"):
            points = np.asarray(entry.keypoints, np.float32).reshape(-1, 3)
    except (TypeError, ValueError) as error:
        raise UserError(f"{entry.where}: keypoints are no numbers, three for each joint") from error
    if len(points) not in entry.layouts:
        needed = " or ".join(map(str, entry.layouts))
        raise UserError(f"{entry.where}: has {len(points)} joints; {needed} are needed")
    layout = entry.layouts[len(points)]
    wrong = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(wrong):
        raise UserError(f"{entry.where}: joint {wrong[0]} ({LAYOUTS[layout][wrong[0]]}) is not finite")
    if not (points[:, 2] > 0).any():
        return None, False
    points, stray = unsee_strays(points, *(size or (np.inf, np.inf)))
    person = entry.person[0] if isinstance(entry.person, list) and len(entry.person) == 1 else entry.person
    person = None if person is None else _whole(person, entry.where, "the person's number")
    person = None if person is None or person < 0 else person  # -1: not tracked
    keypoints = to_h36m(points, layout)
    box = np.concatenate([points[:, :2].min(axis=0), points[:, :2].max(axis=0)])  # those not seen are amid the others
    return Detection(keypoints, box, float(keypoints[:, 2].mean()), person), bool(stray)
