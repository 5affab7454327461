"""Random views of motion capture: training clips with random bodies, synthetic cameras and simulated detectors.

They make a network trained on little motion work on any video. Each clip samples

- a speed, mirroring, a body (lengths of limbs), arms and legs of another clip of the batch, further flexion of hips,
  knees, waist and arms, a small rotation of all limbs, and a tilt of the whole body;
- a camera (lib/data/synthetic/cameras.py): direction, elevation, distance, focal length, roll, and the person's position in
  its image;
- a detector (lib/data/synthetic/simulated_detector.py) and its errors.

Targets are root-relative, in m of a body whose limbs' lengths sum to `STANDARD_SIZE`, in the axes of a camera that is
turned to look at the person (`lib.body.camera.look_at_rotation`).
"""

import math

import torch

from lib.body.camera import look_at_rotation, rotate
from lib.body.normalize import normalize_person
from lib.body.skeleton import JOINTS, LIMBS, ROOT, flip, limb_vectors, root_relative
from lib.data.motion_files import FPS as MOTION_FPS
from lib.data.synthetic.cameras import draw_cameras
from lib.data.synthetic.draws import between, some, where
from lib.data.synthetic.simulated_detector import SimulatedDetector
from lib.data.synthetic.trunk import trunk_axes

STANDARD_SIZE = 3.98  # m, sum of the lengths of the 16 limbs: that of CMU's skeletons

_SPEED = (1.0, 5.0)  # frames of motion capture, 60 per second, from one frame of a clip to the next
_PLAIN_SPEED = 2.0
_LIMB_LENGTHS = 0.1  # std of a limb's length, left and right alike
_OTHERS_LIMBS = 0.3  # share of clips that get the arms of another, and of those that get the legs
_BEND = 0.08  # std of the error of a limb's direction, constant in a clip
_FLEXED = 0.35  # share of clips whose legs are flexed further; the same for the waist; for rotated arms
_HIP, _KNEE, _WAIST, _ARM = (
    (-0.4, 1.9),
    (0.0, 2.1),
    (-0.3, 1.5),
    1.2,
)  # rad: ranges of flexion, std of an arm's rotation
_TILTED, _TILT = 0.2, math.radians(60)  # share of clips, and the largest angle
_ARMS, _LEGS = ((8, 11, 12, 13), (8, 14, 15, 16)), ((0, 4, 5, 6), (0, 1, 2, 3))
_LENGTH_OF = (0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 7, 8, 9)  # by limb: index of its length, one of 10


class Motion:
    """Motion capture at 60 frames per second: `joints` (n, 17, 3), m, z up; `start` (m + 1,) first frames of sequences."""

    def __init__(self, joints, start):
        self.joints = torch.as_tensor(joints, dtype=torch.float32)
        self.start = [int(frame) for frame in start]

    def intervals(self, frames, stride):
        """Return the first and last frame (k, 2) of intervals that a clip of `frames` may span, one every `stride` frames."""
        span = math.ceil(_SPEED[1] * (frames - 1))
        least = math.ceil(_SPEED[0] * (frames - 1))
        found = [
            (first, min(first + span, end - 1))
            for begin, end in zip(self.start[:-1], self.start[1:])
            for first in range(begin, end - least, stride)
        ]
        return torch.tensor(found).reshape(-1, 2)

    def at(self, frames):
        """Return joints (..., 17, 3) at fractional frame numbers (...), interpolated linearly."""
        before = frames.floor().long().clamp(max=len(self.joints) - 2)
        return torch.lerp(self.joints[before], self.joints[before + 1], (frames - before)[..., None, None])


class ViewSampler:
    """Sampler of random views of `frames` frames; all random numbers are from torch's global generator.

    Args:
        motion: `Motion`.
        detector: a `SimulatedDetector` by default.
        flip: whether half of the clips are mirrored.
    """

    def __init__(self, motion, frames, detector=None, flip=True):
        self.motion, self.frames, self.flip = motion, frames, flip
        self.detector = detector or SimulatedDetector()

    def __call__(self, intervals, plain=False):
        """Return network inputs (B, F, 17, 3) and targets (B, F, 17, 3) of one random view of each interval (B, 2).

        plain: bodies and speeds as recorded.
        """
        joints, seconds = self._plain_bodies(intervals) if plain else self._bodies(intervals)
        joints = joints * (STANDARD_SIZE / limb_vectors(joints).norm(dim=-1).sum(-1).mean(1))[:, None, None, None]
        rotation, offset, focal, half = draw_cameras(joints)
        target = joints @ rotation.mT[:, None] + offset[:, None, None]
        kinds = self.detector.kinds(len(intervals))
        meant = self.detector.definitions(joints, kinds) @ rotation.mT[:, None] + offset[:, None, None]
        inputs, centre, _ = normalize_person(self.detector.detect(meant, focal, half, seconds, kinds))
        return inputs, root_relative(target) @ look_at_rotation(centre, focal[:, None, None]).mT

    def _plain_bodies(self, intervals):
        return self._play(intervals, torch.full((len(intervals),), _PLAIN_SPEED))

    def _bodies(self, intervals):
        clips = len(intervals)
        joints, seconds = self._play(intervals, between(clips, *_SPEED), torch.rand(clips))
        return _tilt(_reshape(vary_poses(joints, 0.5 if self.flip else 0.0))), seconds

    def _play(self, intervals, speed, later=0.0):
        """Return joints (B, F, 17, 3) and the seconds (B,) from frame to frame.

        later: (B,), where a clip begins within its interval, 0 for the earliest, 1 for the latest.
        """
        first, last = intervals.unbind(1)
        speed = torch.minimum(speed, (last - first) / (self.frames - 1))
        first = first + later * (last - first - speed * (self.frames - 1))
        return self.motion.at(first[:, None] + torch.arange(self.frames) * speed[:, None]), speed / MOTION_FPS


