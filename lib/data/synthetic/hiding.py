"""Occlusion of joints: by the person's own body, or by objects."""

import torch

from lib.body.camera import project
from lib.body.skeleton import JOINTS
from lib.data.synthetic.draws import some

_COVERED = 0.35  # share of clips in which an object occludes the joints of one group, for some frames
_ALWAYS = 0.3  # share of those in which it does in all frames
_TOGETHER = ((1, 2, 3, 4, 5, 6), (2, 3, 5, 6), (3, 6), (2, 3), (5, 6), (12, 13), (15, 16), (13,), (16,), (9, 10))
_THICKNESS = {  # m: half the thickness of the body around a limb
    (0, 8): 0.13, (1, 2): 0.07, (2, 3): 0.05, (4, 5): 0.07, (5, 6): 0.05,
    (11, 12): 0.045, (12, 13): 0.04, (14, 15): 0.045, (15, 16): 0.04, (9, 10): 0.09,
}  # fmt: skip
_WITHIN = {(0, 8): (7,), (9, 10): (8,)}  # joints inside the body around a limb
_BEHIND = 0.08  # m: joints so much farther than a limb are hidden by it


def behind_body(joints):
    """Return (..., 17) bool: joints (..., 17, 3), camera axes, m, that the person's own trunk or a limb occludes."""
    places = project(joints, 1.0)
    a, b = (list(end) for end in zip(*_THICKNESS))
    start, limb = places[..., a, :], places[..., b, :] - places[..., a, :]
    off = places[..., None, :] - start[..., None, :, :]  # (..., 17, limbs, 2)
    along = (off * limb[..., None, :, :]).sum(-1) / limb.square().sum(-1).clamp(min=1e-6)[..., None, :]
    along = along.clamp(0, 1)
    distance = (off - along[..., None] * limb[..., None, :, :]).square().sum(-1)
    near, far = joints[..., None, a, 2], joints[..., None, b, 2]
    depth = near + along * (far - near)
    covers = (distance * depth.square() < _REACH.square()) & (depth + _BEHIND < joints[..., 2:]) & _ELSEWHERE
    return covers.any(-1)


def behind_objects(clips, frames):
    """Return (B, F, 17) bool: joints that random objects occlude."""
    which = _GROUPS[torch.randint(len(_GROUPS), (clips,))]
    covered = spans(clips, frames, torch.ones(clips)) | some(clips, _ALWAYS)[:, None]
    return (covered & some(clips, _COVERED)[:, None])[..., None] & which[:, None]


def spans(clips, frames, share):
    """Return (B, F) bool: in a share (B,) of the clips, some consecutive frames."""
    begin = torch.randint(frames, (clips, 1))
    length = torch.randint(1, max(2, frames // 2), (clips, 1))
    frame = torch.arange(frames)
    return (frame >= begin) & (frame < begin + length) & (torch.rand(clips) < share)[:, None]


def members(joints):
    """Return (17,) bool: whether a joint is one of these."""
    return torch.isin(torch.arange(len(JOINTS)), torch.tensor(joints))


_GROUPS = torch.stack([members(joints) for joints in _TOGETHER])
_REACH = torch.tensor(list(_THICKNESS.values()))
_ELSEWHERE = ~torch.stack([members((*limb, *_WITHIN.get(limb, ()))) for limb in _THICKNESS], dim=1)  # (17, limbs)
