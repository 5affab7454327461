"""Learning from 2D clips alone: x and y of the predicted pose are to be those seen (arXiv 2210.06551)."""

from lib.data.loader import Loader
from lib.data.transforms import reprojection_transforms
from lib.task.base import Task
from lib.task.losses import weighted_2d


class Reprojection(Task):
    """The distance in x and y, weighted by confidence; not scored.

    Args:
        name: of the 2D data set.
        clips: its `lib.data.datasets.base.Clips2D`.
    """

    def __init__(self, config, name, clips):
        self.config, self.name, self._clips = config, f"2d_{name}", clips
        self.first = config.pretrain_3d_curriculum + 1
        self.origin = clips.origin

    def loaders(self, split, **sharing):
        transforms = reprojection_transforms(self.config, self._clips.detected)
        workers = self.config.num_workers
        return Loader(self._clips.clips, self.config.batch_size, transforms, workers=workers, **sharing)

    def loss(self, model, batch):
        return weighted_2d(model(batch["keypoints"]), batch["pose"], batch["confidence"]), {}
