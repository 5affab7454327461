"""Synthetic cameras as people hold them: any height, distance, lens and roll."""

import math

import torch

from lib.body.camera import orbit_rotation
from lib.body.skeleton import ROOT
from lib.data.synthetic.draws import between, some

_ELEVATION = (math.radians(8), math.radians(14))  # mean, std
_ROLL = math.radians(4)  # std
_UNUSUAL = 0.5  # share of cameras of uniform elevation within these; the same for roll up to this
_ELEVATIONS, _ROLLS = (math.radians(-25), math.radians(55)), math.radians(27)
_UPRIGHT = 0.45  # share of images in portrait format
_DISTANCE = (2.0, 12.0)  # m
_NEAREST = 0.6  # m, from the camera to any joint
_FOCAL = (0.7, 2.5)  # in units of the image's longer side
_SIDES = (0.56, 1.0)  # the image's shorter side
_OFF_CENTRE = 0.8  # largest offset of the person from the image's centre, in halves of the image


def draw_cameras(joints):
    """Return a camera for each of joints (B, F, 17, 3), z up.

    Returns:
        rotation (B, 3, 3) and offset (B, 3) m: joints @ rotation.T + offset is x right, y down, z forward;
        focal length (B,) and half the image's width and height (B, 2), in units of its longer side.
    """
    clips = len(joints)
    yaw = between(clips, 0, 2 * math.pi)
    roll = torch.where(some(clips, _UNUSUAL), between(clips, -_ROLLS, _ROLLS), _ROLL * torch.randn(clips))
    usual = (_ELEVATION[0] + _ELEVATION[1] * torch.randn(clips)).clamp(-0.5, 1.1)
    elevation = torch.where(some(clips, _UNUSUAL), between(clips, *_ELEVATIONS), usual)
    right, down, forward = orbit_rotation(yaw, elevation).unbind(-2)
    rotation = torch.stack(
        [
            roll.cos()[:, None] * right + roll.sin()[:, None] * down,
            roll.cos()[:, None] * down - roll.sin()[:, None] * right,
            forward,
        ],
        dim=1,
    )
    focal = between(clips, *map(math.log, _FOCAL)).exp()
    short = between(clips, *_SIDES)
    upright = some(clips, _UPRIGHT)[:, None]
    image = torch.stack([torch.ones(clips), short], dim=-1) / 2
    image = torch.where(upright, image.flip(-1), image)
    distance = between(clips, *map(math.log, _DISTANCE)).exp()
    place = image * _OFF_CENTRE * (2 * torch.rand(clips, 2) - 1) / focal[:, None]
    target = torch.cat([place, torch.ones(clips, 1)], dim=-1) * distance[:, None]
    turned = joints @ rotation.mT[:, None]
    offset = target - turned[:, :, ROOT].mean(1)
    nearest = (turned[..., 2] + offset[:, None, None, 2]).amin((1, 2))
    offset[:, 2] += (_NEAREST - nearest).clamp(min=0)
    return rotation, offset, focal, image
