"""3D poses from keypoints that are there already: `from lib.video import lift_keypoints`."""

import logging

import numpy as np
import torch

from lib.body.layouts import LAYOUTS, to_h36m
from lib.errors import UserError, describe, nearest
from lib.video.lift.lifter import WEIGHTS, open_lifter
from lib.video.lift.placement import FOCAL
from lib.video.lift.smoothing import smooth
from lib.video.lift.strays import LEAST_JOINTS, enough_seen, unsee_strays
from lib.video.track.gaps import fill

log = logging.getLogger(__name__)


def lift_keypoints(keypoints, size, fps=30.0, focal=None, weights=None, joints="h36m17"):
    """Return the 3D poses of one person from 2D keypoints, as `vis.py` lifts and smooths them.

    A joint of NaN or confidence 0 is not seen, nor is one farther outside of the image than that is large; frames with
    fewer than 3 seen joints are bridged from their neighbours. A warning says so.

    Args:
        keypoints: (F, K, 3): x, y in px of the upright image and confidence 0 to 1, or (F, K, 2) without confidence;
            consecutive frames of one person; anything that NumPy takes as an array, or a tensor.
        size: width and height of the image, px.
        fps: frames per second.
        focal: focal length, px; None: that of an image 54 degrees wide along its longer side.
        weights: checkpoint file; None: the shipped one.
        joints: the order of the K joints, a key of `lib.body.layouts.LAYOUTS`, as "coco17".

    Returns:
        (F, 17, 3) float32, m, root-relative, Human3.6M's joints; camera axes: x right, y down, z forward.

    Raises:
        UserError: an argument is bad, or no frame has 3 joints that are seen.
    """
    width, height = _size(size)
    fps = _positive("fps", fps)
    focal = FOCAL * max(width, height) if focal is None else _positive("focal", focal)
    found = _seen(_array(keypoints, joints), joints, width, height)
    lifter = open_lifter(WEIGHTS if weights is None else weights)
    poses = np.empty_like(found)
    lifter.lift(found, poses, width, height, focal, fps)
    smooth(poses, found[..., 2], np.arange(len(poses)) / fps)
    return poses


def _array(keypoints, joints):
    """Return (F, K, 3) float32; what is not finite has confidence 0."""
    if not isinstance(joints, str) or joints not in LAYOUTS:
        raise UserError(f"joints: unknown {joints!r}{nearest(joints, LAYOUTS)}; there are {', '.join(LAYOUTS)}")
    if isinstance(keypoints, torch.Tensor):
        keypoints = keypoints.detach().cpu().float()  # NumPy knows no bfloat16
    count = len(LAYOUTS[joints])
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(keypoints, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"keypoints: are no array of numbers, frames x {count} joints x 3 ({describe(error)})"
        ) from error
    if array.ndim != 3 or array.shape[1] != count or array.shape[2] not in (2, 3) or not len(array):
        raise UserError(f"keypoints: have the shape {array.shape}; {joints} needs (frames, {count}, 3) or 2 for 3")
    if array.shape[2] == 2:
        array = np.concatenate([array, np.ones_like(array[..., :1])], axis=-1)
    return np.where(np.isfinite(array).all(-1, keepdims=True), array, np.float32(0))


def _seen(keypoints, joints, width, height):
    """Return Human3.6M's joints (F, 17, 3) of all frames, those with hardly any joint bridged."""
    kept, strays = unsee_strays(keypoints, width, height)
    found = to_h36m(kept, joints)
    known = np.flatnonzero(enough_seen(found))
    if not len(known):
        raise UserError(f"keypoints: no frame has {LEAST_JOINTS} joints that are finite, seen and near the image")
    if strays.any():
        log.warning("keypoints: far outside of the image in %d of %d frames: not seen", strays.sum(), len(found))
    if len(known) < len(found):
        count = len(found) - len(known)
        log.warning("keypoints: fewer than %d joints in %d of %d frames: bridged", LEAST_JOINTS, count, len(found))
    first, last = known[0], known[-1]
    filled = np.empty_like(found)
    fill(np.arange(first, last + 1), known, found[known], filled[first : last + 1])
    for outer, end in ((slice(0, first), first), (slice(last + 1, None), last)):
        filled[outer, :, :2], filled[outer, :, 2] = found[end, :, :2], 0
    return filled


def _size(size):
    try:
        width, height = size
    except (TypeError, ValueError) as error:
        raise UserError(f"size: {size!r}: expected the width and height of the image, px") from error
    return _positive("size", width), _positive("size", height)


def _positive(name, value):
    """Return a number above 0, NumPy's or a tensor's too, as a float."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:  # the last: a tensor of several numbers
        raise UserError(f"{name}: {value!r}: expected a number above 0") from error
    if not 0 < number < np.inf:
        raise UserError(f"{name}: {value!r}: expected a number above 0")
    return number
