"""Pose in images: from the crop of a person, and cues, to keypoints in it or to joints in space."""

from functools import cached_property

import numpy as np
import torch

from lib.body.layouts import LAYOUTS
from lib.body.skeleton import flip, limb_vectors, mirrored_order
from lib.data.image_transforms import (
    JOINT_KEYS,
    KEYS,
    degrade_cues,
    input_transforms,
    normalise_depth,
)
from lib.data.loader import Loader
from lib.errors import UserError
from lib.eval import KEYPOINT_SCORERS, plots
from lib.eval.image_poses import evaluate_image_poses
from lib.eval.keypoints_2d import MISSED
from lib.task.base import Task
from lib.task.heatmaps import (
    decode,
    decode_udp,
    heatmap_targets,
    mean_squared_error,
    softmax_cross_entropy,
    udp_targets,
)

_SAMPLE = 2000  # training crops that the mean pose is of
_LIMBS = 0.1  # weight of the error of limb lengths
_HEATMAPS = 0.05  # weight of the heatmaps' cross-entropy, some 4, beside errors in m, some 0.2


def image_pose(config):
    """Return the class of the task that `config.head` asks for.

    Raises:
        UserError: the head has other joints than the config.
    """
    if config.head == "3d" and config.joints != "h36m17":
        raise UserError(f"joints: {config.joints}: head 3d has those of Human3.6M; set joints: h36m17")
    return {"2d": Keypoints, "3d": Joints}[config.head]


class ImagePose(Task):
    """Base class of learning keypoints and of learning joints in space.

    Args:
        dataset: has `crops(split, keys)`, a map-style data set as `lib.data.datasets.rendered.RenderedPeople` is.
    """

    truth: str  # key of a batch that is predicted
    missed: tuple  # prediction of a joint of an image that could not be read

    def __init__(self, config, dataset):
        self.config, self.dataset = config, dataset
        self.streams = config.streams.split("+")

    def loaders(self, split, **sharing):
        crops = self._crops(split)
        transforms = input_transforms(self.config.joints)
        if split == "test":
            transforms.append(normalise_depth)
            return Loader(crops, self.config.batch_size, transforms, shuffle=False, **sharing)
        self._check_crop()
        self.origin = f"{len(crops)} crops of {self.dataset.path}"
        transforms += [*self.dataset.training_transforms(self.config.joints), normalise_depth, degrade_cues]
        return Loader(crops, self.config.batch_size, transforms, workers=self.config.num_workers, **sharing)

    def _check_crop(self):
        """Raise UserError if the config, which the trained network's user cuts crops by, has another size of crops."""
        width, height = self.dataset.size
        if [width, height] != self.config.crop:
            raise UserError(
                f"crop: {self.config.crop}: the crops of {self.dataset.path} have {width} x {height} px; "
                f'set "crop=[{width}, {height}]"'
            )

    def _crops(self, split, images=True):
        keys = [KEYS[stream] for stream in self.streams] if images else []
        pose = ["pose"] if self.config.head == "3d" else []
        return self.dataset.crops(split, [*keys, JOINT_KEYS[self.config.joints], *pose])

    def _images(self, batch):
        return [batch.get(key) if stream in self.streams else None for stream, key in KEYS.items()]

    def _truth(self, split, count=None):
        """Return what is to be predicted of a split, NumPy, as the network predicts it."""
        batch = self._crops(split, images=False)[slice(count)]
        return input_transforms(self.config.joints)[0](batch)[self.truth].numpy()

    def predict(self, model, batch):
        found = self._predict(model, batch)
        if "unread" in batch:
            found[batch["unread"]] = torch.tensor(self.missed, device=found.device)
        return found

    def _predict(self, model, batch):
        """Return what `predict` does, without regard to images that could not be read."""
        raise NotImplementedError

    def _mirrored_too(self, predict, images, back):
        """Return predict(images), averaged with what `back` makes of the mirror image's, if `flip_test`."""
        found = predict(images)
        if not self.config.averages_flips:
            return found
        rgb, flow, depth = (None if image is None else image.flip(-1) for image in images)
        if flow is not None:
            flow = flow * torch.tensor([-1.0, 1.0], device=flow.device)[:, None, None]
        return (found + back(predict([rgb, flow, depth]))) / 2

    @cached_property
    def known(self):
        """What is to be predicted of the test split: read once, scored after every epoch."""
        return self._truth("test")

    def baselines(self):
        if not self.dataset.baseline_split:
            return {}
        mean = self._mean(self._truth(self.dataset.baseline_split, _SAMPLE))
        return {"mean_pose": self.evaluate(np.repeat(mean[None], len(self.known), 0))}

    def _mean(self, truth):
        return truth.mean(0)


