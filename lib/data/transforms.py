"""Transforms of a batch before the network: one ordered list of functions, batch -> batch.

A batch is a dict of tensors (B, ...); lifting has "keypoints" (B, F, J, 2 or 3) and, in training, "pose" (B, F, J, 3),
both normalised. All random draws are from torch's global generator, in the process that trains.
"""

import torch

from lib.body.skeleton import ROOT, flip, root_relative
from lib.data.detection_noise import DetectionNoise

CLIPS = ("keypoints", "pose")  # keys of a batch that have joints on their third axis


def lifting_transforms(config, mirrored=False):
    """Return the transforms of a training batch of clips with true poses.

    mirrored: whether half of the clips are mirrored already.
    """
    return [
        *([use_true_keypoints] if config.synthetic or config.gt_2d else []),
        *([flip_half] if config.flip and not mirrored else []),
        Target(config.rootrel),
        *([drop_confidence] if config.no_conf else []),
        *input_errors(config),
    ]


def reprojection_transforms(config, detected):
    """Return the transforms of a training batch of 2D clips, which are their own target.

    detected: whether their keypoints have a detector's errors already.
    """
    return [
        *([flip_half] if config.flip else []),
        keep_confidence,
        Target(config.rootrel),
        *input_errors(config, detected),
    ]


def scoring_transforms(config):
    """Return the transforms of a test batch."""
    return [
        *([use_true_keypoints] if config.gt_2d else []),
        *([drop_confidence] if config.no_conf else []),
    ]


def input_errors(config, detected=False):
    """Return the noise and masks that a config switches on (`noise`, `mask_ratio`, `mask_T_ratio`)."""
    noise = [Noise(config.noise_path)] if config.noise and not detected else []
    masks = [Mask(config.mask_ratio, config.mask_T_ratio)] if config.mask_ratio or config.mask_T_ratio else []
    return noise + masks


def true_keypoints(poses):
    """Return where a perfect detector finds poses (..., J, 3): their x and y, with confidence 1."""
    return torch.cat([poses[..., :2], torch.ones_like(poses[..., :1])], dim=-1)


def use_true_keypoints(batch):
    """Put the true 2D positions in place of the detections."""
    return batch | {"keypoints": true_keypoints(batch["pose"])}


def drop_confidence(batch):
    """Leave the third channel of the keypoints out."""
    return batch | {"keypoints": batch["keypoints"][..., :2]}


def keep_confidence(batch):
    """Keep the confidence of the target, which weighs its error, as "confidence" (B, F, J, 1)."""
    return batch | {"confidence": batch["pose"][..., 2:]}


def flip_half(batch):
    """Mirror each clip of a batch with probability 0.5, keypoints and pose alike."""
    clips = {key: batch[key] for key in CLIPS}
    chosen = (torch.rand(len(clips["keypoints"])) < 0.5)[:, None, None, None]
    return batch | {key: torch.where(chosen, flip(value), value) for key, value in clips.items()}


class Target:
    """Transform of poses (B, F, J, 3) to the network's target: root-relative, or with depth from the first root."""

    def __init__(self, rootrel):
        self.rootrel = rootrel

    def __call__(self, batch):
        return batch | {"pose": training_target(batch["pose"], self.rootrel)}


def training_target(poses, rootrel=True):
    """Return poses (B, F, J, 3) relative to their root, or, not `rootrel`, with depth from the root of the first frame."""
    if rootrel:
        return root_relative(poses)
    depth = poses[..., 2:] - poses[:, :1, ROOT, None, 2:]
    return torch.cat([poses[..., :2], depth], dim=-1)


class Noise:
    """Transform that adds a detector's errors to the keypoints (lib/data/detection_noise.py)."""

    def __init__(self, path):
        self.noise = DetectionNoise(path)

    def __call__(self, batch):
        return batch | {"keypoints": self.noise(batch["keypoints"])}


class Mask:
    """Transform that sets a share of joints, and of whole frames, to 0 in every channel."""

    def __init__(self, joint_ratio, frame_ratio):
        self.joint_ratio, self.frame_ratio = joint_ratio, frame_ratio

    def __call__(self, batch):
        return batch | {"keypoints": mask(batch["keypoints"], self.joint_ratio, self.frame_ratio)}


def mask(keypoints, joint_ratio, frame_ratio):
    """Return keypoints (B, F, J, C) of which a share of joints, and of whole frames, is 0 in every channel.

    Each joint of each frame is masked with probability `joint_ratio`, each frame of each clip with `frame_ratio`.
    """
    shape = keypoints.shape
    if joint_ratio:
        keypoints = keypoints * (torch.rand(*shape[:3], 1) >= joint_ratio)
    if frame_ratio:
        keypoints = keypoints * (torch.rand(*shape[:2], 1, 1) >= frame_ratio)
    return keypoints
