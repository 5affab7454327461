"""Motion capture as any camera and any detector may see it: clips that are drawn anew each time they are looked at.

For training on little motion and use on any video. Each clip draws

- a speed, a mirror image, a body (lengths of limbs), arms and legs of another clip of the batch, hips, knees, waist and
  arms bent further, all limbs a little, and the whole body tilted;
- a camera: from where, how high, how far, its focal length and roll, and where in its picture the person is;
- a detector: where on the body it thinks a joint is (its own idea of a hip, say), errors that last and errors of a
  single frame, outliers, left taken for right, joints hidden or out of the picture, what it calls its confidence.

The pelvis, the spine and the thorax are means of hips and shoulders, as lib/video/detection/joints.py makes them.
Targets are root-relative, in m of a body whose limbs are `STANDARD_SIZE` long together, in the axes of a camera that
is turned to look at the person (lib/data/crop.py).
"""

import math

import torch

from lib.data.crop import crop, towards
from lib.data.skeleton import FLIPPED, JOINTS, LEFT, LIMBS, RIGHT, ROOT, root_relative

STANDARD_SIZE = 3.98  # m, the 16 limbs' lengths together: that of CMU's skeletons

_SPEED = (1.0, 5.0)  # rows of motion capture, 60 a second, from one frame to the next
_PLAIN_SPEED = 2.0
_LIMB_LENGTHS = 0.1  # std of a limb's length, left and right alike
_OTHERS_LIMBS = 0.3  # share of clips that get the arms of another, and of those that get the legs
_BEND = 0.08  # std of a limb's direction, the same in all of a clip
_FLEXED = (
    0.35  # share of clips whose legs are bent further, of those whose waist is, and of those whose arms are turned
)
_HIP, _KNEE, _WAIST, _ARM = (-0.4, 1.9), (0.0, 2.1), (-0.3, 1.5), 1.2  # rad: ranges of bends, std of an arm's turn
_TILTED, _TILT = 0.2, math.radians(60)  # share of clips, and up to how far

_ELEVATION = (math.radians(8), math.radians(14))  # mean, std
_ROLL = math.radians(4)  # std
_UNUSUAL = 0.5  # share of cameras of any elevation within these, and of those with any roll up to this
_ELEVATIONS, _ROLLS = (math.radians(-25), math.radians(55)), math.radians(27)
_UPRIGHT = 0.45  # share of images that are higher than wide
_EXACT = 0.2  # share of clips whose detector means the very joints of the motion capture, and hardly errs
_DISTANCE = (2.0, 12.0)  # m
_NEAREST = 0.6  # m, from the camera to any joint
_FOCAL = (0.7, 2.5)  # in units of the picture's longer side
_SIDES = (0.56, 1.0)  # the picture's shorter side
_OFF_CENTRE = 0.8  # how far to a side of the picture the person may be

# By joint: how far (std, m) detectors disagree about where it is, and the relative size of their errors.
_DEFINITION = (0, .03, .025, .03, .03, .025, .03, 0, 0, .04, .05, .03, .025, .025, .03, .025, .025)  # fmt: skip
_NOSE, _HEAD_TOP, _NOSE_TIP = 9, 10, 0.6  # the tip that detectors see is up to so much nearer to the head's top
_ERROR = (0, 1, 1, 1.4, 1, 1, 1.4, 0, 0, .7, .9, .9, 1.1, 1.5, .9, 1.1, 1.5)  # fmt: skip
_ERROR_SIZE = (0.006, 0.06)  # of a joint with error 1, in units of the person's size (lib/data/crop.py)
_ERROR_FRAMES = 6  # between independent errors of the kind that lasts
_OUTLIERS, _OUTLIER_SIZE = 0.01, 0.5
_SWAPS = 0.06  # share of clips in which left is taken for right for some frames
_HIDDEN = 0.35  # share of clips in which something hides joints for some frames
_GAPS = 0.1  # share of clips with frames in which nobody is found

