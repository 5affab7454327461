"""Heatmaps of keypoints: targets to learn, and reading keypoints off.

A heatmap has one cell for `STRIDE` x `STRIDE` px. Pixel (0, 0) has its centre at the coordinates (0, 0); the centre of
the cell in row i and column j is then at x = (j + 0.5) * STRIDE - 0.5 px and y = (i + 0.5) * STRIDE - 0.5 px.
"""

import torch
from einops import einsum

from lib.model.mambapose.heads import STRIDE

REFINEMENTS = 3  # after the first estimate; on a Gaussian each takes nine tenths of the error or more
WINDOW_OF_SIGMA = 5  # a window as wide as this many sigmas


def heatmap_targets(keypoints, size, sigma=1.0):
    """Return Gaussians about keypoints that sum to 1: the target of `softmax_cross_entropy`.

    Args:
        keypoints: (B, J, 2) or more, px of the input image, x and y first.
        size: (height, width) of the input image, px.
        sigma: cells.

    Returns:
        (B, J, H / 4, W / 4). A keypoint outside of the image is drawn at its border: give it the weight 0.
    """
    columns, rows = (-0.5 * (d / sigma).square() for d in _distances(keypoints, size))
    return einsum(rows.softmax(-1), columns.softmax(-1), "b j h, b j w -> b j h w")


def udp_targets(keypoints, size, sigma=2.0):
    """Return Gaussians about keypoints with height 1: the target of the mean squared error, as ViTPose learns.

    Their centres are not rounded to cells (unbiased data processing, Huang et al., arXiv 1911.07524). Arguments and
    shape as of `heatmap_targets`; beyond the image there is nothing.
    """
    columns, rows = ((-0.5 * (d / sigma).square()).exp() for d in _distances(keypoints, size))
    return einsum(rows, columns, "b j h, b j w -> b j h w")


def softmax_cross_entropy(logits, targets, weight):
    """Return the mean cross-entropy of heatmaps, each one distribution over its cells, over keypoints by their weight.

    logits, targets: (B, J, H, W), targets sum to 1; weight (B, J), 0 for what is not to be learnt.
    """
    losses = -(targets.flatten(2) * logits.flatten(2).float().log_softmax(-1)).sum(-1)
    return _weighted_mean(losses, weight)


def mean_squared_error(heatmaps, targets, weight):
    """Return the mean squared error of heatmaps (B, J, H, W) to `udp_targets`, over keypoints by their weight (B, J)."""
    return _weighted_mean((heatmaps.float() - targets).square().flatten(2).mean(-1), weight)


def _weighted_mean(losses, weight):
    return (losses * weight).sum() / weight.sum().clamp(min=1)


def decode(logits, window=5):
    """Return keypoints (B, J, 3) of heatmap logits (B, J, H, W): x and y in px of the input image, and confidence.

    Confidence is the probability of the window of `window` x `window` cells, all cells together having 1; the place is
    its mean there. The window is first about the most probable cell and then about the mean itself, with cells at its
    border counted in part: on a Gaussian between two cells the first alone is off by up to 0.2 px towards the nearer.
    """
    share = logits.flatten(2).float().softmax(-1).view_as(logits)
    place, mass = _mean_in_window(share, window)
    return torch.cat([place, mass[..., None]], dim=-1)


def decode_udp(heatmaps, sigma=2.0):
    """Return keypoints as `decode` does of heatmaps that learnt `udp_targets`; confidence is the highest value."""
    heatmaps = heatmaps.float().clamp(min=0)
    place, _ = _mean_in_window(heatmaps, WINDOW_OF_SIGMA * sigma)
    return torch.cat([place, heatmaps.flatten(2).amax(-1, keepdim=True)], dim=-1)


def _mean_in_window(share, window):
    """Return the mean place, (B, J, 2), px, in a window of shares (B, J, H, W) about it, and their sum (B, J)."""
    _, _, height, width = share.shape
    most = share.flatten(2).argmax(-1)
    rows, columns = (torch.arange(size, device=share.device, dtype=share.dtype) for size in (height, width))
    y, x = (most // width).to(share), (most % width).to(share)
    for _ in range(1 + REFINEMENTS):
        in_x, in_y = _shares_in_window(columns, x, window), _shares_in_window(rows, y, window)
        seen = share * in_y[..., :, None] * in_x[..., None, :]
        mass = seen.sum((2, 3))
        x = (seen.sum(2) * columns).sum(-1) / mass.clamp(min=1e-12)
        y = (seen.sum(3) * rows).sum(-1) / mass.clamp(min=1e-12)
    return torch.stack([_pixel(x), _pixel(y)], dim=-1), mass


def _shares_in_window(cells, centre, window):
    """Return how much of each cell (N,) is within half a window of the centre (B, J), in cells: (B, J, N) in [0, 1]."""
    return ((window + 1) / 2 - (cells - centre[..., None]).abs()).clamp(0, 1)


def _pixel(cell):
    return (cell + 0.5) * STRIDE - 0.5


def _distances(keypoints, size):
    """Return the distances of columns (B, J, W) and rows (B, J, H) of cells to keypoints, in cells."""
    height, width = (pixels // STRIDE for pixels in size)
    for axis, cells in enumerate((width, height)):
        centres = _pixel(torch.arange(cells, device=keypoints.device, dtype=torch.float32))
        yield (centres - keypoints[..., axis, None].float()) / STRIDE
