"""The models that `backbone` can name: one entry each, read without PyTorch.

The module of a model's entry has

- `build(config)`: the untrained model;
- `config_of(parameters)`: the config keys that the shapes of its parameters tell; KeyError, ValueError or IndexError if
  they are another model's;
- `example(config, batch=1)`: a tuple of what it is called with: keypoints (batch, F, J, C), or images.
"""

from importlib import import_module
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from lib.errors import UserError, unknown
from lib.model.mambapose import sizes as mambapose
from lib.model.scan_orders import DISTINCT_ORDERS, LIMB_GRADIENTS, SCAN_ORDERS
from lib.model.vitpose import sizes as vitpose


class Key(NamedTuple):
    """A config key of one model alone."""

    type: Any
    default: Any
    choices: tuple | None = None


class Entry(NamedTuple):
    """Entry of the registry.

    module: the model's; keys: {name: `Key`}, beside those that models share; mark: how names of parameters begin that no
    other model has; task: what it is for, of `lib.task.TASKS`; variations: what an ablation compares, {key: value} each.
    """

    module: str
    keys: dict
    mark: str
    task: str = "lifting"
    variations: tuple = ()

    def load(self):
        return import_module(self.module)


Crop = Annotated[list[Annotated[int, Field(ge=16, multiple_of=16)]], Field(min_length=2, max_length=2)]

_OF_ATTENTION = {  # keys of every lifting model of attention blocks
    "dim_rep": Key(Annotated[int, Field(ge=1)], 512),
    "num_heads": Key(Annotated[int, Field(ge=1)], 8),
}

_OF_IMAGE_POSE = {  # keys of every model of this task
    "size": Key(str, "small", tuple(mambapose.SIZES)),
    "head": Key(str, "2d", mambapose.HEADS),
    "streams": Key(str, "+".join(mambapose.STREAMS), mambapose.STREAM_SETS),
    "crop": Key(Crop, [96, 128]),
    "recompute": Key(bool, True),
    "joints": Key(str, "coco17", ("coco17", "h36m17")),
    "heatmap_loss": Key(str, "softmax", ("softmax", "mse")),
}

MODELS = {
    "PoseMamba": Entry(
        "lib.model.posemamba",
        {
            "scan": Key(str, "v2_plus_poselimbs", tuple(SCAN_ORDERS)),
            "limb_gradient": Key(str, "straight_through", LIMB_GRADIENTS),
        },
        "STEblocks.",
        variations=tuple({"scan": order} for order in DISTINCT_ORDERS),
    ),
    "DSTformer": Entry("lib.model.dstformer", _OF_ATTENTION, "blocks_st."),
    "MotionAGFormer": Entry(
        "lib.model.motionagformer.network",
        {**_OF_ATTENTION, "neighbour_num": Key(Annotated[int, Field(ge=1)], 2)},
        "layers.0.att_spatial.",
    ),
    "MambaPose": Entry(
        "lib.model.mambapose.entry",
        {
            **_OF_IMAGE_POSE,
            "fusion": Key(str, "gated", mambapose.FUSIONS),
            "encoder": Key(str, "two_stage", mambapose.ENCODERS),
            "frames": Key(Annotated[int, Field(ge=1)], 1),
        },
        "heatmaps.",
        task="image_pose",
        variations=(*({"streams": streams} for streams in mambapose.STREAM_SETS), {"encoder": "vim"}),
    ),
    "ViTPose": Entry(
        "lib.model.vitpose.entry",
        {**_OF_IMAGE_POSE, "attention": Key(str, "sdpa", vitpose.ATTENTIONS)},
        "backbone.layernorm.",
        task="image_pose",
    ),
}


def model_of(name):
    """Return the module of a model.

    Raises:
        UserError: there is no such model.
    """
    if name not in MODELS:
        raise UserError(f"backbone: {unknown(name, MODELS)}")
    return MODELS[name].load()


def model_with(parameters):
    """Return the name of the model whose parameters {name: tensor} these seem to be, by their names; None: none's."""
    marks = {entry.mark: model for model, entry in MODELS.items()}
    return next((model for mark, model in marks.items() if any(name.startswith(mark) for name in parameters)), None)


def build_model(config):
    """Return the untrained model of a config."""
    return model_of(config.backbone).build(config)
