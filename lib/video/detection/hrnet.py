"""HRNet-W48 with its published COCO weights, on people found by torchvision's Faster R-CNN.

Crop, heatmaps and decoding are those of Sun et al., "Deep High-Resolution Representation Learning for Human Pose
Estimation" (CVPR 2019); the mirrored second pass of its evaluation is left out.
"""

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch.nn import functional
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

from lib.body.layouts import to_h36m
from lib.errors import UserError, describe
from lib.files import require_file
from lib.video.detection import Detection, Detector

SIZES = ((384, 288), (256, 192))  # (height, width) of the published models' pictures, px; named so in their files
PADDING = 1.25  # the crop is this much larger than the person's box
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PERSON = 1  # torchvision's class
PUBLISHED = "https://github.com/leoxiaobin/deep-high-resolution-net.pytorch (pose_coco/pose_hrnet_w48_384x288.pth)"


def pose_network():
    """timm's HRNet with the published model's last layer, `final_layer`; its parameters have the published names."""
    network = timm.create_model("hrnet_w48", features_only=True, feature_location="", out_indices=(1,))
    stages: Any = network
    last = stages.stage4[-1]
    last.fuse_layers = last.fuse_layers[:1]  # only the finest branch goes on
    network.final_layer = torch.nn.Conv2d(48, 17, 1)
    return network


class HRNet(Detector):
    """People by torchvision, their joints by HRNet.

    Args:
        det_model: file of the weights of torchvision's fasterrcnn_mobilenet_v3_large_fpn (or ..._320_fpn); None:
            torchvision fetches them.
        pose_model: file of a published HRNet-W48; pictures are 256 x 192 px if its name says so, else 384 x 288.
        score: of a person, from which on one counts, 0 to 1.
        device: torch's.

    Raises:
        UserError: a file is missing or holds other weights, or weights cannot be fetched.
    """

    def __init__(self, det_model=None, pose_model=None, score=0.5, device="cpu"):
        if pose_model is None:
            raise UserError(
                f"HRNet's weights cannot be fetched by themselves: pass --pose-model FILE, from {PUBLISHED}"
            )
        self.score, self.device = score, device
        self.size = next((size for size in SIZES if "{}x{}".format(*size) in Path(pose_model).name), SIZES[0])
        self.pose = pose_network()
        load_strictly(self.pose, pose_model, "HRNet-W48")
        self.people = _person_detector(det_model)
        for model in (self.pose, self.people):
            model.to(device).eval()

    @torch.inference_mode()
    def detect(self, frame, seconds, number):
        picture = torch.tensor(frame, device=self.device).permute(2, 0, 1).float() / 255
        found = self.people([picture])[0]
        people = (found["labels"] == PERSON) & (found["scores"] >= self.score)
        boxes, scores = found["boxes"][people], found["scores"][people].tolist()
        if not scores:
            return []
        regions = padded(boxes, self.size)
        (finest,) = self.pose(crops(picture, regions, self.size))
        heatmaps = self.pose.final_layer(finest)
        keypoints = to_h36m(decode(heatmaps, regions).cpu().numpy(), "coco17")
        return [Detection(*person) for person in zip(keypoints, boxes.cpu().numpy().astype(np.float32), scores)]


def padded(boxes, size):
    """Boxes (n, 4) x0 y0 x1 y1 -> regions (n, 4) x y width height, centred, of the shape of `size` (height, width)."""
    centres, (width, height) = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).T
    width = torch.maximum(width, height * size[1] / size[0])
    return torch.cat([centres, torch.stack([width, width * size[0] / size[1]], dim=1) * PADDING], dim=1)


def crops(picture, regions, size):
    """The regions (n, 4) of a picture (3, H, W), 0 to 1, normalised, (n, 3, *size); black beyond the picture."""
    height, width = size
    limits = torch.tensor(picture.shape[:0:-1], device=picture.device)  # width, height
    steps = torch.meshgrid(
        torch.arange(width, device=picture.device) / width - 0.5,
        torch.arange(height, device=picture.device) / height - 0.5,
        indexing="xy",
    )
    places = regions[:, None, None, :2] + torch.stack(steps, dim=-1) * regions[:, None, None, 2:]
    grid = (places * 2 + 1) / limits - 1
    cut = functional.grid_sample(picture.expand(len(regions), -1, -1, -1), grid, align_corners=False)
    mean, std = (torch.tensor(values, device=picture.device)[:, None, None] for values in (MEAN, STD))
    return (cut - mean) / std


def decode(heatmaps, regions):
    """Each heatmap's highest place, a quarter of a cell towards its higher neighbours.

    Args:
        heatmaps: (n, K, h, w).
        regions: (n, 4) x y width height of the heatmaps in the frame, px.

    Returns:
        (n, K, 3): x, y in px of the frame, and the height there.
    """
    h, w = heatmaps.shape[2:]
    top, index = heatmaps.flatten(2).max(dim=2)
    index = index * (top > 0)  # as published: the corner where nothing is above 0
    x, y = index % w, index // w
    inner = (x > 1) & (x < w - 1) & (y > 1) & (y < h - 1)  # as published: no shift at the edges
    around = functional.pad(heatmaps, (1, 1, 1, 1)).flatten(2)
    place = (y + 1) * (w + 2) + x + 1

    def rise(step):
        return around.gather(2, (place + step)[..., None])[..., 0] - around.gather(2, (place - step)[..., None])[..., 0]

    shift = torch.stack([rise(1), rise(w + 2)], dim=-1).sign() * 0.25 * inner[..., None]
    cells = (torch.stack([x, y], dim=-1) + shift) / torch.tensor([w, h], device=top.device)
    return torch.cat([regions[:, None, :2] + (cells - 0.5) * regions[:, None, 2:], top[..., None]], dim=-1)


def load_strictly(model, path, what):
    """Gives `model` the weights in a file that has all of them and no others.

    Raises:
        UserError: the file is missing or unreadable, or a tensor is missing, of another shape or too many; names it.
    """
    path = require_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    except Exception as error:  # pickle's, zipfile's and torch's have no common base
        raise UserError(f"{path}: cannot be read as PyTorch weights; a file of tensors only is needed") from error
    needed = {name: t for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name, tensor in needed.items():
        if name not in state:
            raise UserError(f"{path}: holds no weights of {what}: {name} is missing")
        if state[name].shape != tensor.shape:
            shapes = f"{tuple(state[name].shape)}, {tuple(tensor.shape)} is needed"
            raise UserError(f"{path}: holds no weights of {what}: {name} is {shapes}")
    for name in state:
        if name not in needed:
            raise UserError(f"{path}: holds no weights of {what}: {name} is too many")
    model.load_state_dict(state, strict=False)


def _person_detector(path):
    if path is not None:
        model = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None)
        load_strictly(model, path, "fasterrcnn_mobilenet_v3_large_fpn")
        return model
    try:
        return fasterrcnn_mobilenet_v3_large_fpn(weights="DEFAULT")
    except (OSError, RuntimeError) as error:  # no network; a download that is cut short
        raise UserError(
            f"the person detector cannot be fetched ({describe(error)}); without network pass --det-model FILE"
        ) from error