_MEANS = {0: (1, 4), 7: (1, 4, 11, 14), 8: (11, 14)}  # joints that detectors do not have: means of others
_ARMS, _LEGS = ((8, 11, 12, 13), (8, 14, 15, 16)), ((0, 4, 5, 6), (0, 1, 2, 3))
_HIDDEN_TOGETHER = ((1, 2, 3, 4, 5, 6), (2, 3, 5, 6), (3, 6), (2, 3), (5, 6), (12, 13), (15, 16), (13,), (16,), (9, 10))
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
    """Draws views of `frames` frames; all random numbers are those of torch's global generator."""

    def __init__(self, motion, frames):
        self.motion, self.frames = motion, frames

    def __call__(self, shots, plain=False):
        """Shots (B, 2) -> network input (B, F, 17, 3), target (B, F, 17, 3); plain: bodies and speeds as recorded."""
        joints = self._plain_bodies(shots) if plain else self._bodies(shots)
        joints = joints * (STANDARD_SIZE / _limbs(joints).norm(dim=-1).sum(-1).mean(1))[:, None, None, None]
        rotation, offset, focal, picture = _cameras(joints)
        target = joints @ rotation.mT[:, None] + offset[:, None, None]
        exact = _some(len(shots), _EXACT)
        seen = _where(exact, joints, joints + _definitions(joints)) @ rotation.mT[:, None] + offset[:, None, None]
        places = seen[..., :2] / seen[..., 2:].clamp(min=0.1) * focal[:, None, None, None]
        inputs, centre, _ = crop(_detect(places, picture, exact))
        return inputs, root_relative(target) @ towards(centre, focal[:, None, None]).mT

    def _plain_bodies(self, shots):
        return self._play(shots, torch.full((len(shots),), _PLAIN_SPEED))

    def _bodies(self, shots):
        joints = self._play(shots, _between(len(shots), *_SPEED), torch.rand(len(shots)))
        mirrored = joints[:, :, list(FLIPPED)] * torch.tensor([-1.0, 1, 1])
        joints = _where(_some(len(shots), 0.5), mirrored, joints)
        for chains in (_ARMS, _LEGS):
            joints = _where(_some(len(shots), _OTHERS_LIMBS), _with_limbs_of(joints, joints.roll(1, 0), chains), joints)
        return _tilt(_reshape(_flex(joints)))

    def _play(self, shots, speed, later=0.0):
        """Joints (B, F, 17, 3); later: (B,), where a clip begins within its shot, from 0 to the latest, 1."""
        first, last = shots.unbind(1)
        speed = torch.minimum(speed, (last - first) / (self.frames - 1))
        first = first + later * (last - first - speed * (self.frames - 1))
        return self.motion.at(first[:, None] + torch.arange(self.frames) * speed[:, None])


def _with_limbs_of(joints, others, chains):
    """Joints (B, F, 17, 3) whose chains of limbs stand to the trunk as those of `others` do."""
    turn = _trunk(joints).mT @ _trunk(others)
    result = joints.clone()
    for chain in chains:
        for parent, child in zip(chain[1:], chain[2:]):
            limb = (turn @ (others[:, :, child] - others[:, :, parent])[..., None])[..., 0]
            result[:, :, child] = result[:, :, parent] + limb
    return result


def _trunk(joints):
    """Rotations (B, F, 3, 3) whose rows are the trunk's right, up and back."""
    up = torch.nn.functional.normalize(joints[:, :, 8] - joints[:, :, ROOT], dim=-1)
    across = joints[:, :, 1] - joints[:, :, 4] + joints[:, :, 14] - joints[:, :, 11]
    right = torch.nn.functional.normalize(across - (across * up).sum(-1, keepdim=True) * up, dim=-1)
    return torch.stack([right, up, torch.linalg.cross(right, up)], dim=-2)


