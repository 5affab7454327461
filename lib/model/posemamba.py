"""PoseMamba (arXiv 2408.03540): from 2D keypoints of a clip to 3D joints of every frame."""

from functools import partial

import torch
from torch import nn

from lib.model.bistssm import BiSTSSMBlock
from lib.model.hub import Pretrained
from lib.model.keypoints import example, refuse_wrong_keypoints
from lib.model.weights import count_blocks

__all__ = ["PoseMamba", "build", "config_of", "example"]


class PoseMamba(Pretrained):
    """Alternating spatial and temporal state space blocks over a (frame, joint) grid.

    Parameter names and shapes are those of the published implementation, so its checkpoints load with
    `strict=True`.

    Args:
        num_frame: the longest clip, in frames; shorter ones are legal.
        num_joints: J.
        in_chans: channels of a keypoint: 2, or 3 with confidence.
        embed_dim_ratio: C, features per joint (`dim_feat` in a config).
        depth: pairs of spatial and temporal blocks.
        mlp_ratio: width of a block's MLP, in units of C.
        drop_rate: dropout after the position embeddings.
        drop_path_rate: stochastic depth of the last pair; earlier ones grow linearly from 0.
        norm_layer: norm of blocks and between them; LayerNorm with eps 1e-6 if None.
        scan: the order of the four scans, a key of `lib.model.scan_orders.SCAN_ORDERS`. A checkpoint
            does not record it.
        limb_gradient: "straight_through" (as published) or "exact"; see `BiSTSSM`.
    """

    def __init__(
        self,
        num_frame=9,
        num_joints=17,
        in_chans=2,
        embed_dim_ratio=256,
        depth=6,
        mlp_ratio=2.0,
        drop_rate=0.0,
        drop_path_rate=0.2,
        norm_layer=None,
        scan="v2_plus_poselimbs",
        limb_gradient="straight_through",
    ):
        super().__init__()
        norm_layer = norm_layer or partial(nn.LayerNorm, eps=1e-6)
        dim = embed_dim_ratio

        self.Spatial_patch_to_embedding = nn.Linear(in_chans, dim)
        self.Spatial_pos_embed = nn.Parameter(torch.zeros(1, num_joints, dim))
        self.Temporal_pos_embed = nn.Parameter(torch.zeros(1, num_frame, dim))
        self.pos_drop = nn.Dropout(drop_rate)

        def blocks():
            return nn.ModuleList(
                BiSTSSMBlock(dim, mlp_ratio, rate, norm_layer, scan, limb_gradient)
                for rate in torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
            )

        self.STEblocks = blocks()
        self.TTEblocks = blocks()
        self.Spatial_norm = norm_layer(dim)
        self.Temporal_norm = norm_layer(dim)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 3))

    def forward(self, x):
        """Return poses (B, F, J, 3) of x (B, F, J, in_chans), normalised keypoints with F <= num_frame.

        Raises:
            ValueError: x has another shape than the model was built for.
        """
        refuse_wrong_keypoints(
            x,
            frames=self.Temporal_pos_embed.shape[1],
            joints=self.Spatial_pos_embed.shape[1],
            channels=self.Spatial_patch_to_embedding.in_features,
        )
        x = self.pos_drop(self.Spatial_patch_to_embedding(x) + self.Spatial_pos_embed)
        for i, (spatial, temporal) in enumerate(zip(self.STEblocks, self.TTEblocks)):
            x = self.Spatial_norm(spatial(x))
            if i == 0:
                x = self.pos_drop(x + self.Temporal_pos_embed[:, : x.shape[1], None])
            x = self.Temporal_norm(temporal(x))
        return self.head(x)


def build(config):
    """Return the untrained model of a config."""
    return PoseMamba(
        num_frame=config.maxlen,
        num_joints=config.num_joints,
        in_chans=config.in_chans,
        embed_dim_ratio=config.dim_feat,
        depth=config.depth,
        mlp_ratio=config.mlp_ratio,
        drop_rate=config.dropout,
        drop_path_rate=config.drop_path,
        scan=config.scan,
        limb_gradient=config.limb_gradient,
    )


def config_of(parameters):
    """Return the config keys that the shapes of a PoseMamba's parameters {name: tensor} tell.

    Raises:
        KeyError, ValueError, IndexError: they are not a PoseMamba's.
    """
    embedding = parameters["Spatial_patch_to_embedding.weight"]
    return {
        "dim_feat": embedding.shape[0],
        "depth": count_blocks(parameters, "STEblocks."),
        "mlp_ratio": parameters["STEblocks.0.mlp.fc1.weight"].shape[0] / embedding.shape[0],
        "maxlen": parameters["Temporal_pos_embed"].shape[1],
        "num_joints": parameters["Spatial_pos_embed"].shape[1],
        "no_conf": embedding.shape[1] == 2,
    }
