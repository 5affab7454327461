"""DSTformer, the network of MotionBERT (arXiv 2210.06551): a peer that PoseMamba is measured against."""

from collections import OrderedDict
from functools import partial

import torch
from torch import nn

from lib.model.attention import Attention, fused, fusion
from lib.model.hub import Pretrained
from lib.model.keypoints import example, refuse_wrong_keypoints
from lib.model.mlp import Mlp
from lib.model.stochastic_depth import add_branch, rates_of_blocks
from lib.model.weights import count_blocks

__all__ = ["DSTformer", "build", "config_of", "example"]

_ORDERS = {"st": ("s", "t"), "ts": ("t", "s")}  # of the two halves of a block: joints of a frame, frames of a joint


class DSTformer(Pretrained):
    """Two streams of attention blocks, joints before frames and frames before joints, fused after each pair.

    Parameter names and shapes are those of the published implementation, so its checkpoints load with `strict=True`.

    Args:
        dim_in: channels of a keypoint: 2, or 3 with confidence.
        dim_out: of a joint.
        dim_feat: C.
        dim_rep: channels of the representation below the head.
        depth: pairs of blocks.
        mlp_ratio: width of a block's MLPs, in units of C.
        maxlen: the longest clip, in frames; shorter ones are legal.
        qk_scale: of `lib.model.attention.Attention`.
        drop_rate: dropout of embeddings, of attention's results and in MLPs.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the last pair; earlier ones grow linearly from 0. Whole clips go without a
            branch; published are frames.
        norm_layer: of all norms; published configs build networks with LayerNorm of eps 1e-6.
        att_fuse: weigh the streams by `lib.model.attention.fused`; else take their mean.
    """

    def __init__(
        self,
        dim_in=3,
        dim_out=3,
        dim_feat=256,
        dim_rep=512,
        depth=5,
        num_heads=8,
        mlp_ratio=4,
        num_joints=17,
        maxlen=243,
        qkv_bias=True,
        qk_scale=None,
        drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        norm_layer=nn.LayerNorm,
        att_fuse=True,
    ):
        super().__init__()
        self.joints_embed = nn.Linear(dim_in, dim_feat)
        self.pos_drop = nn.Dropout(drop_rate)

        def blocks(order):
            attention = partial(Attention, dim_feat, num_heads, qkv_bias=qkv_bias, qk_scale=qk_scale)
            attention = partial(attention, attn_drop=attn_drop_rate, proj_drop=drop_rate)
            mlp = partial(Mlp, dim_feat, int(dim_feat * mlp_ratio), drop_rate)
            rates = rates_of_blocks(drop_path_rate, depth)
            return nn.ModuleList(Block(order, partial(norm_layer, dim_feat), attention, mlp, rate) for rate in rates)

        self.blocks_st = blocks("st")
        self.blocks_ts = blocks("ts")
        self.norm = norm_layer(dim_feat)
        self.pre_logits = nn.Sequential(OrderedDict(fc=nn.Linear(dim_feat, dim_rep), act=nn.Tanh()))
        self.head = nn.Linear(dim_rep, dim_out)
        self.temp_embed = nn.Parameter(torch.empty(1, maxlen, 1, dim_feat))
        self.pos_embed = nn.Parameter(torch.empty(1, num_joints, dim_feat))
        for embedding in (self.temp_embed, self.pos_embed):
            nn.init.trunc_normal_(embedding, std=0.02)
        self.apply(_initialise)
        self.ts_attn = nn.ModuleList(fusion(dim_feat) for _ in range(depth)) if att_fuse else None

    def forward(self, x, return_rep=False):
        """Return poses (B, F, J, dim_out) of x (B, F, J, dim_in), normalised keypoints with F <= maxlen.

        return_rep: return the representation (B, F, J, dim_rep) below the head instead.

        Raises:
            ValueError: x has another shape than the model was built for.
        """
        frames, joints = self.temp_embed.shape[1], self.pos_embed.shape[1]
        refuse_wrong_keypoints(x, frames, joints, self.joints_embed.in_features)
        x = self.pos_drop(self.joints_embed(x) + self.pos_embed + self.temp_embed[:, : x.shape[1]])
        for i, (st, ts) in enumerate(zip(self.blocks_st, self.blocks_ts)):
            streams = st(x), ts(x)
            x = fused(self.ts_attn[i], *streams) if self.ts_attn else (streams[0] + streams[1]) / 2
        x = self.pre_logits(self.norm(x))
        return x if return_rep else self.head(x)


class Block(nn.Module):
    """Attention and an MLP over the joints of each frame and over the frames of each joint, in either order.

    Args:
        order: a key of `_ORDERS`.
        norm, attention, mlp: functions that build the parts; `attention` takes the mode.
        drop_path: stochastic depth.
    """

    def __init__(self, order, norm, attention, mlp, drop_path):
        super().__init__()
        self.order, self.drop_path = _ORDERS[order], drop_path
        self.norm1_s, self.norm1_t = norm(), norm()
        self.attn_s, self.attn_t = attention("spatial"), attention("temporal")
        self.norm2_s, self.norm2_t = norm(), norm()
        self.mlp_s, self.mlp_t = mlp(), mlp()

    def forward(self, x):
        """Return features (B, F, J, C) of x (B, F, J, C)."""
        for half in self.order:
            for norm, part in ((f"norm1_{half}", f"attn_{half}"), (f"norm2_{half}", f"mlp_{half}")):
                branch = nn.Sequential(getattr(self, norm), getattr(self, part))
                x = add_branch(x, branch, self.drop_path, self.training)
        return x


def _initialise(module):
    """Begin as published: small weights, no biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build(config):
    """Return the untrained model of a config."""
    return DSTformer(
        dim_in=config.in_chans,
        dim_feat=config.dim_feat,
        dim_rep=config.dim_rep,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        num_joints=config.num_joints,
        maxlen=config.maxlen,
        drop_rate=config.dropout,
        drop_path_rate=config.drop_path,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        att_fuse=config.att_fuse,
    )


def config_of(parameters):
    """Return the config keys that the shapes of a DSTformer's parameters {name: tensor} tell.

    Raises:
        KeyError, ValueError, IndexError: they are not a DSTformer's.
    """
    embedding = parameters["joints_embed.weight"]
    return {
        "dim_feat": embedding.shape[0],
        "dim_rep": len(parameters["pre_logits.fc.weight"]),
        "depth": count_blocks(parameters, "blocks_st."),
        "mlp_ratio": len(parameters["blocks_st.0.mlp_s.fc1.weight"]) / embedding.shape[0],
        "maxlen": parameters["temp_embed"].shape[1],
        "num_joints": parameters["pos_embed"].shape[1],
        "no_conf": embedding.shape[1] == 2,
        "att_fuse": any(name.startswith("ts_attn.") for name in parameters),
    }
