"""Cutting cues of a frame to the crop of a person that a network sees."""

import torch
from torch.nn.functional import grid_sample

from lib.errors import UserError
from lib.model.cues.normalise import normalised


def crop_cues(flow, depth, box, size, frame=None):
    """Return the flow and depth of boxes of a frame, at a crop's size; a cue that is None stays None.

    Flow becomes px of the crop; it is 0 beyond the frame. Depth is `normalised` over the part of the crop that lies in
    the frame and 0, which is its median, beyond.

    Args:
        flow: (2, h, w) px of the frame, tensor or array.
        depth: (h, w) inverse depth up to scale and shift, tensor or array.
        box: (4,) or (B, 4), x0, y0, x1, y1, px of the frame: the pixel in the corner lies from 0 to 1.
        size: (width, height) px of the crop.
        frame: (width, height) px of the frame, if its maps are of another size.

    Returns:
        Flow (2, height, width) or (B, 2, height, width); depth (1, height, width) or (B, 1, height, width); float32.

    Raises:
        ValueError: a box is empty.
        UserError: a box lies outside of the frame; or flow and depth are of frames of different size.
    """
    box = torch.as_tensor(box, dtype=torch.float32)
    if not (box[..., 2:] > box[..., :2]).all():
        raise ValueError(f"boxes: expected x0 < x1 and y0 < y1, got {box.tolist()}")
    frame = frame or _common_size(flow, depth)
    outside = (box[..., 2:] <= 0).any(-1) | (box[..., :2] >= torch.tensor(frame)).any(-1)
    if outside.any():
        first = ", ".join(f"{side:g}" for side in box[outside][0].tolist())
        raise UserError(f"box {first}: is outside of the frame of {frame[0]} x {frame[1]} px; leave it out")
    if flow is not None:
        flow = torch.as_tensor(flow).float()
        sampled = _sampled(flow, box, size, frame)
        scale = torch.tensor(size) / (box[..., 2:] - box[..., :2])
        flow = sampled * scale.to(flow.device)[..., None, None]
    if depth is not None:
        depth = torch.as_tensor(depth).float()
        both = torch.stack([depth, torch.ones_like(depth)])
        depth, inside = _sampled(both, box, size, frame).split(1, dim=-3)
        known = inside > 0.5
        depth = normalised(torch.where(known, depth / inside, torch.nan)).nan_to_num(0.0)
    return flow, depth


def _common_size(*maps):
    """Return the (width, height) px of maps (..., h, w) of one frame."""
    sizes = {(shown.shape[-1], shown.shape[-2]) for shown in maps if shown is not None}
    if len(sizes) != 1:
        found = " and ".join(f"{width} x {height}" for width, height in sorted(sizes)) or "none"
        raise UserError(
            f"flow and depth: are of different sizes, {found} px; make both of the same frame, or give frame"
        )
    return sizes.pop()


def _sampled(maps, box, size, frame):
    """Return maps (C, h, w) of boxes (..., 4), (..., C, height, width), by bilinear interpolation, 0 beyond the frame."""
    width, height = frame
    box = box.to(maps.device)
    x = _centres(box[..., 0], box[..., 2], size[0]) / width
    y = _centres(box[..., 1], box[..., 3], size[1]) / height
    places = torch.stack(torch.broadcast_tensors(x[..., None, :], y[..., :, None]), dim=-1) * 2 - 1
    flat = places.reshape(1, -1, size[0], 2)
    found = grid_sample(maps[None], flat, align_corners=False)[0]
    return found.view(len(maps), *places.shape[:-1]).movedim(0, -3)


def _centres(first, last, count):
    """Return (..., count) the middles of equal parts from `first` to `last`, both (...,)."""
    return first[..., None] + (last - first)[..., None] * ((torch.arange(count, device=first.device) + 0.5) / count)
