"""COCO's people with keypoints, in the layout of the official download; `dt_root` is the folder of

    annotations/person_keypoints_train2017.json, annotations/person_keypoints_val2017.json
    train2017/*.jpg, val2017/*.jpg

and of a file of detected boxes (`detections`), if people are scored who were detected. Never run on the real files here.
"""

import logging
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lib.body.layouts import LAYOUTS
from lib.data.crop_maps import inverse, mapped, maps_to_crops, shown_part
from lib.data.image_crops import ImageCrops, People, refuse_keys
from lib.data.json_files import read_json
from lib.data.random_parts import random_part
from lib.errors import UserError
from lib.files import require_folder

NAMES = tuple(name.replace(" ", "_") for name in LAYOUTS["coco17"])  # as the files have them
PERSON = 1  # category

_FOLDERS = {"train": "train2017", "test": "val2017"}
_HALF_PIXEL = 0.5  # COCO's keypoints count from the centre of the first pixel, boxes from its corner

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """People of COCO to look at.

    people: `People`; image: (n,) numbers of their images; score: (n,) of their boxes; area: (n,) px² of what crops show.
    """

    people: People
    image: np.ndarray
    score: np.ndarray
    area: np.ndarray


class CocoKeypoints:
    """COCO's keypoints as a data set: crops of annotated people, or of detected ones to score.

    Annotated are those with keypoints who are no crowd; a box that lies outside its image is left out, and said.

    Args:
        path: the folder.
        size: (width, height) of a crop, px.
        detections: file of detected boxes, a list of {image_id, category_id, bbox, score}; None: annotated boxes.

    Raises:
        UserError: a folder is missing.
    """

    protocol = "coco"
    baseline_split = None  # the mean pose's AP would be all but 0, and training images need not be there to score

    def __init__(self, path, size, detections=None):
        self.path, self.size, self.detections = require_folder(path, "; set dt_root"), tuple(size), detections

    @classmethod
    def open(cls, config):
        """Return the data set of a config."""
        root = Path(config.dt_root)
        return cls(root, config.crop, root / config.detections if config.detections else None)

    def refuse_empty(self, config):
        """Raise UserError if nobody is to be scored."""
        if not len(self.tested.image):
            raise UserError(f"{self.detections or self.annotations('test')}: holds no person with keypoints")

    def training_transforms(self, joints):
        """Return no transforms: training crops show random parts of images already."""
        return []

    def annotations(self, split):
        """Return the path of the annotations of a split."""
        return self.path / "annotations" / f"person_keypoints_{_FOLDERS[split]}.json"

    def crops(self, split, keys):
        """Return the `ImageCrops` of a split, with these keys: "image" and "coco"."""
        refuse_keys(keys, ("coco",), "coco")
        found = self.tested if split == "test" else self.trained
        folder = require_folder(self.path / _FOLDERS[split], "; set dt_root") if "image" in keys else None
        training = split == "train"
        return ImageCrops(found.people, folder, keys, self.size, training, random_part if training else None)

    @cached_property
    def trained(self):
        """The `Found` people of the training split."""
        return _annotated(self.annotations("train"), self.size)

    @cached_property
    def tested(self):
        """The `Found` people who are scored."""
        path = self.annotations("test")
        return _detected(self.detections, path, self.size) if self.detections else _annotated(path, self.size)

    def in_images(self, keypoints):
        """Return keypoints (n, 17, 3) of the crops that are scored, px from the centre of the first, in COCO's own px."""
        people = self.tested.people
        back = inverse(maps_to_crops(people.centre, people.width, self.size))
        places = mapped(back, keypoints[..., :2].astype(np.float64) + _HALF_PIXEL) - _HALF_PIXEL
        return np.concatenate([places, keypoints[..., 2:]], -1)


def _annotated(path, size):
    """Return the `Found` people of a file of annotations."""
    content = read_json(path, dict)
    images = _images(content, path)
    rows = [
        (number, entry)
        for number, entry in _entries(content, "annotations", path)
        if not _field(entry, "iscrowd", int, path, number) and _field(entry, "num_keypoints", int, path, number)
    ]
    keypoints = np.array([_keypoints(entry, path, number) for number, entry in rows], np.float32).reshape(-1, 17, 3)
    keypoints[..., :2] += _HALF_PIXEL
    kept, found = _found(rows, images, path, size)
    return found._replace(people=found.people._replace(labels={"coco": keypoints[kept]}))


