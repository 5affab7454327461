"""Lifting: from the 2D keypoints of a clip to the 3D joints of every frame."""

import torch

from lib.body.skeleton import ROOT
from lib.data.loader import Loader
from lib.data.transforms import lifting_transforms, scoring_transforms
from lib.eval import PROTOCOLS, plots
from lib.eval.baselines import linear_predictions, mean_pose_predictions
from lib.model.inference import infer
from lib.task.base import Task
from lib.task.losses import pose_loss


def lifting(config):
    """Return the class of lifting, whatever the config."""
    return Lifting


class Lifting(Task):
    """Learning 3D poses by the losses of `config.loss_weights`, scored by the data set's protocol.

    Args:
        dataset: a `lib.data.datasets.base.Dataset`.
    """

    curves = ({"mpjpe": "P1 (MPJPE)", "p_mpjpe": "P2 (P-MPJPE)"}, "mm")
    chosen_by = "P1"

    def __init__(self, config, dataset):
        self.config, self.dataset = config, dataset
        self._protocol = PROTOCOLS[dataset.protocol]

    def loaders(self, split, **sharing):
        config = self.config
        if split == "test":
            _, clips = self.dataset.get_split_id()
            keys = ("keypoints", "pose") if config.gt_2d else ("keypoints",)
            transforms = scoring_transforms(config)
            return Loader(
                _TestClips(self.dataset, clips, keys), config.batch_size, transforms, shuffle=False, **sharing
            )
        clips, self.origin, first, mirrored = self.dataset.training_clips(config)
        transforms = [*first, *lifting_transforms(config, mirrored)]
        return Loader(clips, config.batch_size, transforms, workers=config.num_workers, **sharing)

    def loss(self, model, batch):
        return pose_loss(model(batch["keypoints"]), batch["pose"], self.config.loss_weights)

    def predict(self, model, batch):
        """Return normalised poses (b, F, 17, 3), averaged with those of the mirror image if `flip_test`."""
        x = batch["keypoints"]
        y = infer(model, x, self.config).float()
        if self.config.rootrel:
            y[:, :, ROOT] = 0
        if self.config.gt_2d:
            y[..., :2] = x[..., :2]
        return y

    def evaluate(self, predictions):
        return self._protocol(predictions, self.dataset, self.config.rootrel and not self.config.gt_2d)

    def baselines(self):
        """Return the `Scores` of the mean training pose, and of a linear regression."""
        found = {"mean_pose": mean_pose_predictions, "linear": linear_predictions}
        return {name: self._protocol(predicted(self.dataset), self.dataset) for name, predicted in found.items()}

    def draw(self, predictions, scores, others, folder):
        paths = [folder / "per_action.png", folder / "skeletons.png"]
        plots.per_action(scores, others, paths[0])
        plots.skeletons(predictions, self.dataset, paths[1])
        return paths


class _TestClips:
    """The test clips (k, F) of a data set: a list of numbers -> the keys of their frames."""

    def __init__(self, dataset, clips, keys):
        self.dataset, self.clips, self.keys = dataset, clips, keys

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, indices):
        index = self.clips[indices]
        return {key: torch.from_numpy(self.dataset.frames("test", key, index)) for key in self.keys}
