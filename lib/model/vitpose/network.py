"""ViTPose of transformers, randomly initialised, called and answering as MambaPose is."""

from typing import Any

from einops import rearrange
from torch import nn
from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation
from transformers.models.vitpose_backbone.modeling_vitpose_backbone import VitPoseBackboneEmbeddings

from lib.model.hub import Pretrained
from lib.model.mambapose.fusion import prepared
from lib.model.mambapose.heads import HeatmapHead, PoseHead
from lib.model.mambapose.inputs import STRIDE, refuse_wrong_images
from lib.model.mambapose.positions import GRID, on_grid
from lib.model.vitpose.sizes import SIZES


class ViTPose(Pretrained):
    """Vision transformer over patches of 16 x 16 px, with ViTPose's decoder for heatmaps; sees RGB alone.

    Args:
        size: a key of `lib.model.vitpose.sizes.SIZES`.
        head: "2d" gives heatmaps, "3d" joints in space, by MambaPose's head on the tokens and heatmaps.
        joints: J.
        attention: "sdpa" or "eager".
        recompute: in training, compute blocks again in the backward pass instead of keeping what is within them.
        decoder: a key of `lib.model.vitpose.sizes.DECODERS`; None: that of the size.
    """

    streams = ("rgb",)

    def __init__(self, size="small", head="2d", joints=17, attention="sdpa", recompute=False, decoder=None):
        super().__init__()
        channels, decoder = SIZES[size].channels, decoder or SIZES[size].decoder
        network = _pose_estimation(SIZES[size], joints, attention, decoder)
        self.backbone = network.backbone
        if recompute:
            _checkpoint(network)
        self.decoder = _Linear(channels, joints) if decoder == "linear" else network.head
        self.pose = PoseHead((channels,), joints, frames=1, width=channels // 2) if head == "3d" else None

    def forward(self, rgb, flow=None, depth=None, both=False):
        """Return heatmaps, or joints, as `lib.model.MambaPose` does; flow and depth have to be None."""
        refuse_wrong_images(self.streams, rgb=rgb, flow=flow, depth=depth)
        tokens = self.backbone(prepared("rgb", rgb)).feature_maps[-1]
        grid = rearrange(tokens, "b (h w) c -> b c h w", h=rgb.shape[2] // STRIDE)
        heatmaps = self.decoder(grid.contiguous())
        if self.pose is None:
            return heatmaps
        pose = self.pose([rearrange(grid, "b c h w -> b h w c")], heatmaps)
        return (pose, heatmaps) if both else pose


def _pose_estimation(size, joints, attention, decoder):
    """Return transformers' whole network, whose configuration asks for the last block and for one kind of attention."""
    last: Any = {"out_indices": [size.blocks]}  # these are keys of every configuration, and unknown to mypy
    maps: Any = {"num_labels": joints}
    backbone = VitPoseBackboneConfig(
        image_size=tuple(STRIDE * cells for cells in GRID),
        patch_size=(STRIDE, STRIDE),
        hidden_size=size.channels,
        num_hidden_layers=size.blocks,
        num_attention_heads=size.heads,
        **last,
    )
    config = VitPoseConfig(backbone_config=backbone, use_simple_decoder=decoder != "classic", **maps)
    network = VitPoseForPoseEstimation._from_config(config, attn_implementation={"backbone_config": attention})
    embeddings = _Embeddings(backbone)
    embeddings.load_state_dict(network.backbone.embeddings.state_dict())
    network.backbone.embeddings = embeddings
    return network


def _checkpoint(network):
    """Let transformers recompute each block; version 5.24 gave the method another name."""
    enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
    enable({"use_reentrant": False})


class _Embeddings(VitPoseBackboneEmbeddings):
    """Patches and positions of images of any size that 16 divides: positions are bilinear between those of `GRID`."""

    def forward(self, pixel_values):
        patches = self.patch_embeddings.projection(pixel_values)
        of_all, of_cells = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        cells = on_grid(of_cells.unflatten(1, GRID), patches.shape[2:])
        return self.dropout(patches.flatten(2).mT + cells.flatten(1, 2) + of_all)


class _Linear(nn.Module):
    """MambaPose's head for heatmaps on a grid of tokens (B, C, h, w)."""

    def __init__(self, channels, joints):
        super().__init__()
        self.heatmaps = HeatmapHead((channels,), joints)

    def forward(self, grid):
        return self.heatmaps([rearrange(grid, "b c h w -> b h w c")])
