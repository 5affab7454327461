"""Heatmaps: their targets, and how exactly keypoints are read off again."""

import pytest
import torch

from lib.task.heatmaps import (
    decode,
    decode_udp,
    heatmap_targets,
    mean_squared_error,
    softmax_cross_entropy,
    udp_targets,
)

SIZE = (256, 192)


def keypoints(count=200, margin=24):
    """Return (count, 17, 2), px, some way inside of the image."""
    generator = torch.Generator().manual_seed(0)
    height, width = SIZE
    span = torch.tensor([width - 1.0, height - 1.0]) - 2 * margin
    return torch.rand(count, 17, 2, generator=generator) * span + margin


def distances(found, expected):
    return (found[..., :2] - expected).norm(dim=-1)


def test_targets_are_distributions_with_the_mean_at_the_keypoint():
    points = keypoints(20)
    targets = heatmap_targets(points, SIZE)
    assert targets.shape == (20, 17, 64, 48)
    torch.testing.assert_close(targets.sum((2, 3)), torch.ones(20, 17))
    x = (targets.sum(2) * ((torch.arange(48) + 0.5) * 4 - 0.5)).sum(-1)
    y = (targets.sum(3) * ((torch.arange(64) + 0.5) * 4 - 0.5)).sum(-1)
    torch.testing.assert_close(torch.stack([x, y], -1), points, atol=1e-3, rtol=0)


def test_the_cell_in_row_i_and_column_j_is_about_4j_plus_1_5_and_4i_plus_1_5():
    centre = torch.tensor([[[4 * 7 + 1.5, 4 * 30 + 1.5]]])
    targets = udp_targets(centre, SIZE)
    assert targets[0, 0].argmax() == 30 * 48 + 7 and targets[0, 0, 30, 7] == 1
    logits = torch.full((1, 1, 64, 48), -100.0)
    logits[0, 0, 30, 7] = 0
    torch.testing.assert_close(decode(logits)[..., :2], centre)


@pytest.mark.parametrize("sigma, largest", [(0.7, 0.01), (1.0, 0.04), (1.5, 0.06)])
def test_keypoints_are_read_off_between_cells(sigma, largest):
    points = keypoints()
    found = decode(heatmap_targets(points, SIZE, sigma).log())
    assert distances(found, points).max() < largest  # px; the first 5 x 5 window alone: 0.25 at sigma 1


def test_keypoints_are_read_off_udp_heatmaps():
    points = keypoints()
    found = decode_udp(0.8 * udp_targets(points, SIZE))
    assert distances(found, points).max() < 0.01
    assert 0.74 < found[..., 2].min() and found[..., 2].max() <= 0.8


def test_a_second_mode_moves_nothing_but_confidence():
    points = keypoints(50, margin=60)
    target = heatmap_targets(points, SIZE)
    other = heatmap_targets(torch.full_like(points, 12.0), SIZE)
    one, two = (decode((share * target + (1 - share) * other).log()) for share in (1.0, 0.7))
    assert distances(two, points).max() < 0.04
    torch.testing.assert_close(two[..., 2], 0.7 * one[..., 2], atol=1e-3, rtol=0)


def test_confidence_is_the_probability_of_the_window():
    uniform = decode(torch.zeros(1, 1, 64, 48))
    logits = torch.zeros(1, 1, 64, 48)
    logits[0, 0, 20, 20] = 1e-3  # the window lies about it, all of it within the map
    assert decode(logits)[0, 0, 2] == pytest.approx(25 / (64 * 48), rel=1e-3)
    assert uniform.isfinite().all()
    sure = decode(heatmap_targets(keypoints(1), SIZE).log())[..., 2]
    assert (sure > 0.96).all() and (sure <= 1 + 1e-5).all()


def test_keypoints_at_the_border_stay_within_a_cell_of_it():
    corners = torch.tensor([[[0.0, 0.0], [191.0, 255.0], [95.5, 0.0]]])
    found = decode(heatmap_targets(corners, SIZE).log())[..., :2]
    assert (found - corners).abs().max() < 4


def test_losses_are_least_at_the_target_and_blind_where_the_weight_is_0():
    points = keypoints(2)
    weight = torch.ones(2, 17)
    weight[0, 3] = 0
    for loss, targets, best in [
        (softmax_cross_entropy, heatmap_targets(points, SIZE), heatmap_targets(points, SIZE).log()),
        (mean_squared_error, udp_targets(points, SIZE), udp_targets(points, SIZE)),
    ]:
        heatmaps = best.clone().clamp(min=-60).requires_grad_()
        least = loss(heatmaps, targets, weight)
        (gradient,) = torch.autograd.grad(least, heatmaps)
        assert gradient.abs().max() < 1e-6
        blind, seen = heatmaps.detach().clone(), heatmaps.detach().clone()
        blind[0, 3, :, ::2] += 2
        seen[0, 4, :, ::2] += 2
        assert loss(blind, targets, weight) == least
        assert loss(seen, targets, weight) > least
        assert loss(seen, targets, torch.zeros(2, 17)) == 0


def test_half_precision_is_read_in_float32():
    points = keypoints(5)
    logits = heatmap_targets(points, SIZE).log().clamp(min=-30)
    assert distances(decode(logits.bfloat16()), points).max() < 0.2
    assert decode(logits.bfloat16()).dtype == torch.float32
