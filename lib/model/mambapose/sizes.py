"""The sizes of MambaPose and the words of its config keys: data, read without PyTorch."""

from typing import NamedTuple


class Size(NamedTuple):
    """channels, blocks: of the stages at strides 8 and 16 of the encoder `two_stage`; vim: channels and blocks of `vim`.

    drop_path: stochastic depth of the last block.
    """

    channels: tuple[int, int]
    blocks: tuple[int, int]
    vim: tuple[int, int]
    drop_path: float


SIZES = {
    "nano": Size((48, 96), (2, 6), (96, 9), 0.0),
    "tiny": Size((96, 192), (2, 8), (192, 13), 0.1),
    "small": Size((192, 384), (2, 14), (384, 23), 0.1),  # as large as ViTPose-S, 24.3 M
    "base": Size((384, 768), (2, 13), (768, 23), 0.3),  # as large as ViTPose-B, 90.0 M
}
HEADS = ("2d", "3d")
STREAMS = ("rgb", "flow", "depth")
STREAM_SETS = ("rgb", "rgb+flow", "rgb+depth", "rgb+flow+depth")
FUSIONS = ("gated", "early")
ENCODERS = ("two_stage", "vim")
