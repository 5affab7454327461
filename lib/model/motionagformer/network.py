"""MotionAGFormer in the registry of models: blocks of attention beside blocks of graph convolutions."""

from collections import OrderedDict

import torch
from torch import nn

from lib.errors import UserError
from lib.model.attention import Attention, fused, fusion
from lib.model.hub import Pretrained
from lib.model.keypoints import example, refuse_wrong_keypoints
from lib.model.mlp import Mlp
from lib.model.motionagformer.convolution import MultiScaleTCN
from lib.model.motionagformer.graph import GCN
from lib.model.stochastic_depth import add_branch
from lib.model.weights import count_blocks

__all__ = ["MotionAGFormer", "build", "config_of", "example"]


class MotionAGFormer(Pretrained):
    """Layers of two streams, attention and graph convolutions, each over joints and then over frames, fused.

    Parameter names and shapes are those of the published implementation, so its checkpoints load with `strict=True`.

    Args:
        n_layers: of two pairs of blocks each.
        dim_in: channels of a keypoint: 2, or 3 with confidence.
        dim_feat: C.
        dim_rep: channels of the representation below the head.
        dim_out: of a joint.
        mlp_ratio: width of a block's MLP, in units of C.
        act_layer: activation of MLPs.
        attn_drop, drop: dropout of attention weights; of attention's results and in MLPs.
        drop_path: stochastic depth of all blocks.
        use_layer_scale, layer_scale_init_value: weigh each channel of a branch, at first by this.
        use_adaptive_fusion: weigh the streams by `lib.model.attention.fused`; else take their mean.
        qkv_scale: of `lib.model.attention.Attention`, there `qk_scale`.
        hierarchical: each stream sees half of the channels, graphs see attention's result too; nothing is fused.
        use_temporal_similarity, temporal_connection_len, neighbour_num: of `lib.model.motionagformer.graph.GCN`.
        use_tcn: convolutions over time take the place of graphs of frames.
        graph_only: graph convolutions stand alone, without norm and MLP.
        n_frames: of every clip; graphs have a norm for each.
    """

    def __init__(
        self,
        n_layers,
        dim_in,
        dim_feat,
        dim_rep=512,
        dim_out=3,
        mlp_ratio=4,
        act_layer=nn.GELU,
        attn_drop=0.0,
        drop=0.0,
        drop_path=0.0,
        use_layer_scale=True,
        layer_scale_init_value=1e-5,
        use_adaptive_fusion=True,
        num_heads=4,
        qkv_bias=False,
        qkv_scale=None,
        hierarchical=False,
        num_joints=17,
        use_temporal_similarity=True,
        temporal_connection_len=1,
        use_tcn=False,
        graph_only=False,
        neighbour_num=4,
        n_frames=243,
    ):
        super().__init__()
        self.frames = n_frames  # of every clip: inference pads shorter ones
        self.joints_embed = nn.Linear(dim_in, dim_feat)
        self.pos_embed = nn.Parameter(torch.zeros(1, num_joints, dim_feat))
        self.norm = nn.LayerNorm(dim_feat)
        dim = dim_feat // 2 if hierarchical else dim_feat

        def attention(mode):
            return block(Attention(dim, num_heads, mode, qkv_bias, qkv_scale, attn_drop, drop))

        def graph(mode):
            if mode == "temporal" and use_tcn:
                mixer = MultiScaleTCN(dim)
            else:
                nodes = {"spatial": num_joints, "temporal": n_frames}[mode]
                mixer = GCN(dim, nodes, mode, neighbour_num, use_temporal_similarity, temporal_connection_len)
            return mixer if graph_only else block(mixer)

        def block(mixer):
            mlp = Mlp(dim, int(dim * mlp_ratio), drop, act_layer)
            return AGFormerBlock(dim, mixer, mlp, drop_path, layer_scale_init_value if use_layer_scale else None)

        merge = "cat" if hierarchical else "fuse" if use_adaptive_fusion else "mean"
        self.layers = nn.Sequential(
            *(
                MotionAGFormerBlock(attention, graph, fusion(dim) if use_adaptive_fusion else None, merge)
                for _ in range(n_layers)
            )
        )
        self.rep_logit = nn.Sequential(OrderedDict(fc=nn.Linear(dim_feat, dim_rep), act=nn.Tanh()))
        self.head = nn.Linear(dim_rep, dim_out)

    def forward(self, x, return_rep=False):
        """Return poses (B, n_frames, J, dim_out) of x (B, n_frames, J, dim_in), normalised keypoints.

        return_rep: return the representation (B, n_frames, J, dim_rep) below the head instead.

        Raises:
            ValueError: x has another shape than the model was built for.
        """
        joints = self.pos_embed.shape[1]
        refuse_wrong_keypoints(x, self.frames, joints, self.joints_embed.in_features, shorter=False)
        x = self.layers(self.joints_embed(x) + self.pos_embed)
        x = self.rep_logit(self.norm(x))
        return x if return_rep else self.head(x)


