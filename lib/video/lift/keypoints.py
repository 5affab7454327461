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
from lib.video.lift.turned import where_heads_point
from lib.video.track.gaps import fill

log = logging.getLogger(__name__)

_KINDS = "iufO"  # NumPy's of arrays of numbers
_RANGES = {"size": (1, 1e6), "fps": (0.1, 1e4), "focal": (1, 1e9)}
_NORMALISED = 1.5  # coordinates up to so much, and they are no px
_LARGE = 20  # px of an image in which they would be
_MOST_CONFIDENCE = 1.5  # some networks say a little more than 1


def lift_keypoints(keypoints, size, fps=30.0, focal=None, weights=None, joints="h36m17"):
    """Return the 3D poses of one person from 2D keypoints, as `vis.py` lifts and smooths them.

    A joint of NaN or confidence 0 is not seen, nor is one farther outside of the image than that is large; frames with
    fewer than 3 seen joints are bridged from their neighbours. A warning says so.

    Args:
        keypoints: (F, K, 3): x, y in px of the upright image and confidence 0 to 1, or (F, K, 2) without confidence;
            consecutive frames of one person; anything that NumPy takes as an array of numbers, or a tensor. What is
            masked in a masked array is not seen.
        size: width and height of the image, px.
        fps: frames per second, 0.1 to 10000.
        focal: focal length, px; None: that of an image 54 degrees wide along its longer side.
        weights: checkpoint file; None: the shipped one.
        joints: the order of the K joints, a key of `lib.body.layouts.LAYOUTS`, as "coco17".

    Returns:
        (F, 17, 3) float32, m, root-relative, Human3.6M's joints; camera axes: x right, y down, z forward.

    Raises:
        UserError: an argument is bad, or no frame has 3 joints that are seen.
    """
    width, height = _size(size)
    fps = _number("fps", fps)
    focal = FOCAL * max(width, height) if focal is None else _number("focal", focal)
    array = _array(keypoints, joints)
    _check_units(array, width, height)
    found = _seen(array, joints, width, height)
    if turned := where_heads_point([found]):
        log.warning(
            "keypoints: the head points to the %s of the image: if that is turned, turn it %d degrees clockwise",
            *turned,
        )
    lifter = open_lifter(WEIGHTS if weights is None else weights)
    poses = np.empty_like(found)
    lifter.lift(found, poses, width, height, focal, fps)
    smooth(poses, found[..., 2], np.arange(len(poses)) / fps)
    return poses


def _array(keypoints, joints):
    """Return (F, K, 3) float32; what is not finite has confidence 0."""
    if not isinstance(joints, str) or joints not in LAYOUTS:
        raise UserError(f"joints: unknown {joints!r}{nearest(joints, LAYOUTS)}; there are {', '.join(LAYOUTS)}")
    count = len(LAYOUTS[joints])
    try:
        array = _numbers(keypoints)
    except (TypeError, ValueError, RuntimeError) as error:  # the last: tensors that NumPy does not take
        raise UserError(
            f"keypoints: are no array of numbers, frames x {count} joints x 3 ({describe(error)})"
        ) from error
    if array.ndim != 3 or array.shape[1] != count or array.shape[2] not in (2, 3) or not len(array):
        raise UserError(f"keypoints: have the shape {array.shape}; {joints} needs (frames, {count}, 3) or 2 for 3")
    if array.shape[2] == 2:
        array = np.concatenate([array, np.ones_like(array[..., :1])], axis=-1)
    return np.where(np.isfinite(array).all(-1, keepdims=True), array, np.float32(0))


def _numbers(values):
    """Return an array, a tensor or nested lists as float32; NaN where a masked array is masked.

    Raises:
        TypeError: they are of another kind: bool, complex, text.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values  # NumPy knows no bfloat16
    values = values if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    if values.dtype.kind not in _KINDS:
        raise TypeError(f"their type is {values.dtype}")
    with np.errstate(over="ignore"):
        return np.ma.filled(values.astype(np.float32), np.float32(np.nan))


def _check_units(keypoints, width, height):
    """Raise a `UserError` if what is seen of (F, K, 3) is not in px, or confidences are not 0 to 1."""
    places, confidence = keypoints[keypoints[..., 2] > 0, :2], keypoints[..., 2]
    if len(places) and np.abs(places).max() <= _NORMALISED and max(width, height) >= _LARGE:
        raise UserError(
            f"keypoints: all coordinates are within {np.abs(places).max():.3g}, as if normalised; px of the "
            f"{width:g} x {height:g} image are needed"
        )
    if confidence.max() > _MOST_CONFIDENCE:
        raise UserError(f"keypoints: a confidence is {confidence.max():g}; 0 to 1 is needed")


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
    return _number("size", width), _number("size", height)


def _number(name, value):
    """Return an argument that is a number, NumPy's or a tensor's too, as a float."""
    least, most = _RANGES[name]
    try:
        number = float(_numbers(value))
        if least <= number <= most:
            return number
    except (TypeError, ValueError, RuntimeError):  # the last: of a tensor
        pass
    raise UserError(f"{name}: {value!r}: expected a number of {least:g} to {most:g}")