def _detected(path, annotations, size):
    """Return the `Found` people of a file of detected boxes; nothing is known of their keypoints."""
    images = _images(read_json(annotations, dict), annotations)
    rows = [
        (number, entry)
        for number, entry in _entries({"entry": read_json(path, list)}, "entry", path)
        if _field(entry, "category_id", int, path, number) == PERSON
    ]
    scores = np.array([_field(entry, "score", float, path, number) for number, entry in rows])
    kept, found = _found(rows, images, path, size)
    labels = {"coco": np.zeros((len(kept), 17, 3), np.float32)}
    return found._replace(people=found.people._replace(labels=labels), score=scores[kept])


def _found(rows, images, path, size):
    """Return the places of the rows whose box shows something of its image, and their `Found` people without labels."""
    ids = [_field(entry, "image_id", int, path, number) for number, entry in rows]
    for (number, _), image in zip(rows, ids):
        if image not in images:
            raise UserError(f"{path}: {_place(number)}: image_id {image} is not among the annotated images")
    boxes = np.array([_box(entry, path, number) for number, entry in rows], np.float64).reshape(-1, 4)
    sizes = np.array([images[image][1] for image in ids], np.int64).reshape(-1, 2)
    low = np.clip(boxes[:, :2], 0, sizes)
    inner = np.concatenate([low, np.clip(boxes[:, :2] + boxes[:, 2:], 0, sizes) - low], 1)
    kept = np.flatnonzero((inner[:, 2:] > 0).all(1))
    if len(kept) < len(rows):
        first = rows[np.setdiff1d(np.arange(len(rows)), kept)[0]][0]
        log.warning(
            "%s: %d of %d boxes are empty or lie outside of their images, first that of %s: left out",
            path, len(rows) - len(kept), len(rows), _place(first),
        )  # fmt: skip
    centre, width = shown_part(inner[kept], size)
    names = np.array([images[ids[place]][0] for place in kept], object)
    people = People(names, sizes[kept], centre, width, {})
    image = np.array([ids[place] for place in kept], np.int64)
    return kept, Found(people, image, np.ones(len(kept)), width**2 * size[1] / size[0])


def _images(content, path):
    """Return {number: (file name, (width, height))} of the annotated images, whose people have COCO's keypoints."""
    for _, entry in _entries(content, "categories", path):
        if entry.get("id") == PERSON and tuple(entry.get("keypoints", ())) != NAMES:
            found = ", ".join(map(str, entry.get("keypoints", ()))) or "none"
            raise UserError(f"{path}: its people have other keypoints ({found}) than COCO's 17; set dt_root")
    return {
        _field(entry, "id", int, path, number): (
            _field(entry, "file_name", str, path, number),
            tuple(_field(entry, side, int, path, number) for side in ("width", "height")),
        )
        for number, entry in _entries(content, "images", path)
    }


def _entries(content, key, path):
    """Yield the entries of a list of a file, each with (key, its place there)."""
    if not isinstance(content.get(key), list):
        raise UserError(f"{path}: has no list {key!r}; it is no file of COCO's")
    for place, entry in enumerate(content[key]):
        if not isinstance(entry, dict):
            raise UserError(f"{path}: {key} {place} is no table")
        yield (key, place), entry


def _place(number):
    return f"{number[0]} {number[1]}"


def _field(entry, key, kind, path, number):
    """Return a field of an entry as a number or text."""
    if key not in entry:
        raise UserError(f"{path}: {_place(number)}: {key} is missing")
    try:
        return kind(entry[key])
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {_place(number)}: {key} is {entry[key]!r}, expected {kind.__name__}") from error


def _numbers(entry, key, count, path, number):
    values = _field(entry, key, list, path, number)
    try:
        found = np.array(values, np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (count,) or not np.isfinite(found).all():
        raise UserError(f"{path}: {_place(number)}: {key} has {len(values)} values, {count} finite numbers are needed")
    return found


def _keypoints(entry, path, number):
    return _numbers(entry, "keypoints", 3 * len(NAMES), path, number).reshape(-1, 3)


def _box(entry, path, number):
    return _numbers(entry, "bbox", 4, path, number)
