"""The sizes of ViTPose and the words of its config keys: data, read without PyTorch."""

from typing import NamedTuple


class Size(NamedTuple):
    """channels, blocks, heads: of the vision transformer; decoder: a key of `DECODERS`."""

    channels: int
    blocks: int
    heads: int
    decoder: str


SIZES = {  # as many parameters as MambaPose's of the same name, within 5 %
    "nano": Size(96, 7, 3, "simple"),
    "tiny": Size(160, 12, 5, "simple"),
    "small": Size(384, 12, 6, "classic"),  # as published
    "base": Size(768, 12, 12, "classic"),  # as published
}
DECODERS = {
    "classic": "two transposed convolutions, then one of 1x1",
    "simple": "ReLU, four times as large, one convolution of 3x3",
    "linear": "MambaPose's: a Linear layer and a rearrangement",
}
ATTENTIONS = ("sdpa", "eager")  # PyTorch's fused one; by products of matrices, as published
