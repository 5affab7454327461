"""The interface of all estimators of cues: consecutive frames in, maps of the frames' size out."""

import logging

import numpy as np
import torch
from torch.nn.functional import interpolate, pad

from lib.errors import UserError

log = logging.getLogger(__name__)


class Estimator:
    """Base of the estimators of one cue.

    Args:
        name: the registry's.
        device: a `torch.device` or its name.
        batch: how many maps are estimated at once.
        max_side: px; frames whose longer side is longer are worked on smaller.

    Attributes:
        cue: "flow" or "depth".
        channels: of a map: (2,) or ().
        ahead: how many frames after its own a map needs.
        takes_weights: whether it is a network.
    """

    cue: str
    channels: tuple
    ahead = 0
    takes_weights = True

    def __init__(self, name, device="cpu", batch=4, max_side=512):
        self.name, self.device, self.batch, self.max_side = name, torch.device(device), batch, max_side
        self._told = None

    def settings(self):
        """Return what identifies the maps beside the frames: equal settings mean equal maps, up to rounding."""
        return {"name": self.name, "max_side": self.max_side}

    def working_size(self, width, height):
        """Return the (width, height) px that frames of a size are worked on."""
        scale = min(1.0, self.max_side / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def describe(self, width, height):
        """Return how frames of a size are worked on, in a line."""
        working = self.working_size(width, height)
        return (
            f"{self.cue} by {self.name}: images of {width} x {height} px are worked on at {working[0]} x {working[1]}"
        )

    @torch.no_grad()
    def __call__(self, frames, first=0):
        """Return the maps of consecutive frames, float32 on `device`.

        Args:
            frames: (N, H, W, 3) uint8 RGB, or a list of N such images.
            first: number of the first, for messages.

        Returns:
            Flow (N - 1, 2, H, W) from each frame to the next, px of these frames; or depth (N, H, W), see
            `normalised`.

        Raises:
            UserError: frames have different sizes, or a value is not finite; names the frames.
        """
        height, width = _common_size(frames, first)
        if self._told != (width, height):
            log.info(self.describe(width, height))
            self._told = width, height
        maps = [torch.empty(0, *self.channels, height, width, device=self.device)]
        for start in range(0, len(frames) - self.ahead, self.batch):
            images = np.stack(frames[start : start + self.batch + self.ahead])
            maps.append(self._estimate(images))
            if not maps[-1].isfinite().all():
                raise UserError(
                    f"{self.name}: its {self.cue} of frames {first + start} to {first + start + len(images) - 1} is not "
                    "finite; its weights are damaged: fetch them again"
                )
        return torch.cat(maps)

    def _estimate(self, images):
        """Return the maps of at most `batch` + `ahead` images (n, H, W, 3)."""
        raise NotImplementedError


def _common_size(frames, first):
    """Return the height and width of all frames.

    Raises:
        UserError: two that follow each other differ.
        ValueError: there are none, or they are no RGB images.
    """
    shapes = [np.shape(frame) for frame in frames]
    for number, (shape, following) in enumerate(zip(shapes, shapes[1:]), first):
        if shape != following:
            sizes = (f"{size[1]} x {size[0]}" for size in (shape, following))
            raise UserError(
                f"frames {number} and {number + 1} are of different sizes, {' and '.join(sizes)} px; "
                "give frames of one video, or resize them"
            )
    if not shapes or len(shapes[0]) != 3 or shapes[0][2] != 3 or frames[0].dtype != np.uint8:
        raise ValueError("frames: expected at least one (H, W, 3) uint8")
    return shapes[0][:2]


def to_tensor(images, size, device, mode="bilinear"):
    """Return images (n, H, W, 3) uint8 as (n, 3, h, w) float32, 0 to 1, of a size (w, h) px."""
    tensor = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float().div(255)
    return resized(tensor, size, mode)


def resized(maps, size, mode="bilinear"):
    """Return maps (n, C, H, W) of another size (width, height) px; smaller ones are averages."""
    width, height = size
    if maps.shape[-2:] == (height, width):
        return maps
    return interpolate(maps, (height, width), mode=mode, align_corners=False, antialias=True)


def padded(maps, multiple, least):
    """Return maps (n, C, H, W) whose sides are multiples of a number, and no shorter than `least`.

    The last row and column are repeated at the bottom and right.
    """
    missing = [padded_side(side, multiple, least) - side for side in maps.shape[-2:]]
    return pad(maps, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else maps


def padded_side(side, multiple, least):
    """Return the length of a side after `padded`."""
    return -(-max(side, least) // multiple) * multiple


def back_to(flow, size, frame):
    """Return flow (n, 2, h, w) of frames of `frame` that was estimated on images of `size`, both (width, height) px.

    What was `padded` is cut off; the values become px of the frame.
    """
    flow = flow[..., : size[1], : size[0]]
    scale = flow.new_tensor([frame[0] / size[0], frame[1] / size[1]])
    return resized(flow, frame) * scale[:, None, None]


def with_last(flow, before=None):
    """Return flow (N - 1, 2, H, W) continued by the last frame's, (N, 2, H, W): that of the frame before it.

    before: (2, H, W), the flow before these, where N is 1; without it the last frame's is zero.
    """
    if len(flow):
        before = flow[-1]
    elif before is None:
        before = flow.new_zeros(flow.shape[1:])
    return torch.cat([flow, before[None]])
