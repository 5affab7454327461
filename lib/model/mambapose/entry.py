"""MambaPose in the registry of models."""

import torch

from lib.model.mambapose.fusion import CHANNELS, CUES
from lib.model.mambapose.inputs import IMAGE_CHANNELS
from lib.model.mambapose.network import MambaPose
from lib.model.mambapose.sizes import SIZES, STREAM_SETS
from lib.model.weights import count_blocks

CELLS = 16  # of a heatmap below a token of the stride 16
GROWS = {"head": ("2d", "3d", "pose.")}  # a head for joints in space on a network that was trained for heatmaps
EXAMPLE = (256, 192)  # height and width, px


def build(config):
    """Return the untrained model of a config."""
    return MambaPose(
        size=config.size,
        head=config.head,
        joints=config.num_joints,
        streams=config.streams.split("+"),
        fusion=config.fusion,
        encoder=config.encoder,
        frames=config.frames,
        drop_path=config.drop_path,
        recompute=config.recompute,
    )


def config_of(parameters):
    """Return the config keys that the shapes of a MambaPose's parameters {name: tensor} tell; not a clip's length.

    Raises:
        KeyError, ValueError, IndexError: they are not a MambaPose's.
    """
    found = {
        **_encoder_of(parameters),
        **_fusion_of(parameters),
        "head": "3d" if "pose.embed.weight" in parameters else "2d",
        "num_joints": max(len(v) for name, v in parameters.items() if name.startswith("heatmaps.")) // CELLS,
    }
    return found if "time.norm.weight" in parameters else found | {"frames": 1}


def _encoder_of(parameters):
    if "encoder.norm.weight" in parameters:
        encoder = "vim"
        known: dict[tuple, str] = {size.vim: name for name, size in SIZES.items()}
        shape: tuple = len(parameters["encoder.norm.weight"]), count_blocks(parameters, "encoder.blocks.")
    else:
        encoder = "two_stage"
        known = {(size.channels, size.blocks): name for name, size in SIZES.items()}
        channels = tuple(len(parameters[f"encoder.norm{stage}.weight"]) for stage in (1, 2))
        shape = channels, tuple(count_blocks(parameters, f"encoder.stage{stage}.") for stage in (1, 2))
    if shape not in known:
        raise ValueError(f"no size has channels and blocks {shape}")
    return {"encoder": encoder, "size": known[shape]}


def _fusion_of(parameters):
    if "fusion.stem.0.weight" in parameters:
        seen = parameters["fusion.stem.0.weight"].shape[1]
        (streams,) = [s for s in STREAM_SETS if seen == sum(CHANNELS[stream] for stream in s.split("+"))]
        return {"fusion": "early", "streams": streams}
    cues = [cue for cue in CUES if f"fusion.cues.{cue}.gate.weight" in parameters]
    return {"fusion": "gated", "streams": "+".join(["rgb", *cues])}


def example(config, batch=1):
    """Return images of zeros for every stream, of 256 x 192 px (height x width), in a tuple; None for other streams."""
    return tuple(
        torch.zeros(batch * config.frames, channels, *EXAMPLE) if stream in config.streams.split("+") else None
        for stream, channels in IMAGE_CHANNELS.items()
    )
