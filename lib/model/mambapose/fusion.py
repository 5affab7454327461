"""From the images of all streams to the tokens that the encoder sees."""

import torch
from torch import nn

from lib.errors import UserError
from lib.model.mambapose.stem import slices_of
from lib.model.recompute import recomputed_in_slices

CHANNELS = {"rgb": 3, "flow": 3, "depth": 1}  # of `prepared` images
CUES = ("flow", "depth")
DROPPED = 0.3  # share of the samples that a cue is hidden from in training
GATE = -2.0  # gates are this far from open at first


def prepared(stream, image):
    """Return an image as a stem reads it: RGB about 0, flow in image heights and its length, depth as it is."""
    if stream == "rgb":
        return (image - 0.5) / 0.25
    if stream == "flow":
        flow = image / image.shape[2]
        return torch.cat([flow, torch.hypot(*flow.split(1, dim=1))], dim=1)
    return image


class Fusion(nn.Module):
    """Tokens of the images of some streams; called with rgb, flow, depth (B, ?, H, W), None for what there is not.

    `draw_cues` says which samples see which cue: (B, 2) of 1 and 0 in the order of `CUES`, None for all.
    """

    def __init__(self, channels, recompute):
        super().__init__()
        self.channels = channels
        self.recompute = recompute

    def forward(self, rgb, flow=None, depth=None, shown=None):
        images = (rgb, flow, depth, shown)
        if not self.recompute:
            return self._tokens(*images)
        return recomputed_in_slices(self._tokens, slices_of(rgb, self.channels), *images)

    def draw_cues(self, batch):
        return None

    def _tokens(self, rgb, flow, depth, shown):
        raise NotImplementedError


class EarlyFusion(Fusion):
    """One stem over the channels of all streams together; every stream has to be there."""

    def __init__(self, stem, channels, streams, recompute):
        super().__init__(channels, recompute)
        self.streams = streams
        self.stem = stem(sum(CHANNELS[stream] for stream in streams), channels, recompute)

    def _tokens(self, rgb, flow, depth, shown):
        images = {"rgb": rgb, "flow": flow, "depth": depth}
        for stream in self.streams:
            if images[stream] is None:
                raise UserError(f"{stream}: is missing, which fusion: early cannot do without; use fusion: gated")
        return self.stem(torch.cat([prepared(stream, images[stream]) for stream in self.streams], dim=1))


class GatedFusion(Fusion):
    """x = rgb + sum over cues of sigmoid(gate(rgb, cue)) * cue; a cue that is missing or hidden adds nothing.

    In training each cue is hidden from some samples, so that one network serves with and without it.
    """

    def __init__(self, stem, channels, streams, recompute):
        super().__init__(channels, recompute)
        self.rgb = stem(CHANNELS["rgb"], channels, recompute)
        seen = [cue for cue in CUES if cue in streams]
        self.cues = nn.ModuleDict({cue: _Cue(stem, CHANNELS[cue], channels, recompute) for cue in seen})

    def draw_cues(self, batch):
        return torch.empty(batch, len(CUES)).bernoulli_(1 - DROPPED) if self.training and self.cues else None

    def _tokens(self, rgb, flow, depth, shown):
        rgb = fused = self.rgb(prepared("rgb", rgb))
        for number, (cue, image) in enumerate(zip(CUES, (flow, depth))):
            if image is None:
                continue
            part = self.cues[cue](rgb, prepared(cue, image))
            if shown is not None:
                part = part * shown[:, number].to(part, non_blocking=True).view(-1, 1, 1, 1)
            fused = fused + part
        return fused


class _Cue(nn.Module):
    """The gated part of one cue: its own stem, a quarter as wide."""

    def __init__(self, stem, in_channels, channels, recompute):
        super().__init__()
        self.stem = stem(in_channels, channels // 4, recompute)
        self.project = nn.Linear(channels // 4, channels)
        self.gate = nn.Linear(2 * channels, channels)
        nn.init.constant_(self.gate.bias, GATE)

    def forward(self, rgb, image):
        cue = self.project(self.stem(image))
        return torch.sigmoid(self.gate(torch.cat([rgb, cue], dim=-1))) * cue


FUSIONS = {"gated": GatedFusion, "early": EarlyFusion}