class Keypoints(ImagePose):
    """Learning heatmaps of keypoints, scored by PCK (of the crop's height) and, for COCO's joints, by AP."""

    truth, missed = "keypoints", MISSED
    curves = ({"pck_0.05": "PCK, 5 % of the crop", "pck_0.1": "10 %", "oks_ap": "AP (OKS)"}, "share")

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.scorer = KEYPOINT_SCORERS[dataset.protocol](dataset, config.joints)
        self.chosen_by = self.scorer.chosen_by

    def loss(self, model, batch):
        heatmaps, keypoints = model(*self._images(batch)), batch["keypoints"]
        weight = (keypoints[..., 2] > 0).float()
        size = batch["image"].shape[2:]
        if self.config.heatmap_loss == "mse":
            return mean_squared_error(heatmaps, udp_targets(keypoints, size), weight), {}
        return softmax_cross_entropy(heatmaps, heatmap_targets(keypoints, size), weight), {}

    def _predict(self, model, batch):
        """Return keypoints (b, 17, 3): x, y in px of the crop, confidence."""
        order = list(mirrored_order(LAYOUTS[self.config.joints]))
        heatmaps = self._mirrored_too(
            lambda images: model(*images).float(), self._images(batch), lambda found: found.flip(-1)[:, order]
        )
        return decode_udp(heatmaps) if self.config.heatmap_loss == "mse" else decode(heatmaps)

    def evaluate(self, predictions):
        return self.scorer.score(predictions, self.known)

    def _mean(self, truth):
        labelled = truth[..., 2:] > 0
        places = (truth[..., :2] * labelled).sum(0) / labelled.sum(0).clip(1)
        return np.concatenate([places, np.ones_like(places[:, :1])], -1)

    def draw(self, predictions, scores, others, folder):
        images = self.dataset.crops("test", ["image"])[: plots.CROPS]["image"].permute(0, 2, 3, 1).numpy()
        path = folder / "keypoints.png"
        plots.keypoints(images, predictions[: plots.CROPS], LAYOUTS[self.config.joints], path)
        return [path, *self.scorer.write(predictions, folder)]


class Joints(ImagePose):
    """Learning joints in space, relative to the pelvis, in m of a body of standard size, by way of heatmaps."""

    truth, missed = "pose", (0.0, 0.0, 0.0)  # all joints at the pelvis
    curves = ({"mpjpe": "P1 (MPJPE)", "p_mpjpe": "P2 (P-MPJPE)"}, "mm")
    chosen_by = "P1"

    def loss(self, model, batch):
        pose, heatmaps = model(*self._images(batch), True)
        target, keypoints = batch["pose"], batch["keypoints"]
        weight = (keypoints[..., 2] > 0).float()
        joints = (pose - target).abs().sum(-1).mean()
        limbs = (limb_vectors(pose).norm(dim=-1) - limb_vectors(target).norm(dim=-1)).abs().mean()
        heat = softmax_cross_entropy(heatmaps, heatmap_targets(keypoints, batch["image"].shape[2:]), weight)
        terms = {"joints": joints.detach(), "limbs": limbs.detach(), "heatmaps": heat.detach()}
        return joints + _LIMBS * limbs + _HEATMAPS * heat, terms

    def _predict(self, model, batch):
        """Return joints (b, 17, 3), m."""
        return self._mirrored_too(lambda images: model(*images).float(), self._images(batch), flip)

    def evaluate(self, predictions):
        return evaluate_image_poses(predictions, self.known)
