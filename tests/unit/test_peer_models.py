"""Rules of DSTformer and MotionAGFormer that no fixture shows: their arguments, clips of other lengths, wrong files."""

import numpy as np
import pytest
import torch
from conftest import ROOT, relative_error
from peers import PEERS, load_peer, parameters_of_peer, write_published

from lib.body.skeleton import ROOT as PELVIS
from lib.config import load_config
from lib.errors import UserError
from lib.model import DSTformer, MotionAGFormer, open_model
from lib.model.motionagformer.graph import GCN
from lib.model.registry import MODELS, build_model, model_of, model_with
from lib.video import lift_keypoints

CONFIGS = ROOT / "configs" / "pose3d"
TINY = ["maxlen=9", "clip_len=9", "dim_feat=16", "depth=2", "dim_rep=24", "num_heads=4"]


def agformer(**options):
    torch.manual_seed(0)
    return MotionAGFormer(**{"n_layers": 1, "dim_in": 2, "dim_feat": 16, "dim_rep": 8, "n_frames": 9, **options})


def clips(batch=2, frames=9, channels=2):
    return torch.randn(batch, frames, 17, channels, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_equal_weights_of_the_streams_are_their_mean():
    torch.manual_seed(0)
    fused = DSTformer(dim_in=2, dim_feat=16, dim_rep=8, depth=2, num_heads=4, maxlen=9).eval()
    mean = DSTformer(dim_in=2, dim_feat=16, dim_rep=8, depth=2, num_heads=4, maxlen=9, att_fuse=False).eval()
    mean.load_state_dict({k: v for k, v in fused.state_dict().items() if not k.startswith("ts_attn.")})
    torch.testing.assert_close(fused(clips()), mean(clips()))
    torch.nn.init.normal_(fused.ts_attn[0].weight)
    assert not torch.allclose(fused(clips()), mean(clips()), atol=1e-4)


@torch.no_grad()
def test_representations_lie_below_the_head():
    for model in (DSTformer(dim_in=2, dim_feat=16, dim_rep=24, depth=1, maxlen=9), agformer(dim_rep=24)):
        model.eval()
        below = model(clips(), return_rep=True)
        assert below.shape == (2, 9, 17, 24) and below.abs().max() <= 1
        torch.testing.assert_close(model.head(below), model(clips()))


@pytest.mark.parametrize("similar", [True, False])
@torch.no_grad()
def test_graphs_of_frames_are_what_loops_find(similar):
    """Each frame sees the two most similar ones, or itself and the two after it; edges are weighed by both ends' degrees."""
    torch.manual_seed(0)
    gcn = GCN(8, 6, "temporal", neighbour_num=2, use_temporal_similarity=similar, temporal_connection_len=2).eval()
    x = torch.randn(1, 6, 1, 8)
    tokens = x[0, :, 0]
    if similar:
        seen = [sorted(range(6), key=lambda j, i=i: -float(tokens[i] @ tokens[j]))[:2] for i in range(6)]
    else:
        seen = [list(range(i, min(i + 3, 6))) for i in range(6)]
    values = gcn.V(tokens)
    expected = []
    for i, others in enumerate(seen):
        summed = sum(values[j] / (len(others) * len(seen[j])) ** 0.5 for j in others)
        norm = gcn.batch_norm
        y = (summed + gcn.U(tokens[i])) / (norm.running_var[i] + norm.eps).sqrt()
        expected.append(torch.relu(tokens[i] + y))
    torch.testing.assert_close(gcn(x)[0, :, 0], torch.stack(expected))


@pytest.mark.parametrize(
    "options, name, shape",
    [  # names that published code gives these parts
        ({"use_tcn": True}, "layers.0.graph_temporal.mixer.branches.1.3.conv.weight", (4, 4, 5, 1)),
        ({"use_tcn": True}, "layers.0.graph_temporal.mixer.branches.2.4.weight", (4,)),
        ({"graph_only": True}, "layers.0.graph_temporal.batch_norm.weight", (9,)),
        ({"graph_only": True, "use_tcn": True}, "layers.0.graph_temporal.branches.3.0.weight", (4, 16, 1, 1)),
        ({"hierarchical": True}, "layers.0.fusion.weight", (2, 16)),
        ({"hierarchical": True}, "layers.0.att_spatial.mixer.qkv.weight", (24, 8)),
        ({"qkv_bias": True}, "layers.0.att_temporal.mixer.qkv.bias", (48,)),
    ],
)
def test_variants_have_their_parts_and_train(options, name, shape):
    model = agformer(**options)
    assert model.state_dict()[name].shape == shape
    model(clips()).square().sum().backward()
    unused = {n for n, p in model.named_parameters() if p.grad is None}
    assert unused == ({"layers.0.fusion.weight", "layers.0.fusion.bias"} if options.get("hierarchical") else set())


def test_parts_that_are_left_out():
    names = agformer(use_layer_scale=False, use_adaptive_fusion=False).state_dict()
    assert not any("layer_scale" in name or "fusion" in name for name in names)
    assert float(
        agformer(layer_scale_init_value=0.1).layers[0].att_spatial.layer_scale_2.detach().mean()
    ) == pytest.approx(0.1)


def test_stochastic_depth_leaves_the_statistics_of_the_batch_whole():
    """A batch whose only clip goes without its graphs would have no statistics."""
    model = agformer(drop_path=0.9).train()
    for _ in range(5):
        model(clips(batch=1))
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    model.eval()
    assert torch.equal(model(clips()), model(clips()))


def test_clips_of_another_shape_are_refused():
    model = DSTformer(dim_in=2, dim_feat=16, depth=1, maxlen=9)
    assert model(clips(frames=5)).shape == (2, 5, 17, 3)
    with pytest.raises(ValueError, match=r"^x: expected \(B, F, 17, 2\) with 1 <= F <= 9, got \(2, 10, 17, 2\)"):
        model(clips(frames=10))
    for frames in (5, 10):
        with pytest.raises(ValueError, match=r"^x: expected \(B, 9, 17, 2\), got"):
            agformer()(clips(frames=frames))
    with pytest.raises(UserError, match="^neighbour_num: 4 is more than the 3 frames"):
        agformer(n_frames=3)
    with pytest.raises(UserError, match="^num_heads: 3: the 16 channels cannot be shared out"):
        agformer(num_heads=3)


@torch.no_grad()
def test_a_shorter_clip_stands_still_in_the_end(tmp_path):
    opened = open_model(write_published("MotionAGFormer", tmp_path / "released.bin"))
    x = load_peer("MotionAGFormer")[0]["x"]
    still = torch.cat([x[:, :50], x[:, 49:50].repeat(1, 31, 1, 1)], dim=1)
    torch.testing.assert_close(opened(x[:, :50]), opened(still)[:, :50])


@pytest.mark.parametrize("model", PEERS)
def test_videos_shorter_and_longer_than_a_clip_are_lifted(model, tmp_path):
    path = write_published(model, tmp_path / "released.bin")
    rng = np.random.default_rng(0)
    for frames in (20, 100):
        keypoints = np.concatenate([rng.uniform(100, 400, (frames, 17, 2)), np.ones((frames, 17, 1))], axis=-1)
        poses = lift_keypoints(keypoints.astype(np.float32), (640, 480), 30, weights=path)
        assert poses.shape == (frames, 17, 3) and np.isfinite(poses).all() and not poses[:, PELVIS].any()


@pytest.mark.parametrize("model", ["DSTformer", "MotionAGFormer"])
def test_shapes_of_parameters_tell_the_config(model):
    for more in ([], ["no_conf=False", "att_fuse=False", "mlp_ratio=4"]):
        config = load_config(overrides=[f"backbone={model}", *TINY, *more])
        parameters = build_model(config).state_dict()
        told = model_of(model).config_of(parameters)
        assert told == {key: getattr(config, key) for key in told}
        assert {"dim_feat", "dim_rep", "depth", "mlp_ratio", "maxlen", "num_joints", "no_conf"} <= told.keys()
        assert model_with(parameters) == model


def test_every_model_is_known_by_its_parameters():
    for model in MODELS:
        try:
            network = build_model(load_config(overrides=[f"backbone={model}", *TINY, "size=nano", "streams=rgb"]))
        except UserError:  # transformers, of ViTPose, may be missing
            continue
        assert model_with(network.state_dict()) == model
    assert model_with({"weight": None}) is None


@pytest.mark.parametrize("model", PEERS)
def test_a_file_without_one_tensor_is_one_line(model, tmp_path):
    names = list(parameters_of_peer(model))
    for name in ("joints_embed.weight", "norm.bias", names[-1]):
        path = write_published(model, tmp_path / "damaged.bin", without=name)
        with pytest.raises(UserError) as refused:
            open_model(path, overrides=PEERS[model][2])
        assert str(refused.value) in (
            f"{path}: is not a {model} checkpoint (it lacks {name!r})",
            f"{path}: lacks {name!r}, which the model has",
        )


def test_a_file_of_another_model_than_backbone_says_is_one_line(tmp_path):
    path = write_published("DSTformer", tmp_path / "released.bin")
    for backbone, lacks in (
        ("PoseMamba", "Spatial_patch_to_embedding.weight"),
        ("MotionAGFormer", "rep_logit.fc.weight"),
    ):
        with pytest.raises(UserError) as refused:
            open_model(path, overrides=[f"backbone={backbone}"])
        expected = f"is not a {backbone} checkpoint (it lacks {lacks!r}); it is one of backbone: DSTformer"
        assert str(refused.value) == f"{path}: {expected}"


def test_what_a_config_cannot_ask_for():
    with pytest.raises(UserError, match="^clip_len: 5: MotionAGFormer sees clips of exactly maxlen, 9, frames"):
        build_model(load_config(overrides=["backbone=MotionAGFormer", *TINY, "clip_len=5"]))
    for model in ("DSTformer", "MotionAGFormer"):
        with pytest.raises(UserError, match="^num_heads: 5: the 16 channels cannot be shared out among so many heads"):
            build_model(load_config(overrides=[f"backbone={model}", *TINY, "num_heads=5"]))
    with pytest.raises(UserError, match="^neighbour_num: 12 is more than the 9 frames of a clip"):
        build_model(load_config(overrides=["backbone=MotionAGFormer", *TINY, "neighbour_num=12"]))


@pytest.mark.parametrize("recipe", sorted(CONFIGS.glob("Motion*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_the_published_ones(recipe):
    config = load_config(recipe)
    assert (config.learning_rate, config.lr_decay, config.weight_decay, config.drop_path) == (5e-4, 0.99, 0.01, 0)
    weights = {name: weight for name, weight in config.loss_weights.items() if weight}
    assert weights == {"lambda_3d": 1, "lambda_scale": 0.5, "lambda_3d_velocity": 20}
    assert config.data_stride == config.clip_len // 3 and config.clip_len == config.maxlen
    assert config.flip and config.rootrel and not config.no_conf
    expected = (120, 32) if config.backbone == "DSTformer" else (60, 16)
    assert (config.epochs, config.batch_size) == expected


def test_gradients_reach_every_parameter():
    for model in ("DSTformer", "MotionAGFormer"):
        network = build_model(load_config(overrides=[f"backbone={model}", *TINY])).train()
        network(clips()).square().sum().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_a_batch_that_loses_all_branches_learns_too():
    """Stochastic depth passes an empty batch through a branch then."""
    for model in ("DSTformer", "MotionAGFormer"):
        network = build_model(load_config(overrides=[f"backbone={model}", *TINY, "drop_path=0.999999"])).train()
        network(clips()).square().sum().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_half_precision_is_near():
    network = agformer().eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = network(clips()).float()
    assert relative_error(half, network(clips()).detach()) < 0.1
