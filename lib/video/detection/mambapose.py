"""Detector: MambaPose; the default detector finds people, one network sees the joints of all in crops of the frame.

A network with head 3d also tells where joints are in space, see `Detection.pose`.
"""

import logging
from pathlib import Path

import numpy as np
import torch

from lib.body.layouts import to_h36m
from lib.errors import UserError
from lib.files import PROJECT
from lib.model.opening import open_model
from lib.model.products import fast_products
from lib.task.heatmaps import decode, decode_udp
from lib.video.detection import Detector, movenet
from lib.video.detection.accurate import Accurate
from lib.video.detection.crops import Crop
from lib.video.detection.frame_cues import FrameCues
from lib.video.lift.placement import FOCAL

MODEL = PROJECT / "demo" / "mambapose_nano.safetensors"

_FIRST_PIXEL = 0.5  # heatmaps count from its centre, crops from its corner

log = logging.getLogger(__name__)


class MambaPose(Detector):
    """Detector of the people whom `Accurate` finds, with the joints that a MambaPose sees.

    Args:
        det_model: file of MoveNet multipose.
        pose_model: checkpoint or safetensors file of a MambaPose of single images.
        flow: whether it sees optical flow, by DIS.
        depth: folder of Depth Anything V2 Small, whose depth it sees; None: no depth.
        focal: px; None: that of an image 54 degrees wide along its longer side.
        poses: whether joints in space are needed.
        device: torch's.

    Raises:
        UserError: a file is missing, damaged or another model, or the network does not fit what is asked for.
    """

    def __init__(
        self, det_model=movenet.MODEL, pose_model=MODEL, flow=False, depth=None, focal=None, poses=False, device="cpu"
    ):
        if not Path(pose_model).exists():
            raise UserError(f"{pose_model}: no such file; name a MambaPose: --pose-model FILE, or --mambapose FILE")
        self._network = open_model(pose_model, overrides=["backbone=MambaPose"], device=device)
        self._config, self._device, self._focal = self._network.config, device, focal
        self._check(pose_model, {"flow": flow, "depth": depth is not None}, poses)
        self._cues = FrameCues(flow, depth, device)
        self._people = Accurate(det_model)
        self.warnings = self._people.warnings

    def detect(self, frame, seconds, number):
        self._cues.see(frame, seconds)
        size, shape = tuple(self._config.crop), frame.shape[1::-1]
        focal = self._focal or FOCAL * max(shape)
        people = self._people.detect(frame, seconds, number)
        pairs = [(person, Crop(person.box, shape, focal, size)) for person in people]
        pairs = [(person, crop) for person, crop in pairs if crop.shows_frame]
        if not pairs:
            return []
        people, crops = zip(*pairs)
        keypoints, poses = self._joints(np.stack([crop.cut(frame) for crop in crops]), *self._cues.cut(crops))
        found = [
            person._replace(keypoints=to_h36m(in_frame(points, crop), self._config.joints))
            for person, crop, points in zip(people, crops, keypoints)
        ]
        if poses is None:
            return found
        return [person._replace(pose=crop.turned_back(pose)) for person, crop, pose in zip(found, crops, poses)]

    def close(self):
        self._people.close()

    def _check(self, file, given, poses):
        """Raise UserError if the network does not do what is asked for; say which cues it does without.

        given: {cue: whether there is one}.
        """
        config, name = self._config, Path(file).name
        if poses and config.head != "3d":
            raise UserError(
                f"{file}: has head {config.head}, keypoints only; --detector mambapose --pose-model {file} has PoseMamba "
                "lift them"
            )
        if config.frames > 1:
            raise UserError(f"{file}: sees clips of {config.frames} frames; a network of single images is needed")
        seen = config.streams.split("+")
        for cue in given:
            if given[cue] and cue not in seen:
                raise UserError(f"--{cue}: {name} sees {config.streams} only; leave it out")
        missing = [cue for cue in given if cue in seen and not given[cue]]
        if missing and config.fusion == "early":
            raise UserError(f"{file}: fusion: early needs all of {config.streams}; add --flow, --depth FOLDER")
        if missing:
            log.warning("%s: is not shown %s (--flow, --depth FOLDER)", name, " and ".join(missing))

    @torch.inference_mode()
    def _joints(self, images, flow, depth):
        """Return keypoints (n, 17, 3), px of the crops and confidence, and poses (n, 17, 3) m in their axes, or None."""
        rgb = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        given = [None if image is None else image.to(self._device) for image in (rgb, flow, depth)]
        with fast_products():
            heatmaps, poses = self._network.model.estimate(*given)
        read = decode_udp if self._config.head == "2d" and self._config.heatmap_loss == "mse" else decode
        return read(heatmaps).cpu().numpy(), None if poses is None else poses.float().cpu().numpy()


def in_frame(keypoints, crop):
    """Return keypoints (17, 3) of a crop's heatmaps in px of the frame."""
    return np.concatenate([crop.back(keypoints[:, :2] + _FIRST_PIXEL), keypoints[:, 2:]], axis=1)
