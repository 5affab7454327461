"""Loss terms against numbers of the published implementation."""

import numpy as np
import pytest
import torch
from conftest import PARITY, relative_error

from lib.task import losses

TERMS = {
    "mpjpe": losses.mpjpe,
    "n_mpjpe": losses.n_mpjpe,
    "velocity": losses.velocity,
    "limb_var": losses.limb_variance,
    "limb_gt": losses.limb_length,
    "angle": losses.angle,
    "angle_velocity": losses.angle_velocity,
    "weighted_mpjpe": losses.weighted_mpjpe,
    "diff": losses.temporal_consistency,
}


@pytest.fixture
def published():
    with np.load(PARITY / "losses.npz") as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


@pytest.mark.parametrize("name", TERMS)
def test_term(name, published):
    value = TERMS[name](published["pred"], published["target"])
    assert float(value) == pytest.approx(float(published[name]), rel=1e-5)


def test_weighted_2d(published):
    value = losses.weighted_2d(published["pred"], published["target"], published["conf"])
    assert float(value) == pytest.approx(float(published["weighted_2d"]), rel=1e-5)


def test_recipe_and_its_gradient(published):
    predicted = published["pred"].requires_grad_()
    weights = {"lambda_3d": 1.0, "lambda_scale": 0.5, "lambda_3d_velocity": 20.0, "lambda_diff": 0.5, "lambda_a": 0.0}
    total, terms = losses.pose_loss(predicted, published["target"], weights)
    assert float(total.detach()) == pytest.approx(float(published["total"]), rel=1e-5)
    assert set(terms) == {"mpjpe", "n_mpjpe", "velocity", "temporal_consistency"}
    total.backward()
    assert relative_error(predicted.grad, published["total_grad"]) < 1e-5


@pytest.mark.parametrize(
    "term", [losses.velocity, losses.temporal_consistency, losses.limb_variance, losses.angle_velocity]
)
def test_a_clip_of_one_frame_has_no_motion(term, published):
    assert term(published["pred"][:, :1], published["target"][:, :1]) == 0


@pytest.mark.parametrize("name", losses.LOSS_TERMS)
def test_gradients_stay_finite_on_a_straight_limb_and_a_perfect_pose(name, published):
    straight = torch.zeros(1, 2, 17, 3)
    straight[..., 1] = torch.arange(17.0)
    predicted = straight.clone().requires_grad_()
    losses.LOSS_TERMS[name](predicted, straight).backward()
    assert predicted.grad.isfinite().all()
