"""Errors of estimated cues, for training on exact ones: a network that saw only exact cues trusts estimates too much.

All draws are from torch's global generator, one of each kind a map. Maps are worked on at half their size, which is
fine enough for the blur that all get.
"""

import math
from functools import lru_cache

import torch
from torch.nn.functional import interpolate, pad

_BLURS = torch.linspace(1.0, 4.0, 13).tolist()  # px, standard deviations
_HALVING = 1 / 4  # px^2, variance of the blur of `_halved`
_DEPTH_SCALE, _DEPTH_SHIFT = 1.3, 0.3  # greatest factor or divisor; standard deviation, in MADs
_WARP = 0.8  # greatest bend of the monotone warp; 1 would be flat at an end
_HOLES, _HOLE_SHARE, _HOLE_SIZES = 2, 0.3, (0.05, 0.25)  # at most; probability of each; share of the map's sides
_FLOW_SCALE = (0.7, 1.1)  # estimates fall short of fast limbs
_FLOW_NOISE, _STILL = 0.2, 0.5  # greatest share of the map's root mean square speed, and px added to that
_NOISE_SIZE = 8  # px, of the noise's grains
_BLEED = 4  # px, greatest spread of what is faster over its surroundings


def degrade_depth(depth):
    """Return normalised depth (B, 1, H, W) as an estimator might tell it.

    It is bent by a monotone function, scaled and shifted, blurred by about 1 to 4 px, and has holes, which are 0: the median.
    """
    count, _, height, width = depth.shape
    half = _halved(depth)
    low, high = half.amin((2, 3), keepdim=True), half.amax((2, 3), keepdim=True)
    share = (half - low) / (high - low).clamp(min=1e-6)
    bend = _between(-_WARP, _WARP, half)
    half = half + (high - low) * bend * share * (1 - share)
    scale = _between(-1, 1, half).mul(math.log(_DEPTH_SCALE)).exp()
    half = half * scale + _DEPTH_SHIFT * torch.randn(count, 1, 1, 1, device=depth.device)
    return _blurred(half, height, width).masked_fill_(_holes(depth), 0.0)


def degrade_flow(flow):
    """Return flow (B, 2, H, W) px as an estimator might tell it.

    Fast parts bleed up to 4 px over their surroundings in one direction; it falls short or exceeds by a factor, has noise
    of 8 px grains of up to a fifth of its speed, and is blurred by about 1 to 4 px.
    """
    count, _, height, width = flow.shape
    half = _bled(_halved(flow))
    speed = half.square().sum(1, keepdim=True).mean((2, 3), keepdim=True).sqrt()
    grains = torch.randn(count, 2, -(-height // _NOISE_SIZE), -(-width // _NOISE_SIZE), device=flow.device)
    noise = _between(0, _FLOW_NOISE, half) * (speed + _STILL) * grains
    noise = interpolate(noise, half.shape[2:], mode="bilinear", align_corners=False)
    half = half * _between(*_FLOW_SCALE, half) + noise
    return _blurred(half, height, width)


def _between(low, high, maps):
    """Return (B, 1, 1, 1) uniform draws."""
    return low + (high - low) * torch.rand(len(maps), 1, 1, 1, device=maps.device)


def _halved(maps):
    """Return maps of half the size, means of two px of four: half the work, and the blur hides the rest."""
    if any(odd := [side % 2 for side in maps.shape[2:]]):
        maps = pad(maps, (0, odd[1], 0, odd[0]), mode="replicate")
    return (maps[..., ::2, ::2] + maps[..., 1::2, 1::2]) / 2


def _blurred(half, height, width):
    """Return maps (B, C, H, W) of those of half the size, with a Gaussian blur each of a standard deviation of `_BLURS`."""
    chosen = torch.randint(len(_BLURS), (len(half), 1), device=half.device).expand(-1, half.shape[1]).flatten()
    down, across = (_kernels(side, half.device)[chosen] for side in (height, width))
    rows = torch.bmm(half.flatten(0, 1), across.mT)
    return torch.bmm(down, rows).view(*half.shape[:2], height, width)


@lru_cache(maxsize=16)
def _kernels(side, device):
    """Return matrices (blurs, side, half of it) that double a side and blur it, together with the halving by `_BLURS`."""
    place = (torch.arange(side, device=device) + 0.5) / 2
    half = torch.arange(-(-side // 2), device=device) + 0.5
    variance = (torch.tensor(_BLURS, device=device).square() - _HALVING).div(4)[:, None, None]
    weight = ((place[:, None] - half).square() / (-2 * variance)).exp()
    return weight / weight.sum(2, keepdim=True)


def _bled(flow):
    """Return flow (B, 2, h, w) of half the size where each place has what is faster: its own or a neighbour's flow."""
    count, _, height, width = flow.shape
    reach = _BLEED // 2
    shift = torch.randint(-reach, reach + 1, (2, count, 1), device=flow.device)
    rows = (torch.arange(height, device=flow.device) + shift[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=flow.device) + shift[1]).clamp(0, width - 1)
    neighbour = (rows[:, :, None] * width + columns[:, None]).flatten(1)
    speed = flow.square().sum(1).flatten(1)
    own = torch.arange(height * width, device=flow.device)
    faster = torch.where(speed.gather(1, neighbour) > speed, neighbour, own)
    return flow.flatten(2).gather(2, faster[:, None].expand(-1, 2, -1)).view_as(flow)


def _holes(maps):
    """Return (B, 1, H, W) bool, True in rectangles."""
    draws = len(maps), _HOLES, 1
    there, inside = torch.rand(draws, device=maps.device) < _HOLE_SHARE, []
    for side in maps.shape[2:]:
        middle = side * torch.rand(draws, device=maps.device)
        low, high = (share * side / 2 for share in _HOLE_SIZES)
        reach = low + (high - low) * torch.rand(draws, device=maps.device)
        inside.append(((torch.arange(side, device=maps.device) + 0.5 - middle).abs() < reach).float())
    return ((there * inside[0]).mT @ inside[1] > 0)[:, None]