def _flex(joints):
    """Joints (B, F, 17, 3) of which some clips sit, crouch, kick or stoop: bent further by angles of the whole clip."""
    clips = len(joints)
    trunk, limbs = _trunk(joints), _limbs(joints)
    bend = torch.zeros(clips, len(LIMBS))  # about the trunk's right: legs forwards, the trunk backwards
    legs, waist = _some(clips, _FLEXED), torch.where(_some(clips, _FLEXED), _between(clips, *_WAIST), 0.0)
    both = _between(clips, *_HIP)
    for thigh, shin in ((1, 2), (4, 5)):
        hip = (both + 0.4 * torch.randn(clips)).clamp(*_HIP)
        bend[:, thigh] = torch.where(legs, hip, 0.0)
        bend[:, shin] = torch.where(legs, hip - _between(clips, *_KNEE), 0.0)
    bend[:, 6] = -waist / 2
    bend[:, 7:] = -waist[:, None]
    limbs = _turn(limbs, trunk[:, :, None, 0], bend[:, None, :, None])
    for upper, lower in ((11, 12), (14, 15)):
        axis = torch.nn.functional.normalize(torch.randn(clips, 1, 1, 3), dim=-1) @ trunk
        angle = torch.where(_some(clips, _FLEXED), _ARM * torch.randn(clips), 0.0)[:, None, None, None]
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
    angle = torch.where(_some(clips, _TILTED), _between(clips, -_TILT, _TILT), 0.0)
    heading = _between(clips, 0, 2 * math.pi)
    axis = torch.stack([heading.cos(), heading.sin(), torch.zeros(clips)], dim=-1) * angle[:, None]
    middle = joints[:, :, ROOT].mean(1)[:, None, None]
    return (joints - middle) @ _rotation(axis).mT[:, None] + middle


def _cameras(joints):
    """A camera for each of joints (B, F, 17, 3), z up.

    Returns:
        rotation (B, 3, 3) and offset (B, 3) m: joints @ rotation.T + offset is x right, y down, z ahead of the camera;
        focal length (B,) and half the picture's width and height (B, 2), in units of its longer side.
    """
    clips = len(joints)
    yaw = _between(clips, 0, 2 * math.pi)
    roll = torch.where(_some(clips, _UNUSUAL), _between(clips, -_ROLLS, _ROLLS), _ROLL * torch.randn(clips))
    usual = (_ELEVATION[0] + _ELEVATION[1] * torch.randn(clips)).clamp(-0.5, 1.1)
    elevation = torch.where(_some(clips, _UNUSUAL), _between(clips, *_ELEVATIONS), usual)
    ahead = -torch.stack([elevation.cos() * yaw.cos(), elevation.cos() * yaw.sin(), elevation.sin()], dim=-1)
    right = torch.stack([-yaw.sin(), yaw.cos(), torch.zeros(clips)], dim=-1)
    down = torch.linalg.cross(ahead, right)
    rotation = torch.stack(
        [
            roll.cos()[:, None] * right + roll.sin()[:, None] * down,
            roll.cos()[:, None] * down - roll.sin()[:, None] * right,
            ahead,
        ],
        dim=1,
    )
    focal = _between(clips, *map(math.log, _FOCAL)).exp()
    short = _between(clips, *_SIDES)
    upright = _some(clips, _UPRIGHT)[:, None]
    picture = torch.stack([torch.ones(clips), short], dim=-1) / 2
    picture = torch.where(upright, picture.flip(-1), picture)
    distance = _between(clips, *map(math.log, _DISTANCE)).exp()
    place = picture * _OFF_CENTRE * (2 * torch.rand(clips, 2) - 1) / focal[:, None]
    target = torch.cat([place, torch.ones(clips, 1)], dim=-1) * distance[:, None]
    turned = joints @ rotation.mT[:, None]
    offset = target - turned[:, :, ROOT].mean(1)
    nearest = (turned[..., 2] + offset[:, None, None, 2]).amin((1, 2))
    offset[:, 2] += (_NEAREST - nearest).clamp(min=0)
    return rotation, offset, focal, picture


def _definitions(joints):
    """Where a detector sees joints (B, F, 17, 3) off: (B, F, 17, 3) m, fixed to the trunk in each clip."""
    shift = torch.randn(len(joints), 1, len(JOINTS), 3) * torch.tensor(_DEFINITION)[:, None]
    left, right = shift[:, :, list(LEFT)], shift[:, :, list(RIGHT)]
    shared = (left + right * torch.tensor([-1.0, 1, 1])) / 2
    shift[:, :, list(LEFT)] = shared + left * 0.5
    shift[:, :, list(RIGHT)] = shared * torch.tensor([-1.0, 1, 1]) + right * 0.5
    shift = shift @ _trunk(joints)
    up = joints[:, :, _HEAD_TOP] - joints[:, :, _NOSE]
    shift[:, :, _NOSE] += _between(len(joints), 0, _NOSE_TIP)[:, None, None] * up
    return shift


