"""Lifting of a person's keypoints to 3D: overlapping windows through the network, blended without seams."""

import numpy as np
import torch

from lib.body.camera import look_at_rotation
from lib.body.normalize import normalize_person
from lib.body.skeleton import ROOT, limb_vectors
from lib.data.datasets import DATASETS
from lib.data.synthetic.random_views import STANDARD_SIZE
from lib.errors import UserError
from lib.files import PROJECT
from lib.model.device import choose_device
from lib.model.opening import open_model
from lib.model.registry import MODELS
from lib.video.track.gaps import BLOCK

WEIGHTS = PROJECT / "demo" / "posemamba_wild.safetensors"
_BATCH = 16  # windows at a time
_OVERLAP = 3  # a window shares 1/3 of its frames with the next
_FASTEST = 60.0  # frames per second that the network was trained on, at most
_FRAMED = 1.0  # size of a person for networks trained on whole images, in units of half the width


def open_lifter(weights=WEIGHTS, config=None, clip_len=None, pixel=False, device=None):
    """Return the `Lifter` of a checkpoint file.

    Args:
        config: YAML file, where the checkpoint has none or other keys are wanted.
        clip_len: frames of a window; None: the config's.
        pixel: of `Lifter`.
        device: of `choose_device`.

    Raises:
        UserError: a file or an option is bad.
    """
    device = choose_device(device)
    opened = open_model(weights, config, device=device)
    if MODELS[opened.config.backbone].task != "lifting":
        raise UserError(f"{weights}: is a {opened.config.backbone}, which sees images, not keypoints")
    clip_len = opened.config.clip_len if clip_len is None else clip_len
    if clip_len > opened.config.maxlen:
        raise UserError(f"clip_len: {clip_len}: the network takes 1 to {opened.config.maxlen} frames")
    convention = DATASETS[opened.config.dataset].load().input
    if pixel and convention == "person":
        raise UserError(
            f"pixel: {weights} takes keypoints that are normalised by the person; it is for networks of whole images"
        )
    return Lifter(opened, device, clip_len, convention, pixel)


class Lifter:
    """Lifting network and its input convention.

    A network whose data set has the convention "person" sees normalised keypoints of a person and returns m of a standard
    body. Others were trained on whole images: they see keypoints as if the person filled a good part of one, or, with
    `pixel`, where they are in this one, and their poses are brought to a standard body's size.

    Args:
        opened: a `lib.model.opening.Opened`, on `device`.
        clip_len: frames of a window, at most the config's `maxlen`.
        convention: "image" or "person", of `lib.data.datasets.base.Dataset.input`.
        pixel: keypoints keep their place in the image.
    """

    def __init__(self, opened, device, clip_len, convention, pixel=False):
        self.opened, self.device, self.clip_len, self.convention, self.pixel = (
            opened,
            device,
            clip_len,
            convention,
            pixel,
        )

    def lift(self, keypoints, out, width, height, focal, fps):
        """Write poses (n, 17, 3) of one unbroken segment to `out`, root-relative, m, camera axes.

        Args:
            keypoints: (n, 17, 3) px and confidence, array-like, read a few windows at a time; where there are more
                frames per second than the network was trained on, they are subsampled and poses between are interpolated.
            width, height, focal: of the image, px.
        """
        width, height, focal = float(width), float(height), float(focal)  # NumPy's would make tensors float64
        every = max(1, round(fps / _FASTEST))
        self._lift(keypoints[::every], out[::every], width, height, focal)
        _fill_between(out, every)

    def _lift(self, keypoints, out, width, height, focal):
        frames, length = len(keypoints), min(self.clip_len, len(keypoints))
        step = max(1, length - length // _OVERLAP)
        starts = [*range(0, frames - length, step), frames - length]
        weight = np.minimum(np.arange(length) + 1, np.arange(length)[::-1] + 1).astype(np.float32)[:, None, None]
        done, total, weights = 0, np.zeros((0, 17, 3), np.float32), np.zeros((0, 1, 1), np.float32)
        for first in range(0, len(starts), _BATCH):
            chosen = starts[first : first + _BATCH]
            windows = np.stack([keypoints[s : s + length] for s in chosen])
            poses = self._poses(torch.from_numpy(np.ascontiguousarray(windows)), width, height, focal)
            longer = (0, chosen[-1] + length - done - len(total)), (0, 0), (0, 0)
            total, weights = np.pad(total, longer), np.pad(weights, longer)
            for start, pose in zip(chosen, poses):
                total[start - done : start - done + length] += weight * pose
                weights[start - done : start - done + length] += weight
            last = first + _BATCH >= len(starts)
            until = frames if last else starts[first + _BATCH]
            ready = until - done
            out[done:until] = total[:ready] / weights[:ready]
            total, weights, done = total[ready:], weights[ready:], until

    @torch.no_grad()
    def _poses(self, windows, width, height, focal):
        """Return root-relative poses (B, F, 17, 3), m, of windows (B, F, 17, 3) px."""
        middle = torch.tensor([width / 2, height / 2])
        windows = torch.cat([windows[..., :2] - middle, windows[..., 2:]], dim=-1)
        if self.convention == "person":
            inputs, centre, _ = normalize_person(windows)
            return (self._predict(inputs) @ look_at_rotation(centre, focal)).numpy()
        inputs = windows.clone()
        if self.pixel:
            inputs[..., :2] /= width / 2
        else:
            low, high = _seen_box(windows)
            inputs[..., :2] = (
                (windows[..., :2] - (low + high) / 2) * _FRAMED / (high - low).amax(-1, True).clamp(min=1e-6)
            )
        poses = self._predict(inputs)
        size = limb_vectors(poses).norm(dim=-1).sum(-1).mean(1)
        return (poses * (STANDARD_SIZE / size.clamp(min=1e-6))[:, None, None, None]).numpy()

    def _predict(self, inputs):
        x = (inputs[..., :2] if self.opened.config.no_conf else inputs).to(self.device)
        y = self.opened(x)
        return (y - y[:, :, ROOT, None]).float().cpu()


def _seen_box(windows):
    """Return the corners (B, 1, 1, 2) of the box of the joints (B, F, 17, 3) that are seen, of all where none is."""
    places, seen = windows[..., :2], windows[..., 2:] > 0
    seen = seen | ~seen.any(2, keepdim=True).any(1, keepdim=True)
    low = torch.where(seen, places, torch.inf).amin((1, 2), True)
    return low, torch.where(seen, places, -torch.inf).amax((1, 2), True)


def _fill_between(out, every):
    """Fill the gaps between known poses of (n, ...), one per stride `every`: linearly, after the last with it."""
    for start in range(0, len(out), every * BLOCK):
        block = out[start : start + every * BLOCK + 1]
        known = block[::every]
        for step in range(1, every):
            between = block[step::every]
            after = known[np.minimum(np.arange(len(between)) + 1, len(known) - 1)]
            between[:] = known[: len(between)] + step / every * (after - known[: len(between)])
