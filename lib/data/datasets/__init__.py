"""Registry of the data sets that a config can name (`dataset`, `subset_list_2d`); their modules are imported when used."""

from typing import Any, NamedTuple

from lib.errors import UserError, needing
from lib.model.registry import MODELS
from lib.registry import Registry, load

AMASS = "AMASS"  # in `subset_list`: motion without 2D detections


class Entry(NamedTuple):
    """Entry of the registry.

    place: "module:class" of a `lib.data.datasets.base.Dataset`.
    fixed: {config key: the only value that the data allow}; unused: keys without effect; own: keys of these data alone.
    task: what is learned from them, a key of `lib.task.TASKS`; requirements: file of the packages that they need.
    """

    place: str
    fixed: dict = {}
    unused: tuple = ()
    own: tuple = ()
    task: str = "lifting"
    requirements: str = "requirements.txt"

    def load(self):
        """Return the class.

        Raises:
            UserError: a package is not installed that it needs.
        """
        with needing(self.place.rpartition(":")[2], self.requirements):
            return load(self.place)


_IMAGES: Any = {"task": "image_pose", "requirements": "requirements-mambapose.txt"}
_IN_METRES = {"gt_2d": False, "synthetic": False, "train_2d": False, "rootrel": True}

DATASETS = {
    "h36m": Entry("lib.data.datasets.h36m:DataReaderH36M"),
    "3dhp": Entry("lib.data.datasets.mpi_inf_3dhp:DataReader3DHP", fixed=_IN_METRES, own=("middle_frame",)),
    "views": Entry(
        "lib.data.datasets.random_views:RandomViews",
        fixed=_IN_METRES,
        unused=("sample_stride", "num_workers"),
        own=("motion_files", "held_back"),
    ),
    "rendered": Entry("lib.data.datasets.rendered:RenderedSet", fixed=_IN_METRES, **_IMAGES),
    "coco": Entry(
        "lib.data.datasets.coco:CocoKeypoints",
        unused=("gt_2d", "synthetic", "train_2d"),
        own=("detections",),
        **_IMAGES,
    ),
    "h36m_images": Entry("lib.data.datasets.h36m_images:HumanImages", fixed=_IN_METRES, **_IMAGES),
}

OWN_KEYS = {key: [name for name, entry in DATASETS.items() if key in entry.own] for key in
            (key for entry in DATASETS.values() for key in entry.own)}  # fmt: skip

SETS_2D = Registry(  # functions config -> `lib.data.datasets.base.Clips2D`, in the published order
    "subset_list_2d",
    {
        "PoseTrack18": "lib.data.datasets.posetrack:open_clips",
        "InstaVariety": "lib.data.datasets.instavariety:open_clips",
    },
)


def open_dataset(config):
    """Return the `Dataset` of a config.

    Raises:
        UserError: the data are missing or damaged, are not what the model is for, or no test source gives a clip.
    """
    entry, model = DATASETS[config.dataset], MODELS[config.backbone]
    if entry.task != model.task:
        fitting = " or ".join(name for name, other in DATASETS.items() if other.task == model.task)
        raise UserError(f"dataset: {config.dataset} is not for backbone {config.backbone}; set dataset: {fitting}")
    dataset = entry.load().open(config)
    dataset.refuse_empty(config)
    return dataset
