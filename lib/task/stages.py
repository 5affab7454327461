"""What an epoch of training passes through: 2D data sets first, if the recipe has them, then the 3D clips."""

import logging
from typing import NamedTuple

import torch

from lib.data.datasets.sets_2d import SETS_2D
from lib.data.training_clips import (
    Shots,
    TrainingBatches,
    flip_half,
    network_input,
    training_clips,
    training_target,
    true_keypoints,
)
from lib.data.transforms import Augmenter
from lib.task.losses import pose_loss, weighted_2d

log = logging.getLogger(__name__)


class Lifting:
    """Learning 3D poses: the losses of `config.loss_weights`."""

    def __init__(self, config, augment):
        self.config, self.augment = config, augment

    def __call__(self, model, inputs, targets, device):
        """Clips (B, F, J, 2 or 3) and true poses (B, F, J, 3) -> the loss and its unweighted terms by name."""
        if self.config.synthetic:
            inputs = true_keypoints(targets)
        x, y = network_input(inputs, targets, self.config), training_target(targets, self.config)
        if self.config.flip:
            x, y = flip_half(x, y)
        return pose_loss(model(self.augment(x).to(device)), y.to(device), self.config.loss_weights)


class Reprojection:
    """Learning from 2D clips: x and y of the predicted pose are to be those seen, by confidence."""

    def __init__(self, config, augment, detected):
        self.config, self.augment, self.detected = config, augment, detected

    def __call__(self, model, inputs, targets, device):
        """Clips (B, F, J, 3), twice -> the loss, and no terms."""
        if self.config.flip:
            inputs, targets = flip_half(inputs, targets)
        predicted = model(self.augment(inputs, self.detected).to(device))
        seen = training_target(targets, self.config)
        return weighted_2d(predicted, seen.to(device), targets[..., 2:].to(device)), {}


class Viewing:
    """Learning 3D poses from views that are drawn as they are looked at (`lib.data.synthetic.random_views`)."""

    def __init__(self, config, views):
        self.config, self.views = config, views

    def __call__(self, model, first, last, device):
        """Shots' first and last rows (B,), (B,) -> the loss and its unweighted terms by name."""
        x, y = self.views(torch.stack([first, last], dim=1))
        x = network_input(x, y, self.config)
        return pose_loss(model(x.to(device)), y.to(device), self.config.loss_weights)


class Stage(NamedTuple):
    """name: what its loss is called in records, "" for the 3D clips; first: the first epoch (from 1) that passes it."""

    name: str
    batches: TrainingBatches
    learn: Lifting | Reprojection | Viewing
    first: int


def training_stages(config, reader):
    """The stages of a config, in order.

    Raises:
        UserError: a data set is missing or damaged.
    """
    if config.dataset == "views":
        log.info("training clips: %d shots of %s, in views drawn anew", len(reader.shots), reader.path)
        shots = TrainingBatches(Shots(reader.shots), config.batch_size)
        return [Stage("", shots, Viewing(config, reader.views), 1)]
    augment = Augmenter(config)
    dataset, origin = training_clips(config, reader)
    log.info("training clips: %s", origin)

    def batches(clips):
        return TrainingBatches(clips, config.batch_size, config.num_workers)

    stages = []
    for name in config.subset_list_2d if config.train_2d else ():
        clips, origin, detected = SETS_2D[name](config)
        first = config.pretrain_3d_curriculum + 1
        log.info("2D clips from epoch %d on: %s", first, origin)
        stages.append(Stage(f"2d_{name}", batches(clips), Reprojection(config, augment, detected), first))
    return [*stages, Stage("", batches(dataset), Lifting(config, augment), 1)]