def vary_poses(joints, mirrored=0.5):
    """Return joints (B, F, 17, 3): a share mirrored, some with arms or legs of another clip, some flexed further."""
    clips = len(joints)
    joints = where(some(clips, mirrored), flip(joints), joints)
    for chains in (_ARMS, _LEGS):
        joints = where(some(clips, _OTHERS_LIMBS), _with_limbs_of(joints, joints.roll(1, 0), chains), joints)
    return _flex(joints)


def _with_limbs_of(joints, others, chains):
    """Return joints (B, F, 17, 3) whose chains of limbs have the pose relative to the trunk that those of `others` have."""
    turn = trunk_axes(joints).mT @ trunk_axes(others)
    result = joints.clone()
    for chain in chains:
        for parent, child in zip(chain[1:], chain[2:]):
            limb = (turn @ (others[:, :, child] - others[:, :, parent])[..., None])[..., 0]
            result[:, :, child] = result[:, :, parent] + limb
    return result


def _flex(joints):
    """Return joints (B, F, 17, 3), some clips flexed further by angles constant in a clip: they sit, crouch, kick or stoop."""
    clips = len(joints)
    trunk, limbs = trunk_axes(joints), limb_vectors(joints)
    bend = torch.zeros(clips, len(LIMBS))  # about the trunk's right: legs forwards, the trunk backwards
    legs, waist = some(clips, _FLEXED), torch.where(some(clips, _FLEXED), between(clips, *_WAIST), 0.0)
    both = between(clips, *_HIP)
    for thigh, shin in ((1, 2), (4, 5)):
        hip = (both + 0.4 * torch.randn(clips)).clamp(*_HIP)
        bend[:, thigh] = torch.where(legs, hip, 0.0)
        bend[:, shin] = torch.where(legs, hip - between(clips, *_KNEE), 0.0)
    bend[:, 6] = -waist / 2
    bend[:, 7:] = -waist[:, None]
    limbs = rotate(limbs, trunk[:, :, None, 0], bend[:, None, :, None])
    for upper, lower in ((11, 12), (14, 15)):
        axis = torch.nn.functional.normalize(torch.randn(clips, 1, 1, 3), dim=-1) @ trunk
        angle = torch.where(some(clips, _FLEXED), _ARM * torch.randn(clips), 0.0)[:, None, None, None]
        limbs[:, :, [upper, lower]] = rotate(limbs[:, :, [upper, lower]], axis, angle)
    return _joints(joints[:, :, ROOT], limbs)


def _reshape(joints):
    """Return joints (B, F, 17, 3) with limbs of other lengths and slightly other directions."""
    clips = len(joints)
    limbs = limb_vectors(joints)
    length = limbs.norm(dim=-1, keepdim=True)
    bent = limbs / length.clamp(min=1e-6) + _BEND * torch.randn(clips, 1, len(LIMBS), 3)
    factor = (1 + _LIMB_LENGTHS * torch.randn(clips, 10)).clamp(0.7, 1.4)
    factor[:, 0] *= 1.2  # CMU's hips are close together
    bent = torch.nn.functional.normalize(bent, dim=-1) * length * factor[:, None, list(_LENGTH_OF), None]
    return _joints(joints[:, :, ROOT] * factor[:, None, 1:2], bent)


def _tilt(joints):
    """Return joints (B, F, 17, 3), some clips rotated about a horizontal axis through the mean position of the root."""
    clips = len(joints)
    angle = torch.where(some(clips, _TILTED), between(clips, -_TILT, _TILT), 0.0)
    heading = between(clips, 0, 2 * math.pi)
    axis = torch.stack([heading.cos(), heading.sin(), torch.zeros(clips)], dim=-1)[:, None, None]
    middle = joints[:, :, ROOT].mean(1)[:, None, None]
    return rotate(joints - middle, axis, angle[:, None, None, None]) + middle


def _joints(root, limbs):
    """Return joints (B, F, 17, 3) of a root (B, F, 3) and limb vectors (B, F, 16, 3)."""
    placed = {ROOT: root}
    for number, (parent, child) in enumerate(LIMBS):
        placed[child] = placed[parent] + limbs[:, :, number]
    return torch.stack([placed[joint] for joint in range(len(JOINTS))], dim=2)