def _detect(places, picture, exact):
    """Detections (B, F, 17, 3) of true places (B, F, 17, 2): with errors, hidden joints and confidence.

    exact: (B,) bool, the clips in which a detector hardly errs.
    """
    clips, frames = places.shape[:2]
    size = (places - places.mean((1, 2), keepdim=True)).square().sum(-1).mean((1, 2)).sqrt()
    scale = _between(clips, *map(math.log, _ERROR_SIZE)).exp() * torch.where(exact, 0.1, 1.0)
    scale = scale[:, None, None, None] * torch.tensor(_ERROR)[:, None]
    lasting = torch.randn(clips, 1, len(JOINTS), 2) + 1.2 * _smooth(clips, frames)
    error = scale * (0.7 * lasting + 0.4 * torch.rand(clips, 1, 1, 1) * torch.randn_like(places))
    outlier = (torch.rand(clips, frames, len(JOINTS), 1) < _OUTLIERS).float()
    error = error + outlier * _OUTLIER_SIZE * torch.rand(clips, 1, 1, 1) * torch.randn_like(places)
    found = places + error * size[:, None, None, None]

    swapped = _spans(clips, frames, _SWAPS)[..., None, None]
    found = torch.where(swapped, found[:, :, list(FLIPPED)], found)

    unsure = error.norm(dim=-1) * 6
    outside = ((found.abs() > picture[:, None, None]).any(-1)).float()
    hidden = _hidden(clips, frames) | (outside > 0)
    strict = _some(clips, 0.5)[:, None, None]  # a detector that reports no hidden joint, or guesses it
    guess = found + hidden[..., None] * 0.25 * size[:, None, None, None] * _smooth(clips, frames)
    found = torch.where(hidden[..., None], guess, found)
    sharpness = _between(clips, -1.5, 1.0).exp()[:, None, None]
    visible = (1 - unsure - 0.15 * torch.rand_like(unsure)).clamp(0.02, 1) ** sharpness
    confidence = torch.where(hidden, torch.where(strict, 0.0, visible * 0.5 * torch.rand_like(visible)), visible)

    means = [list(_MEANS[joint]) for joint in _MEANS]
    found = found.clone()
    for joint, parts in zip(_MEANS, means):
        found[:, :, joint] = found[:, :, parts].mean(2)
        confidence[:, :, joint] = confidence[:, :, parts].amin(2)
    gap = _spans(clips, frames, _GAPS)
    confidence = torch.where(gap[..., None], 0.0, confidence)
    return torch.cat([found, confidence[..., None]], dim=-1)


def _hidden(clips, frames):
    """(B, F, 17) bool: joints of one group that something hides for some frames, or throughout."""
    groups = torch.zeros(len(_HIDDEN_TOGETHER), len(JOINTS), dtype=torch.bool)
    for number, joints in enumerate(_HIDDEN_TOGETHER):
        groups[number, list(joints)] = True
    which = groups[torch.randint(len(groups), (clips,))]
    always = _some(clips, 0.3)[:, None]
    some = _some(clips, _HIDDEN)[:, None]
    return (((_spans(clips, frames, 1.0) | always) & some)[..., None]) & which[:, None]


def _spans(clips, frames, share):
    """(B, F) bool: in a share of the clips, some consecutive frames."""
    begin = torch.randint(frames, (clips, 1))
    length = torch.randint(1, max(2, frames // 2), (clips, 1))
    frame = torch.arange(frames)
    return (frame >= begin) & (frame < begin + length) & _some(clips, share)[:, None]


def _smooth(clips, frames):
    """(B, F, 17, 2) Gaussian of variance about 1 that changes over `_ERROR_FRAMES` frames."""
    keys = torch.randn(clips, len(JOINTS) * 2, 2 + frames // _ERROR_FRAMES)
    between = torch.nn.functional.interpolate(keys, size=frames, mode="linear", align_corners=True)
    return 1.2 * between.mT.reshape(clips, frames, len(JOINTS), 2)


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


def _where(chosen, a, b):
    return torch.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b)


def _some(count, share):
    return torch.rand(count) < share


def _between(count, low, high):
    return low + (high - low) * torch.rand(count)