class MotionAGFormerBlock(nn.Module):
    """One layer: a stream of attention and one of graph convolutions.

    Args:
        attention, graph: functions that build the blocks of a mode.
        fusion: of `lib.model.attention.fusion`, or None.
        merge: "fuse", "mean", or "cat": streams of half of the channels, the second sees the first's result.
    """

    def __init__(self, attention, graph, fusion, merge):
        super().__init__()
        self.merge = merge
        self.att_spatial, self.att_temporal = attention("spatial"), attention("temporal")
        self.graph_spatial, self.graph_temporal = graph("spatial"), graph("temporal")
        self.fusion = fusion

    def forward(self, x):
        """Return features (B, F, J, C) of x (B, F, J, C)."""
        first, second = x.chunk(2, dim=-1) if self.merge == "cat" else (x, x)
        first = self.att_temporal(self.att_spatial(first))
        if self.merge == "cat":
            second = second + first
        second = self.graph_temporal(self.graph_spatial(second))
        if self.merge == "cat":
            return torch.cat([first, second], dim=-1)
        return fused(self.fusion, first, second) if self.merge == "fuse" else (first + second) / 2


class AGFormerBlock(nn.Module):
    """Pre-norm residual block: a mixer of tokens, then an MLP (a MetaFormer; Yu et al., arXiv 2111.11418).

    Args:
        layer_scale: first weight of each channel of a branch (Touvron et al., arXiv 2103.17239); None: no weights.
    """

    def __init__(self, dim, mixer, mlp, drop_path, layer_scale):
        super().__init__()
        self.drop_path = drop_path
        scaled = layer_scale is not None
        self.layer_scale_1, self.layer_scale_2 = (
            nn.Parameter(torch.full((dim,), layer_scale)) if scaled else 1.0 for _ in range(2)
        )
        self.norm1 = nn.LayerNorm(dim)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = mlp

    def forward(self, x):
        """Return features (B, F, J, C) of x (B, F, J, C)."""
        x = add_branch(x, self._mix, self.drop_path, self.training, whole=True)
        return add_branch(x, self._feed_forward, self.drop_path, self.training)

    def _mix(self, x):
        return self.layer_scale_1 * self.mixer(self.norm1(x))

    def _feed_forward(self, x):
        return self.layer_scale_2 * self.mlp(self.norm2(x))


def build(config):
    """Return the untrained model of a config.

    Raises:
        UserError: clips would have another length than the network.
    """
    if config.clip_len != config.maxlen:
        raise UserError(
            f"clip_len: {config.clip_len}: MotionAGFormer sees clips of exactly maxlen, {config.maxlen}, frames; "
            "set both alike"
        )
    return MotionAGFormer(
        n_layers=config.depth,
        dim_in=config.in_chans,
        dim_feat=config.dim_feat,
        dim_rep=config.dim_rep,
        mlp_ratio=config.mlp_ratio,
        drop=config.dropout,
        drop_path=config.drop_path,
        num_heads=config.num_heads,
        num_joints=config.num_joints,
        neighbour_num=config.neighbour_num,
        n_frames=config.maxlen,
    )


def config_of(parameters):
    """Return the config keys that the shapes of a MotionAGFormer's parameters {name: tensor} tell.

    Raises:
        KeyError, ValueError, IndexError: they are not a MotionAGFormer's.
    """
    embedding = parameters["joints_embed.weight"]
    return {
        "dim_feat": embedding.shape[0],
        "dim_rep": len(parameters["rep_logit.fc.weight"]),
        "depth": count_blocks(parameters, "layers."),
        "mlp_ratio": len(parameters["layers.0.att_spatial.mlp.fc1.weight"]) / embedding.shape[0],
        "maxlen": len(parameters["layers.0.graph_temporal.mixer.batch_norm.weight"]),
        "num_joints": parameters["pos_embed"].shape[1],
        "no_conf": embedding.shape[1] == 2,
    }
