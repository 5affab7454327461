"""From a person's keypoints to 3D: overlapping windows through the network, blended without seams."""

import re

import numpy as np
import torch

from lib.body.camera import look_at_rotation
from lib.body.normalize import normalize_person
from lib.body.skeleton import ROOT, limb_vectors
from lib.config import load_config
from lib.data.synthetic.random_views import STANDARD_SIZE
from lib.errors import UserError
from lib.export.safetensors import read_weights
from lib.files import PROJECT
from lib.model.inference import infer
from lib.video.track.gaps import BLOCK

WEIGHTS = PROJECT / "demo" / "posemamba_wild.safetensors"
_BATCH = 16  # windows at a time
_OVERLAP = 3  # a window shares 1/3 of its frames with the next
_FASTEST = 60.0  # frames per second that the network was trained on, at most
_FRAMED = 1.0  # how large a person is before networks trained on pictures, in units of half the width


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
    checkpoint = read_weights(weights)
    size = checkpoint.size()
    base = {"clip_len": size["maxlen"], **checkpoint.config, **size}
    config = load_config(config, (), base, checkpoint.path)
    clip_len = config.clip_len if clip_len is None else clip_len
    if clip_len > config.maxlen:
        raise UserError(f"clip_len: {clip_len}: the network takes 1 to {config.maxlen} frames")
    if pixel and config.dataset == "views":
        raise UserError(f"pixel: {weights} always sees people cropped; it is for networks of whole pictures")
    device = choose_device(device)
    model = config.build_model()
    checkpoint.load_into(model)
    return Lifter(model.to(device).eval(), config, device, clip_len, pixel)


def choose_device(name=None):
    """Return the `torch.device` of a name, "cpu", "cuda" or "cuda:1"; None: CUDA if it is there.

    Raises:
        UserError: there is no such device.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"(cpu|cuda)(:\d+)?", name):
        raise UserError(f"device: {name!r}: expected cpu, cuda, cuda:1, ...")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: {name}: there are {torch.cuda.device_count()} GPUs here, counted from 0")
    return device


class Lifter:
    """A network and how it sees people.

    A network of the data set "views" (config) sees a person cropped and returns m of a standard body. Others were
    trained on whole pictures: they see keypoints as if the person filled a good part of one, or, with `pixel`, where
    they are in this one, and their poses are brought to a standard body's size.

    Args:
        model: on `device`, in evaluation mode.
        config: its `Config`.
        clip_len: frames of a window, at most the config's `maxlen`.
        pixel: keypoints keep their place in the picture.
    """

    def __init__(self, model, config, device, clip_len, pixel=False):
        self.model, self.config, self.device, self.clip_len, self.pixel = model, config, device, clip_len, pixel

    def lift(self, keypoints, out, width, height, focal, fps):
        """Poses (n, 17, 3) of one unbroken segment, root-relative, m, camera axes, written to `out`.

        Args:
            keypoints: (n, 17, 3) px and confidence, array-like, read a few windows at a time; where there are more
                frames a second than the network knows, some are passed over and their poses interpolated.
            width, height, focal: of the picture, px.
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
        """Windows (B, F, 17, 3) px -> root-relative poses (B, F, 17, 3), m."""
        middle = torch.tensor([width / 2, height / 2])
        windows = torch.cat([windows[..., :2] - middle, windows[..., 2:]], dim=-1)
        if self.config.dataset == "views":
            inputs, centre, _ = normalize_person(windows)
            return (self._predict(inputs) @ look_at_rotation(centre, focal)).numpy()
        inputs = windows.clone()
        if self.pixel:
            inputs[..., :2] /= width / 2
        else:
            low, high = windows[..., :2].amin((1, 2), True), windows[..., :2].amax((1, 2), True)
            inputs[..., :2] = (
                (windows[..., :2] - (low + high) / 2) * _FRAMED / (high - low).amax(-1, True).clamp(min=1e-6)
            )
        poses = self._predict(inputs)
        size = limb_vectors(poses).norm(dim=-1).sum(-1).mean(1)
        return (poses * (STANDARD_SIZE / size.clamp(min=1e-6))[:, None, None, None]).numpy()

    def _predict(self, inputs):
        x = (inputs[..., :2] if self.config.no_conf else inputs).to(self.device)
        y = infer(self.model, x, self.config)
        return (y - y[:, :, ROOT, None]).float().cpu()


def _fill_between(out, every):
    """Poses (n, ...) of which every so manyth is there: those between linearly, those after the last as that one."""
    for start in range(0, len(out), every * BLOCK):
        block = out[start : start + every * BLOCK + 1]
        known = block[::every]
        for step in range(1, every):
            between = block[step::every]
            after = known[np.minimum(np.arange(len(between)) + 1, len(known) - 1)]
            between[:] = known[: len(between)] + step / every * (after - known[: len(between)])
