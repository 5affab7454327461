"""Crops of people in images on disk, read and cut when they are asked for."""

from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch

from lib.body.layouts import LAYOUTS
from lib.body.skeleton import mirrored_order
from lib.data.crop_maps import cut, inverse, mapped, maps_to_crops
from lib.data.image_files import UnreadableImage, read_image
from lib.errors import UserError

KEYPOINTS = {"coco": "coco17", "h36m": "h36m17"}  # key of a label: its layout

_IN_A_ROW = 100  # images that cannot be read before training gives up


class People(NamedTuple):
    """People of a split, n of them.

    images: (n,) of str, paths below the folder of images; sizes: (n, 2) px that these are to have, or None.
    centre, width: (n, 2) and (n,) px, the part of the image about each, see `lib.data.crop_maps.shown_part`.
    labels: {key: (n, ...)}; keypoints (n, 17, 3) are px of the image, (0.5, 0.5) the centre of the first, and COCO's
    visibility.
    """

    images: Any
    sizes: Any
    centre: Any
    width: Any
    labels: dict


class ImageCrops(torch.utils.data.Dataset):
    """Crops of one split.

    An image that cannot be read is noted in `unread`. In training the next crop of the split that can be read takes
    its place, which depends on nothing else; in scoring the crop is black and marked.

    Args:
        people: `People`.
        folder: of the images.
        keys: arrays of a batch: "image" and keys of labels.
        size: (width, height) of a crop, px.
        training: whether another crop may take a crop's place.
        random_part: of `lib.data.random_parts`, for crops of random parts in every epoch; None: the part about each.

    Attributes:
        unread: {path: reason}.
    """

    def __init__(self, people, folder, keys, size, training=False, random_part=None):
        self.people, self.folder, self.keys, self.size = people, folder, tuple(keys), tuple(size)
        self.training, self.unread = training, {}
        self._random_part, self._seed = random_part, 0

    def __len__(self):
        return len(self.people.images)

    def of_epoch(self, seed):
        """Return these crops with the random parts of an epoch; they follow from its seed and the crop's number."""
        crops = copy(self)
        crops._seed = seed
        return crops

    def __getitem__(self, indices):
        """Return crops by number: a list of B numbers, or a slice.

        Returns:
            {"image": (B, 3, H, W) uint8, RGB; "unread": (B,) bool, beside "image": the image could not be read; "coco",
            "h36m": (B, 17, 3) float32, x, y in px of the crop, (0.5, 0.5) the centre of the first pixel, and COCO's
            visibility, 0 outside of the crop; other labels as they are}, those of `keys`.
        """
        numbers = np.arange(len(self))[indices]
        batch = {}
        if "image" in self.keys:
            found = [self._crop(number) for number in numbers]
            numbers = np.array([number for number, _ in found], np.int64)
            black = np.zeros((*self.size[::-1], 3), np.uint8)
            crops = [black if crop is None else crop for _, crop in found]
            batch["image"] = np.stack(crops).transpose(0, 3, 1, 2)
            batch["unread"] = np.array([crop is None for _, crop in found])
        batch |= {key: self.people.labels[key][numbers] for key in self.keys if key != "image"}
        if any(key in KEYPOINTS for key in batch):
            maps, mirrored = self._maps(numbers)
            for key in KEYPOINTS.keys() & batch.keys():
                batch[key] = self._in_crops(batch[key], maps, mirrored, KEYPOINTS[key])
        return {key: torch.from_numpy(np.ascontiguousarray(array)) for key, array in batch.items()}

    def _crop(self, number):
        """Return the number of the crop that is seen in a crop's place, mostly its own, and the crop (H, W, 3) or None."""
        candidates = (number + np.arange(min(_IN_A_ROW, len(self)))) % len(self) if self.training else [number]
        for candidate in candidates:
            path = self.people.images[candidate]
            size = None if self.people.sizes is None else self.people.sizes[candidate]
            to_crop = self._maps(np.array([candidate]))[0][0]
            try:
                image = read_image(self.folder / path, size)
                _refuse_outside(to_crop, self.size, image)
            except UnreadableImage as error:
                self.unread[path] = str(error)
                continue
            return candidate, cut(image, to_crop, self.size)
        if self.training:
            first, reason = next(iter(self.unread.items()))
            raise UserError(
                f"{self.folder}: {len(candidates)} crops in a row cannot be read, such as {first} ({reason}); copy the "
                "images again, or set dt_root"
            )
        return number, None

    def _maps(self, numbers):
        """Return the maps (m, 2, 3) from images to crops by number, and which are mirrored (m,)."""
        centre, width = self.people.centre[numbers], self.people.width[numbers]
        if self._random_part is None:
            return maps_to_crops(centre, width, self.size), np.zeros(len(numbers), bool)
        keypoints = self.people.labels["coco"]
        parts = [
            self._random_part(
                np.random.default_rng((self._seed, number)),
                self.people.centre[number],
                self.people.width[number],
                keypoints[number],
                self.size,
            )
            for number in numbers
        ]
        centre, width, turn, side = (np.array(values) for values in zip(*parts))
        return maps_to_crops(centre, width, self.size, turn, side), side < 0

    def _in_crops(self, keypoints, maps, mirrored, layout):
        places = mapped(maps, keypoints[..., :2].astype(np.float64))
        inside = ((places >= 0) & (places < self.size)).all(-1)
        seen = keypoints[..., 2] * inside
        found = np.concatenate([places, seen[..., None]], -1).astype(np.float32)
        found[mirrored] = found[mirrored][:, list(mirrored_order(LAYOUTS[layout]))]
        return found


def _refuse_outside(to_crop, size, image):
    """Raise UnreadableImage if a crop of a size (width, height) shows nothing of its image (H, W, 3)."""
    corners = mapped(inverse(to_crop), np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size)
    if (corners.max(0) <= 0).any() or (corners.min(0) >= image.shape[1::-1]).any():
        raise UnreadableImage(f"the person's box is outside of its {image.shape[1]} x {image.shape[0]} px")


def refuse_keys(keys, labels, name):
    """Raise UserError if a batch is to have what a data set of single images has not; names the config key to set.

    Args:
        keys: of a batch; labels: those that the data set has; name: its name in configs.
    """
    own = [KEYPOINTS[key] for key in labels if key in KEYPOINTS]
    for key in keys:
        if key in ("flow", "depth"):
            raise UserError(f"streams: {name} has single images without {key}; set streams: rgb")
        if key in KEYPOINTS and key not in labels:
            raise UserError(f"joints: {KEYPOINTS[key]}: {name} has {own[0]}; set joints: {own[0]}")
        if key == "pose" and key not in labels:
            raise UserError(f"head: 3d: {name} has no joints in space; set head: 2d")
