"""Motion capture as any camera and any detector may see it: clips that are drawn anew each time they are looked at.

For training on little motion and use on any video. Each clip draws

- a speed, a mirror image, a body (lengths of limbs), arms and legs of another clip of the batch, hips, knees, waist and
  arms bent further, all limbs a little, and the whole body tilted;
- a camera (lib/data/synthetic/cameras.py): from where, how high, how far, its focal length and roll, and where in its
  image the person is;
- a detector (lib/data/synthetic/simulated_detector.py) and its errors.

Targets are root-relative, in m of a body whose limbs are `STANDARD_SIZE` long together, in the axes of a camera that
is turned to look at the person (lib/body/normalize.py).
"""

import math

import torch

from lib.body.normalize import crop, towards
from lib.body.skeleton import FLIPPED, JOINTS, LIMBS, ROOT, root_relative
from lib.data.motion_files import FPS as MOTION_FPS
from lib.data.synthetic.cameras import draw_cameras
from lib.data.synthetic.draws import between, some, where
from lib.data.synthetic.simulated_detector import SimulatedDetector
from lib.data.synthetic.trunk import trunk_axes

STANDARD_SIZE = 3.98  # m, the 16 limbs' lengths together: that of CMU's skeletons

_SPEED = (1.0, 5.0)  # rows of motion capture, 60 a second, from one frame to the next
_PLAIN_SPEED = 2.0
_LIMB_LENGTHS = 0.1  # std of a limb's length, left and right alike
_OTHERS_LIMBS = 0.3  # share of clips that get the arms of another, and of those that get the legs
_BEND = 0.08  # std of a limb's direction, the same in all of a clip
_FLEXED = 0.35  # share of clips whose legs are bent further, of those whose waist is, of those whose arms are turned
_HIP, _KNEE, _WAIST, _ARM = (-0.4, 1.9), (0.0, 2.1), (-0.3, 1.5), 1.2  # rad: ranges of bends, std of an arm's turn
_TILTED, _TILT = 0.2, math.radians(60)  # share of clips, and up to how far
_ARMS, _LEGS = ((8, 11, 12, 13), (8, 14, 15, 16)), ((0, 4, 5, 6), (0, 1, 2, 3))
_LENGTH_OF = (0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 7, 8, 9)  # by limb: which of 10 lengths it takes


class Motion:
    """Motion capture at 60 frames per second: `joints` (n, 17, 3), m, z up; `start` (m + 1,) first rows of its clips."""

    def __init__(self, joints, start):
        self.joints = torch.as_tensor(joints, dtype=torch.float32)
        self.start = [int(row) for row in start]

    def shots(self, frames, stride):
        """(k, 2) first and last row that a clip of `frames` may show, a shot every `stride` rows."""
        span = math.ceil(_SPEED[1] * (frames - 1))
        least = math.ceil(_SPEED[0] * (frames - 1))
        found = [
            (first, min(first + span, end - 1))
            for begin, end in zip(self.start[:-1], self.start[1:])
            for first in range(begin, end - least, stride)
        ]
        return torch.tensor(found).reshape(-1, 2)

    def at(self, rows):
        """Joints (..., 17, 3) at rows (...) that need not be whole."""
        before = rows.floor().long().clamp(max=len(self.joints) - 2)
        return torch.lerp(self.joints[before], self.joints[before + 1], (rows - before)[..., None, None])


class Views:
    """Draws views of `frames` frames; all random numbers are those of torch's global generator.

    Args:
        motion: `Motion`.
        detector: what sees the joints; a `SimulatedDetector` by default.
        flip: whether half of the clips are mirrored.
    """

    def __init__(self, motion, frames, detector=None, flip=True):
        self.motion, self.frames, self.flip = motion, frames, flip
        self.detector = detector or SimulatedDetector()

    def __call__(self, shots, plain=False):
        """Shots (B, 2) -> network input (B, F, 17, 3), target (B, F, 17, 3); plain: bodies and speeds as recorded."""
        joints, seconds = self._plain_bodies(shots) if plain else self._bodies(shots)
        joints = joints * (STANDARD_SIZE / _limbs(joints).norm(dim=-1).sum(-1).mean(1))[:, None, None, None]
        rotation, offset, focal, half = draw_cameras(joints)
        target = joints @ rotation.mT[:, None] + offset[:, None, None]
        kinds = self.detector.kinds(len(shots))
        meant = self.detector.definitions(joints, kinds) @ rotation.mT[:, None] + offset[:, None, None]
        inputs, centre, _ = crop(self.detector.detect(meant, focal, half, seconds, kinds))
        return inputs, root_relative(target) @ towards(centre, focal[:, None, None]).mT

    def _plain_bodies(self, shots):
        return self._play(shots, torch.full((len(shots),), _PLAIN_SPEED))

    def _bodies(self, shots):
        joints, seconds = self._play(shots, between(len(shots), *_SPEED), torch.rand(len(shots)))
        mirrored = joints[:, :, list(FLIPPED)] * torch.tensor([-1.0, 1, 1])
        joints = where(some(len(shots), 0.5 if self.flip else 0.0), mirrored, joints)
        for chains in (_ARMS, _LEGS):
            joints = where(some(len(shots), _OTHERS_LIMBS), _with_limbs_of(joints, joints.roll(1, 0), chains), joints)
        return _tilt(_reshape(_flex(joints))), seconds

    def _play(self, shots, speed, later=0.0):
        """Return joints (B, F, 17, 3) and the seconds (B,) from frame to frame.

        later: (B,), where a clip begins within its shot, from 0 to the latest, 1.
        """
        first, last = shots.unbind(1)
        speed = torch.minimum(speed, (last - first) / (self.frames - 1))
        first = first + later * (last - first - speed * (self.frames - 1))
        return self.motion.at(first[:, None] + torch.arange(self.frames) * speed[:, None]), speed / MOTION_FPS


