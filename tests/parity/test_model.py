"""The model against numbers of the published implementation (tests/parity)."""

import numpy as np
import pytest
import torch
from conftest import PARITY, relative_error

from lib.config import Config
from lib.data.transforms import training_target
from lib.engine.optimizers import OPTIMIZERS
from lib.model import PoseMamba
from lib.model.opening import size_of
from lib.model.registry import build_model
from lib.model.scan_orders import SCAN_ORDERS
from lib.model.weights import read_checkpoint
from lib.task.losses import pose_loss

PUBLISHED_ORDERS = ["v2_plus_poselimbs", "v2", "v2_fs_ft", "v2_fs_bt", "v2_bs_ft", "v2_bs_bt"]
TOLERANCE = 1e-4


def load_fixture(name):
    with np.load(PARITY / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def with_prefix(fixture, prefix):
    return {key[len(prefix) :]: value for key, value in fixture.items() if key.startswith(prefix)}


def model_of(parameters, **arguments):
    """A model of the size that the fixture's parameters have, without stochastic depth."""
    model = PoseMamba(
        num_frame=parameters["Temporal_pos_embed"].shape[1],
        embed_dim_ratio=parameters["Temporal_pos_embed"].shape[2],
        depth=sum(name.startswith("STEblocks") and name.endswith("Ds") for name in parameters),
        drop_path_rate=0.0,
        **arguments,
    )
    model.load_state_dict(parameters, strict=True)
    return model


@pytest.mark.parametrize("order", PUBLISHED_ORDERS)
def test_outputs_and_gradients_match_published(order):
    fixture = load_fixture(f"tiny_{order}")
    model = model_of(with_prefix(fixture, "p/"), scan=order)
    x = fixture["x"].requires_grad_()
    y = model(x)
    assert relative_error(y, fixture["y"]) < TOLERANCE
    (y * fixture["w"]).sum().backward()
    assert relative_error(x.grad, fixture["gx"]) < TOLERANCE
    expected = with_prefix(fixture, "g/")
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert gradients.keys() == expected.keys()
    errors = {name: relative_error(gradients[name], expected[name]) for name in expected}
    assert max(errors.values()) < TOLERANCE, max(errors, key=errors.get)


def test_s_model_on_243_frames_matches_published():
    fixture = load_fixture("S_243")
    model = model_of(with_prefix(fixture, "p/")).eval()
    with torch.no_grad():
        assert relative_error(model(fixture["x"]), fixture["y"]) < TOLERANCE


def test_five_published_optimiser_steps_are_reproduced():
    """Each step of the fixture is an epoch: the learning rate decays after it."""
    fixture = load_fixture("train5")
    config = Config()
    model = model_of(with_prefix(fixture, "p/")).train()
    optimizer = OPTIMIZERS[config.optimizer](dict(model.named_parameters()), config)
    for step in range(5):
        target = training_target(fixture["target"][step], config)
        loss, _ = pose_loss(model(fixture["x"][step]), target, config.loss_weights)
        assert float(loss.detach()) == pytest.approx(float(fixture["loss"][step]), rel=TOLERANCE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= config.lr_decay
    for name, expected in with_prefix(fixture, "q/").items():
        assert relative_error(model.state_dict()[name], expected) < TOLERANCE, name


def test_reference_checkpoint_loads_and_reproduces_its_output():
    checkpoint = read_checkpoint(PARITY / "reference_checkpoint.bin")
    size = size_of(checkpoint, "PoseMamba")
    assert size == {
        "dim_feat": 32,
        "depth": 2,
        "mlp_ratio": 2,
        "maxlen": 27,
        "num_joints": 17,
        "no_conf": True,
    }
    assert (checkpoint.epoch, checkpoint.lr) == (3, 0.0001940598)
    assert checkpoint.min_loss == pytest.approx(90.30382162349808)
    model = build_model(Config(**size, clip_len=27)).eval()
    checkpoint.load_into(model)
    names = [name for name, _ in model.named_parameters()]
    assert names == list(checkpoint.model)  # a saved optimiser knows parameters by their number
    with np.load(PARITY / "reference_checkpoint_io.npz") as expected, torch.no_grad():
        assert relative_error(model(torch.from_numpy(expected["x"])), expected["y"]) < TOLERANCE


@pytest.mark.parametrize("dim, depth, parameters", [(64, 10, 1_470_211), (128, 10, 4_742_659), (128, 20, 9_450_499)])
def test_sizes_of_s_b_and_l(dim, depth, parameters):
    model = PoseMamba(num_frame=243, embed_dim_ratio=dim, depth=depth)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("order", SCAN_ORDERS)
def test_every_direction_visits_every_position_once_and_is_undone(order):
    grid = torch.arange(5 * 17.0).view(5, 17)
    for direction in SCAN_ORDERS[order]:
        sequence = direction.flatten(grid)
        assert sorted(sequence.tolist()) == list(range(5 * 17))
        assert torch.equal(direction.unflatten(sequence, 5, 17), grid)


def test_exact_limb_gradient_is_the_derivative_and_straight_through_is_not():
    fixture = load_fixture("tiny_v2_plus_poselimbs")
    errors = {}
    for mode in ("exact", "straight_through"):
        model = model_of(with_prefix(fixture, "p/"), limb_gradient=mode).double()
        x, w = fixture["x"].double(), fixture["w"].double()
        direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))

        def loss(step, model=model, x=x, direction=direction, w=w):
            return (model(x + step * direction) * w).sum()

        step = torch.zeros((), dtype=x.dtype, requires_grad=True)
        (gradient,) = torch.autograd.grad(loss(step), step)
        with torch.no_grad():
            numeric = (loss(1e-6) - loss(-1e-6)) / 2e-6
        errors[mode] = float(abs(gradient - numeric) / abs(numeric))
    assert errors["exact"] < 1e-6 < 1e-3 < errors["straight_through"]


def test_shorter_clips_are_legal_and_longer_ones_are_refused():
    model = PoseMamba(num_frame=9, embed_dim_ratio=16, depth=1)
    assert model(torch.zeros(1, 5, 17, 2)).shape == (1, 5, 17, 3)
    for shape in [(1, 10, 17, 2), (1, 9, 16, 2), (1, 9, 17, 3), (9, 17, 2), (1, 0, 17, 2)]:
        with pytest.raises(ValueError, match="^x: expected"):
            model(torch.zeros(shape))
    with pytest.raises(ValueError, match="^scan: 'v9' is unknown; there are v2_plus_poselimbs"):
        PoseMamba(scan="v9")
    with pytest.raises(ValueError, match="^limb_gradient: 'none' is unknown"):
        PoseMamba(limb_gradient="none")


def test_published_initial_values():
    torch.manual_seed(0)
    op = PoseMamba(embed_dim_ratio=32, depth=1).STEblocks[0].op
    steps = torch.nn.functional.softplus(op.dt_projs_bias)
    assert 1e-3 < steps.min() and steps.max() < 0.1
    assert torch.allclose(op.A_logs.exp(), torch.arange(1.0, 17).expand(256, 16))
    assert torch.equal(op.Ds, torch.ones(256))
    assert op.dt_projs_weight.abs().max() <= 2**-0.5
