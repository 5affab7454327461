"""Transforms of a batch of crops of people before an image network: one ordered list of functions, batch -> batch.

A batch is a dict of tensors: "image" (B, 3, H, W), "flow" (B, 2, H, W) px, "depth" (B, 1, H, W), those of the streams;
"keypoints" (B, 17, 3): x and y in px, 0 the centre of the first pixel, and COCO's visibility; "pose" (B, 17, 3), m.
All random draws are from torch's global generator, in the process that trains.
"""

import math

import torch
import torch.nn.functional as F

from lib.body.layouts import LAYOUTS
from lib.body.skeleton import flip, mirrored_order
from lib.model.cues.degrade import degrade_depth, degrade_flow
from lib.model.cues.normalise import normalised

KEYS = {"rgb": "image", "flow": "flow", "depth": "depth"}  # of a stream: its key in a batch

_SCALE = 0.25  # largest change of size
_TURN = math.radians(30)  # largest rotation
_BRIGHTNESS, _CONTRAST, _TINT = 0.25, 0.3, 0.1
_ERASED, _ERASED_SIZES = 0.4, (0.1, 0.4)  # share of images with a rectangle erased; its sides, of the image's
_PIXEL = 0.5  # the centre of the first pixel in the data sets' coordinates


def input_transforms(joints):
    """Return the transforms of stored crops, those of training and of scoring: numbers as networks read them.

    joints: the layout of keypoints, a key of `JOINT_KEYS`.
    """
    return [ChooseKeypoints(joints), as_numbers]


def training_transforms(joints):
    """Return the transforms that only training has; they follow `input_transforms`."""
    return [Warp(joints), change_colours, erase]


JOINT_KEYS = {"coco17": "coco", "h36m17": "h36m"}  # layout: the key of a data set's keypoints


class ChooseKeypoints:
    """Transform that names the keypoints of one layout "keypoints", and counts px from the centre of the first."""

    def __init__(self, joints):
        self.key = JOINT_KEYS[joints]

    def __call__(self, batch):
        batch = dict(batch)
        keypoints = batch.pop(self.key).clone()
        keypoints[..., :2] -= _PIXEL
        return batch | {"keypoints": keypoints}


def as_numbers(batch):
    """Turn images to [0, 1], and depth in m to inverse depth."""
    batch = batch | {"image": batch["image"].float() / 255}
    return batch | {"depth": 1 / batch["depth"]} if "depth" in batch else batch


def normalise_depth(batch):
    """Normalise inverse depth over each crop, as that of estimators is."""
    return batch | {"depth": normalised(batch["depth"])} if "depth" in batch else batch


def degrade_cues(batch):
    """Make exact cues as wrong as estimated ones."""
    degrade = {"flow": degrade_flow, "depth": degrade_depth}
    return batch | {key: function(batch[key]) for key, function in degrade.items() if key in batch}


class Warp:
    """Transform that mirrors half of the crops, turns them by up to 30 degrees and scales them by up to a quarter.

    Keypoints and flow go along, and poses, which are mirrored and turned about the camera's axis. A keypoint that
    leaves the crop gets visibility 0.
    """

    def __init__(self, joints):
        self.mirrored = list(mirrored_order(LAYOUTS[joints]))

    def __call__(self, batch):
        count, _, height, width = batch["image"].shape
        mirror = torch.rand(count) < 0.5
        turn, scale = _TURN * _plus_minus(count), (1 + _SCALE) ** _plus_minus(count)
        rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], -1).view(count, 2, 2)
        side = torch.where(mirror, -1.0, 1.0)
        linear = scale[:, None, None] * rotation @ torch.diag_embed(torch.stack([side, torch.ones(count)], -1))
        batch = batch | self._images(batch, linear, height, width)
        batch |= {"keypoints": self._keypoints(batch["keypoints"], linear, mirror, height, width)}
        if "pose" in batch:
            pose = torch.where(mirror[:, None, None], flip(batch["pose"]), batch["pose"])
            batch |= {"pose": torch.cat([pose[..., :2] @ rotation.mT, pose[..., 2:]], -1)}
        return batch

    def _images(self, batch, linear, height, width):
        """Return the images of all streams, warped in one go; flow is turned and scaled as well."""
        streams = [key for key in KEYS.values() if key in batch]
        half = torch.tensor([width / 2, height / 2])
        back = torch.linalg.inv(linear) * half / half[:, None]  # in halves of the image, as `affine_grid` counts
        grid = F.affine_grid(F.pad(back, (0, 1)), [len(linear), 1, height, width], align_corners=False)
        stacked = torch.cat([batch[key] for key in streams], 1)
        warped = F.grid_sample(stacked, grid, padding_mode="border", align_corners=False)
        found = dict(zip(streams, warped.split([batch[key].shape[1] for key in streams], 1)))
        if "flow" in found:
            found["flow"] = torch.einsum("bij,bjhw->bihw", linear, found["flow"])
        return found

    def _keypoints(self, keypoints, linear, mirror, height, width):
        middle = torch.tensor([(width - 1) / 2, (height - 1) / 2])
        keypoints = torch.where(mirror[:, None, None], keypoints[:, self.mirrored], keypoints)
        places = (keypoints[..., :2] - middle) @ linear.mT + middle
        inside = ((places >= -_PIXEL) & (places < torch.tensor([width, height]) - _PIXEL)).all(-1)
        return torch.cat([places, (keypoints[..., 2] * inside)[..., None]], -1)


def change_colours(batch):
    """Change brightness, contrast and the tint of each image."""
    image = batch["image"]
    count = len(image)
    gain = (1 + _CONTRAST * _plus_minus(count))[:, None, None, None]
    tint = 1 + _TINT * _plus_minus(count, 3)[..., None, None]
    offset = (_BRIGHTNESS * _plus_minus(count))[:, None, None, None]
    middle = image.mean((1, 2, 3), keepdim=True)
    return batch | {"image": (((image - middle) * gain + middle) * tint + offset).clamp(0, 1)}


def erase(batch):
    """Put a rectangle of one colour over some images; cues stay: what hides a person there is not known."""
    image = batch["image"]
    count, _, height, width = image.shape
    covered = (torch.rand(count) < _ERASED)[:, None, None]
    for axis, side in ((1, height), (2, width)):
        low, high = (share * side / 2 for share in _ERASED_SIZES)
        reach, middle = low + (high - low) * torch.rand(count, 1), side * torch.rand(count, 1)
        within = (torch.arange(side) + 0.5 - middle).abs() < reach
        covered = covered & within.unsqueeze(3 - axis)
    return batch | {"image": torch.where(covered[:, None], torch.rand(count, 3, 1, 1), image)}


def _plus_minus(*shape):
    """Return uniform draws from -1 to 1."""
    return 2 * torch.rand(shape) - 1