def _with_limbs_of(joints, others, chains):
    """Joints (B, F, 17, 3) whose chains of limbs stand to the trunk as those of `others` do."""
    turn = trunk_axes(joints).mT @ trunk_axes(others)
    result = joints.clone()
    for chain in chains:
        for parent, child in zip(chain[1:], chain[2:]):
            limb = (turn @ (others[:, :, child] - others[:, :, parent])[..., None])[..., 0]
            result[:, :, child] = result[:, :, parent] + limb
    return result


def _flex(joints):
    """Joints (B, F, 17, 3) of which some clips sit, crouch, kick or stoop: bent further by angles of the whole clip."""
    clips = len(joints)
    trunk, limbs = trunk_axes(joints), _limbs(joints)
    bend = torch.zeros(clips, len(LIMBS))  # about the trunk's right: legs forwards, the trunk backwards
    legs, waist = some(clips, _FLEXED), torch.where(some(clips, _FLEXED), between(clips, *_WAIST), 0.0)
    both = between(clips, *_HIP)
    for thigh, shin in ((1, 2), (4, 5)):
        hip = (both + 0.4 * torch.randn(clips)).clamp(*_HIP)
        bend[:, thigh] = torch.where(legs, hip, 0.0)
        bend[:, shin] = torch.where(legs, hip - between(clips, *_KNEE), 0.0)
    bend[:, 6] = -waist / 2
    bend[:, 7:] = -waist[:, None]
    limbs = _turn(limbs, trunk[:, :, None, 0], bend[:, None, :, None])
    for upper, lower in ((11, 12), (14, 15)):
        axis = torch.nn.functional.normalize(torch.randn(clips, 1, 1, 3), dim=-1) @ trunk
        angle = torch.where(some(clips, _FLEXED), _ARM * torch.randn(clips), 0.0)[:, None, None, None]
        limbs[:, :, [upper, lower]] = _turn(limbs[:, :, [upper, lower]], axis, angle)
    return _joints(joints[:, :, ROOT], limbs)


def _turn(vectors, axis, angle):
    """Vectors (..., 3) turned about unit axes by angles (..., 1), rad (Rodrigues)."""
    axis = axis.expand_as(vectors)
    along = (vectors * axis).sum(-1, keepdim=True) * axis
    return along + angle.cos() * (vectors - along) + angle.sin() * torch.linalg.cross(axis, vectors)


def _reshape(joints):
    """Joints (B, F, 17, 3) with limbs of other lengths, bent a little."""
    clips = len(joints)
    limbs = _limbs(joints)
    length = limbs.norm(dim=-1, keepdim=True)
    bent = limbs / length.clamp(min=1e-6) + _BEND * torch.randn(clips, 1, len(LIMBS), 3)
    factor = (1 + _LIMB_LENGTHS * torch.randn(clips, 10)).clamp(0.7, 1.4)
    factor[:, 0] *= 1.2  # CMU's hips are close together
    bent = torch.nn.functional.normalize(bent, dim=-1) * length * factor[:, None, list(_LENGTH_OF), None]
    return _joints(joints[:, :, ROOT] * factor[:, None, 1:2], bent)


def _tilt(joints):
    """Some clips turned about a level axis through the middle of the root's path."""
    clips = len(joints)
    angle = torch.where(some(clips, _TILTED), between(clips, -_TILT, _TILT), 0.0)
    heading = between(clips, 0, 2 * math.pi)
    axis = torch.stack([heading.cos(), heading.sin(), torch.zeros(clips)], dim=-1) * angle[:, None]
    middle = joints[:, :, ROOT].mean(1)[:, None, None]
    return (joints - middle) @ _rotation(axis).mT[:, None] + middle


def _limbs(joints):
    parent, child = zip(*LIMBS)
    return joints[:, :, list(child)] - joints[:, :, list(parent)]


def _joints(root, limbs):
    """Joints (B, F, 17, 3) of a root (B, F, 3) and limbs (B, F, 16, 3)."""
    placed = {ROOT: root}
    for number, (parent, child) in enumerate(LIMBS):
        placed[child] = placed[parent] + limbs[:, :, number]
    return torch.stack([placed[joint] for joint in range(len(JOINTS))], dim=2)


def _rotation(vector):
    """Rotations (B, 3, 3) by rotation vectors (B, 3)."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(-1, 3, 3))
