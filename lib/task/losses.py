"""Training losses: each term of the recipe by the name of its weight in the config.

Poses are (B, F, J, 3), predicted and true, root-relative and normalised. Formulas are those of MotionBERT
(arXiv 2210.06551) and PoseMamba (arXiv 2408.03540); a term over time is 0 for a clip of one frame.
"""

from functools import cache

import torch

from lib.body.skeleton import limb_vectors

# Weights of the joints in the temporal consistency and the weighted position terms.
JOINT_WEIGHTS = (1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4)

# Pairs of limbs (indices into `lib.body.skeleton.LIMBS`) that form an angle.
ANGLES = (
    (0, 3), (0, 6), (3, 6), (0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 10), (7, 13),
    (8, 13), (10, 13), (7, 8), (8, 9), (10, 11), (11, 12), (13, 14), (14, 15),
)  # fmt: skip
_COSINE_MARGIN = 1e-7  # keeps acos and its gradient finite


def mpjpe(predicted, target):
    """Return the mean distance of joints."""
    return (predicted - target).norm(dim=-1).mean()


def weighted_mpjpe(predicted, target):
    """Return the mean distance of joints, weighted by `JOINT_WEIGHTS`."""
    return (_constant(JOINT_WEIGHTS, predicted.dtype, predicted.device) * (predicted - target).norm(dim=-1)).mean()


def n_mpjpe(predicted, target):
    """Return the MPJPE after the best scale of each frame's prediction (Rhodin et al. 2018)."""
    size = predicted.square().sum((-1, -2), keepdim=True)
    overlap = (predicted * target).sum((-1, -2), keepdim=True)
    return mpjpe(overlap / size * predicted, target)


def velocity(predicted, target):
    """Return the mean distance of joint velocities (differences of consecutive frames)."""
    if predicted.shape[1] < 2:
        return predicted.new_zeros(())
    return mpjpe(predicted.diff(dim=1), target.diff(dim=1))


def temporal_consistency(predicted, target):
    """Return the mean squared motion of predicted joints between frames, weighted by `JOINT_WEIGHTS`."""
    if predicted.shape[1] < 2:
        return predicted.new_zeros(())
    weights = _constant(JOINT_WEIGHTS, predicted.dtype, predicted.device)
    return (weights[:, None] * predicted.diff(dim=1).square()).mean()


def limb_variance(predicted, target):
    """Return the variance over time of predicted limb lengths."""
    if predicted.shape[1] < 2:
        return predicted.new_zeros(())
    return limb_vectors(predicted).norm(dim=-1).var(dim=1).mean()


def limb_length(predicted, target):
    """Return the mean absolute difference of limb lengths."""
    return (limb_vectors(predicted).norm(dim=-1) - limb_vectors(target).norm(dim=-1)).abs().mean()


def angle(predicted, target):
    """Return the mean absolute difference of the angles between limbs (radians)."""
    return (_angles(predicted) - _angles(target)).abs().mean()


def angle_velocity(predicted, target):
    """Return the mean absolute difference of the angles' changes between frames (radians)."""
    if predicted.shape[1] < 2:
        return predicted.new_zeros(())
    return (_angles(predicted).diff(dim=1) - _angles(target).diff(dim=1)).abs().mean()


def weighted_2d(predicted, target, confidence):
    """Return the mean distance in x and y, weighted by confidence (B, F, J, 1): what 2D pre-training learns from."""
    return ((predicted - target)[..., :2] * confidence).norm(dim=-1).mean()


LOSS_TERMS = {  # name of the weight in a config: term
    "lambda_3d": mpjpe,
    "lambda_scale": n_mpjpe,
    "lambda_3d_velocity": velocity,
    "lambda_lv": limb_variance,
    "lambda_lg": limb_length,
    "lambda_a": angle,
    "lambda_av": angle_velocity,
    "lambda_3dw": weighted_mpjpe,
    "lambda_diff": temporal_consistency,
}


def pose_loss(predicted, target, weights):
    """Return the weighted sum of the terms that `weights` {name: weight} switches on.

    Beside it, {function name: unweighted value} of the terms in it.
    """
    terms = {
        LOSS_TERMS[name].__name__: (weight, LOSS_TERMS[name](predicted, target))
        for name, weight in weights.items()
        if weight
    }
    total = sum((weight * value for weight, value in terms.values()), predicted.new_zeros(()))
    return total, {name: value.detach() for name, (_, value) in terms.items()}


@cache
def _constant(numbers, dtype, device):
    """Return the tensor of a tuple; made once, since copying one to a GPU waits for it."""
    return torch.tensor(numbers, dtype=dtype, device=device)


def _angles(poses):
    """Return the angles (B, F, 18), radians, of poses (B, F, J, 3)."""
    limbs = torch.nn.functional.normalize(limb_vectors(poses), dim=-1)
    first, second = _constant(ANGLES, torch.int64, poses.device).T
    cosine = (limbs[:, :, first] * limbs[:, :, second]).sum(-1)
    return cosine.clamp(-1 + _COSINE_MARGIN, 1 - _COSINE_MARGIN).acos()
