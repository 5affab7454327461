"""DSTformer and MotionAGFormer against numbers of the published implementations (tests/parity/data)."""

from functools import partial

import pytest
import torch
from conftest import ROOT, relative_error
from peers import PEERS, load_peer, parameters_of_peer, write_published

from lib.config import load_config
from lib.model import DSTformer, MotionAGFormer, open_model
from lib.model.facts import macs_of, parameters_of
from lib.model.registry import build_model, model_of

TOLERANCE = 1e-5
BUILD = {
    # MotionBERT builds its networks with this norm, which is not the constructor's default
    "DSTformer": partial(DSTformer, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6)),
    "MotionAGFormer": MotionAGFormer,
}
CONFIGS = ROOT / "configs" / "pose3d"


def load(model):
    fixture, arguments = load_peer(model)
    network = BUILD[model](**arguments).eval()
    network.load_state_dict(parameters_of_peer(model), strict=True)
    return network, fixture


@pytest.mark.parametrize("model", PEERS)
def test_outputs_and_gradients_match_published(model):
    network, fixture = load(model)
    x = fixture["x"].requires_grad_()
    y = network(x)
    assert relative_error(y, fixture["y"]) < TOLERANCE
    (y * fixture["w"]).sum().backward()
    assert relative_error(x.grad, fixture["gx"]) < TOLERANCE
    expected = {name.removeprefix("g/"): value for name, value in fixture.items() if name.startswith("g/")}
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert list(gradients) == list(expected)  # a saved optimiser knows parameters by their number
    errors = {name: relative_error(gradients[name], expected[name]) for name in expected}
    assert max(errors.values()) < TOLERANCE, max(errors, key=errors.get)


@pytest.mark.parametrize("model", PEERS)
@torch.no_grad()
def test_a_published_file_is_opened_without_a_config(model, tmp_path):
    """Its parameters tell the model and its size, and the poses are the published ones, averaged over the mirror image."""
    fixture, arguments = load_peer(model)
    path = write_published(model, tmp_path / "released.bin")
    opened = open_model(path, overrides=PEERS[model][2])
    assert opened.config.backbone == model and not opened.config.no_conf
    sizes = {"dim_feat": "dim_feat", "dim_rep": "dim_rep", "depth": "depth", "maxlen": "maxlen", "clip_len": "maxlen"}
    renamed = {"depth": "n_layers", "maxlen": "n_frames"} if model == "MotionAGFormer" else {}
    for key, argument in sizes.items():
        assert getattr(opened.config, key) == arguments[renamed.get(argument, argument)], key
    assert opened.checkpoint.epoch == 60
    assert relative_error(opened.model(fixture["x"]), fixture["y"]) < TOLERANCE
    assert not torch.allclose(opened(fixture["x"]), fixture["y"], atol=1e-3)
    open_plain = open_model(path, overrides=[*PEERS[model][2], "flip_test=False"])
    assert relative_error(open_plain(fixture["x"]), fixture["y"]) < TOLERANCE


@pytest.mark.parametrize(
    "recipe, parameters",
    [  # millions, as the papers round them; MotionBERT: arXiv 2310.16288, table 1
        ("MotionBERT_train_h36m", 42.5),
        ("MotionAGFormer_train_h36m_XS", 2.2),
        ("MotionAGFormer_train_h36m_S", 4.8),
        ("MotionAGFormer_train_h36m_B", 11.7),
        ("MotionAGFormer_train_h36m_L", 19.0),
    ],
)
def test_recipes_have_the_published_sizes(recipe, parameters):
    with torch.device("meta"):
        found = parameters_of(build_model(load_config(CONFIGS / f"{recipe}.yaml")))
    assert round(found / 1e6, 1) == parameters


@pytest.mark.parametrize("size, published", [("XS", 1.0), ("S", 6.6)])
def test_multiply_accumulates_are_the_published_ones_and_products_of_activations(size, published):
    """The published count leaves out attention and graphs, and has norms, 1 % of it."""
    config = load_config(CONFIGS / f"MotionAGFormer_train_h36m_{size}.yaml")
    layers, products = (
        count / 1e9 for count in macs_of(build_model(config).eval(), model_of(config.backbone).example(config))
    )
    assert published * 0.98 - 0.05 < layers < published + 0.05
    frames, channels, joints = config.maxlen, config.dim_feat, 17
    per_layer = channels * joints * frames * (4 * frames + 2 * joints + joints)  # two products over frames each
    assert products == pytest.approx(config.depth * per_layer / 1e9, rel=0.05)
