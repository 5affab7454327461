"""Networks for pose in images that the benchmarks compare: MambaPose, and ViTPose of as many parameters."""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch

from lib.config import Config
from lib.engine.optimizers import OPTIMIZERS
from lib.errors import needing
from lib.model import MambaPose
from lib.task.heatmaps import STRIDE, mean_squared_error

USUAL = "vitpose-sdpa"  # transformers' default, that ratios are relative to
JOINTS = 17


class Network(NamedTuple):
    """label: for tables; ours: MambaPose or ViTPose; options: of its class; infers: whether inference differs too."""

    label: str
    ours: bool
    options: dict[str, Any]
    infers: bool = True


NETWORKS = {
    "vitpose-eager": Network("ViTPose, eager", False, {"attention": "eager"}),
    "vitpose-eager-checkpointed": Network(
        "ViTPose, eager, checkpointed", False, {"attention": "eager", "recompute": True}, infers=False
    ),
    USUAL: Network("ViTPose, SDPA", False, {}),
    "vitpose-sdpa-checkpointed": Network("ViTPose, SDPA, checkpointed", False, {"recompute": True}, infers=False),
    "vitpose-our-head": Network("ViTPose's backbone, our head", False, {"decoder": "linear"}),
    "vitpose-our-head-checkpointed": Network(
        "ViTPose's backbone, our head, checkpointed", False, {"decoder": "linear", "recompute": True}, infers=False
    ),
    "mambapose-plain": Network("MambaPose, plain", True, {"recompute": False}, infers=False),
    "mambapose": Network("MambaPose, recomputed", True, {}),
    "vim": Network("MambaPose vim, recomputed", True, {"encoder": "vim"}),
}


def build(network, size):
    """Return a network that sees RGB, of random weights; MambaPose without stochastic depth, which ViTPose lacks.

    Raises:
        UserError: transformers is not installed.
    """
    torch.manual_seed(0)
    if NETWORKS[network].ours:
        return MambaPose(size, streams=["rgb"], drop_path=0.0, **NETWORKS[network].options)
    with needing("ViTPose", "requirements-mambapose.txt"):
        from lib.model.vitpose.network import ViTPose
    return ViTPose(size, **NETWORKS[network].options)


class Training:
    """A step with AdamW on images (B, 3, H, W), in float32 or with autocast."""

    def __init__(self, model, amp):
        self.model, self.amp = model.train(), amp
        self.optimizer = OPTIMIZERS["adamw"](dict(model.named_parameters()), Config())

    def __call__(self, images):
        batch, _, height, width = images.shape
        targets = images.new_zeros(batch, JOINTS, height // STRIDE, width // STRIDE)
        self.optimizer.zero_grad()
        with _arithmetic(images.device, self.amp):
            heatmaps = self.model(images)
        mean_squared_error(heatmaps, targets, targets.new_ones(batch, JOINTS)).backward()
        self.optimizer.step()

    def state(self):
        """Return the tensors that there are between two steps, and gradients."""
        moments = (tensor for of_one in self.optimizer.state.values() for tensor in of_one.values())
        gradients = (p.grad for p in self.model.parameters() if p.grad is not None)
        return [*self.model.parameters(), *self.model.buffers(), *gradients, *moments]


class Inference:
    """Heatmaps of images (B, 3, H, W), in float32 or with autocast."""

    def __init__(self, model, amp):
        self.model, self.amp = model.eval(), amp

    def __call__(self, images):
        with torch.no_grad(), _arithmetic(images.device, self.amp):
            return self.model(images)

    def state(self):
        return [*self.model.parameters(), *self.model.buffers()]


PASSES: dict[str, type[Training] | type[Inference]] = {"training": Training, "inference": Inference}


def _arithmetic(device, amp):
    return torch.autocast(device.type, torch.bfloat16) if amp == "bf16" else nullcontext()
