"""What a 2D detector makes of people whose true joints are known: for training on random views.

Each clip has a detector of one of three kinds (`KINDS`):

- measured: errs as the detector `accurate` was measured to (`tools/measure_detector.py`, configs/noise/blazepose.yaml);
- broad: any other: its own idea of each joint, errors of any size, any style of confidence;
- exact: means the very joints of the motion capture, and hardly errs.

An error in a clip is constant + lasting + jitter, each Gaussian: the second with a correlation that falls exponentially in
time, the third new in every frame. Their size varies from clip to clip and joint to joint (log-normal) and grows where a
joint is hidden; some errors are outliers, which last as well. Lengths are in units of the person's size: the root mean
square distance of all joints from their centre (lib/data/crop.py). The confidence follows from the error and from whether
the joint is seen, by tables of measured quantiles.
"""

import math
from typing import Annotated, NamedTuple

import torch
from pydantic import Field

from lib.data.joint_tables import Strict, read_joint_table
from lib.data.skeleton import FLIPPED, JOINTS, LEFT, RIGHT
from lib.data.synthetic.draws import between, some, where
from lib.data.synthetic.trunk import trunk_axes
from lib.files import PROJECT

PARAMETERS = PROJECT / "configs" / "noise" / "blazepose.yaml"
KINDS = MEASURED, BROAD, EXACT = range(3)
STATES = ("seen", "hidden", "outside")  # of the image; by the numbers of lib/data/synthetic/sequences.py
GROUPS = {  # joints whose confidence is alike; those of MEANS have none of their own
    "trunk": (1, 4, 11, 14),
    "limbs": (2, 3, 5, 6, 12, 13, 15, 16),
    "head": (9, 10),
}
SIDES = {"all": (*LEFT, *RIGHT), "legs": (1, 2, 3, 4, 5, 6), "arms": (11, 12, 13, 14, 15, 16)}  # swapped together
MEANS = {0: (1, 4), 7: (1, 4, 11, 14), 8: (11, 14)}  # joints that detectors do not have: means of others

_EXACT, _MEASURED = 0.2, 0.56  # shares of clips: 70 % of those that are not exact
_NOSE, _HEAD_TOP, _NOSE_TIP = 9, 10, 0.6  # the tip that detectors see is up to so much nearer to the head's top
_LABORATORIES = 0.5  # of `_DEFINITION`: how far the joints of motion capture differ where the detector's are known

# Of the broad kind. By joint: how far (std, m) detectors disagree about where it is, and the relative size of errors.
_DEFINITION = (0, .03, .025, .03, .03, .025, .03, 0, 0, .04, .05, .03, .025, .025, .03, .025, .025)  # fmt: skip
_ERROR = (0, 1, 1, 1.4, 1, 1, 1.4, 0, 0, .7, .9, .9, 1.1, 1.5, .9, 1.1, 1.5)  # fmt: skip
_ERROR_SIZE = (0.006, 0.06)  # of a joint with error 1
_CONSTANT, _LASTING, _JITTER = 0.7, 1.0, 0.4  # parts of an error; the last at most
_OUTLIERS, _OUTLIER_SIZE = 0.01, 0.5
_GUESS = 0.25  # error of a hidden joint

_HIDDEN = 0.35  # share of clips in which a thing hides joints for some frames
_ALWAYS = 0.3  # share of those in which it does throughout
_HIDDEN_TOGETHER = ((1, 2, 3, 4, 5, 6), (2, 3, 5, 6), (3, 6), (2, 3), (5, 6), (12, 13), (15, 16), (13,), (16,), (9, 10))
_GAPS = 0.1  # share of clips with frames in which nobody is found
_SWAPS = {"all": 0.06, "legs": 0.0, "arms": 0.0}  # share of clips of the broad kind in which sides are swapped
_THICKNESS = {  # m: half that of a body round a limb, which hides what is behind it
    (0, 8): 0.13, (1, 2): 0.07, (2, 3): 0.05, (4, 5): 0.07, (5, 6): 0.05,
    (11, 12): 0.045, (12, 13): 0.04, (14, 15): 0.045, (15, 16): 0.04, (9, 10): 0.09,
}  # fmt: skip
_WITHIN = {(0, 8): (7,), (9, 10): (8,)}  # joints that a limb is round
_BEHIND = 0.08  # m further than a limb: hidden by it

_Share = Annotated[float, Field(ge=0, le=1)]
_Length = Annotated[float, Field(ge=0)]
_Quantiles = Annotated[list[_Share], Field(min_length=2)]


class _Joint(Strict):
    definition: tuple[float, float, float]
    error: _Length
    factors: tuple[_Length, _Length, _Length]
    outliers: tuple[_Share, _Share, _Share]


class _Group(Strict):
    seen: list[_Quantiles]
    hidden: list[_Quantiles]
    outside: list[_Quantiles]


class _Confidence(Strict):
    edges: list[_Length]
    memory: _Share
    trunk: _Group
    limbs: _Group
    head: _Group


class _Swaps(Strict):
    all: _Share
    legs: _Share
    arms: _Share


class Parameters(Strict):
    """Errors of a measured detector; the keys are explained in the file itself."""

    correlation_time: Annotated[float, Field(gt=0)]
    parts: tuple[_Length, _Length, _Length]
    clip_spread: _Length
    joint_spread: _Length
    outlier_size: tuple[_Length, _Length]
    swaps: _Swaps
    confidence: _Confidence
    joints: dict[str, _Joint]


class _Habits(NamedTuple):
    """How the detectors of B clips err: std of parts of errors (B, 1, 17, 1), outliers' share and size."""

    constant: torch.Tensor
    lasting: torch.Tensor
    jitter: torch.Tensor
    outliers: torch.Tensor  # (B, F, 17, 1)
    outlier_size: torch.Tensor


class SimulatedDetector:
    """Detectors of random clips; all random numbers are those of torch's global generator.

    Args:
        path: YAML file of what was measured.

    Raises:
        UserError: the file is missing, not YAML or not such a table; names the key.
    """

    def __init__(self, path=PARAMETERS):
        self.parameters = parameters = read_joint_table(path, Parameters)
        joints = [parameters.joints[name] for name in JOINTS]
        self._definition = torch.tensor([joint.definition for joint in joints])
        self._error = torch.tensor([joint.error for joint in joints])
        self._factors = torch.tensor([joint.factors for joint in joints])
        self._outliers = torch.tensor([joint.outliers for joint in joints])
        confidence = parameters.confidence
        self._edges = torch.tensor(confidence.edges)
        self._table = torch.tensor(
            [[getattr(getattr(confidence, group), state) for state in STATES] for group in GROUPS]
        )  # (groups, states, edges + 1, quantiles)
        self._group = torch.zeros(len(JOINTS), dtype=torch.long)
        for number, members in enumerate(GROUPS.values()):
            self._group[list(members)] = number

    def kinds(self, clips):
        """Return the kinds (clips,) of the detectors of clips."""
        drawn = torch.rand(clips)
        return torch.where(drawn < _EXACT, EXACT, torch.where(drawn < _EXACT + _MEASURED, MEASURED, BROAD))

    def definitions(self, joints, kinds):
        """Return where detectors mean joints (B, F, 17, 3), m, z up, to be: the same shape."""
        shift = torch.randn(len(joints), 1, len(JOINTS), 3) * torch.tensor(_DEFINITION)[:, None]
        left, right = shift[:, :, list(LEFT)], shift[:, :, list(RIGHT)]
        shared = (left + right * torch.tensor([-1.0, 1, 1])) / 2
        shift[:, :, list(LEFT)] = shared + left * 0.5
        shift[:, :, list(RIGHT)] = shared * torch.tensor([-1.0, 1, 1]) + right * 0.5
        shift = where(kinds == MEASURED, self._definition + _LABORATORIES * shift, shift) @ trunk_axes(joints)
        up = joints[:, :, _HEAD_TOP] - joints[:, :, _NOSE]
        shift[:, :, _NOSE] += between(len(joints), 0, _NOSE_TIP)[:, None, None] * up
        return where(kinds == EXACT, joints, joints + shift)

    def detect(self, joints, focal, half, seconds, kinds):
        """Return detections (B, F, 17, 3) of joints as the detector means them: x, y from the principal point; confidence.

        Args:
            joints: (B, F, 17, 3) m, camera axes.
            focal, half: (B,) and half of the image's width and height (B, 2), in the unit of the results.
            seconds: (B,) from one frame to the next.
            kinds: (B,) of `KINDS`.
        """
        places = joints[..., :2] / joints[..., 2:].clamp(min=0.1) * focal[:, None, None, None]
        hidden = _covered(*joints.shape[:2]) | hidden_by_body(joints)
        outside = (places.abs() > half[:, None, None]).any(-1)
        return self.err(places, torch.where(outside, 2, hidden.long()), seconds, kinds)

    def err(self, places, state, seconds, kinds):
        """Return detections (B, F, 17, 3) of true places (B, F, 17, 2).

        Args:
            state: (B, F, 17) numbers of `STATES`.
            seconds, kinds: as of `detect`.
        """
        clips, frames = places.shape[:2]
        size = (places - places.mean((1, 2), keepdim=True)).square().sum(-1).mean((1, 2)).sqrt()[:, None, None, None]
        measured = kinds == MEASURED

        habits = _merge(measured, self._measured_habits(clips, state), _broad_habits(clips, state, kinds == EXACT))
        over_time = _over_time(clips, frames, seconds / self.parameters.correlation_time)
        error = habits.constant * torch.randn(clips, 1, len(JOINTS), 2) + habits.lasting * over_time(2)
        error = error + habits.jitter * torch.randn_like(places)
        outlier = torch.special.ndtr(over_time(1)) < habits.outliers
        error = error + outlier * habits.outlier_size * torch.randn(clips, 1, len(JOINTS), 2)
        found = places + error * size

        for name, joints in SIDES.items():
            share = torch.where(measured, getattr(self.parameters.swaps, name), _SWAPS[name])
            swapped = _spans(clips, frames, share)[..., None] & _members(joints)
            found = torch.where(swapped[..., None], found[:, :, list(FLIPPED)], found)

        distance = error.norm(dim=-1)
        memory = self.parameters.confidence.memory
        rank = memory**0.5 * over_time(1) + (1 - memory) ** 0.5 * torch.randn(clips, frames, len(JOINTS), 1)
        as_measured = self.confidence(distance, state, torch.special.ndtr(rank[..., 0]))
        confidence = where(measured, as_measured, _broad_confidence(distance, state > 0))

        for joint, parts in MEANS.items():
            found[:, :, joint] = found[:, :, list(parts)].mean(2)
            confidence[:, :, joint] = confidence[:, :, list(parts)].amin(2)
        gap = _spans(clips, frames, torch.full((clips,), _GAPS))
        confidence = torch.where(gap[..., None], 0.0, confidence)
        return torch.cat([found, confidence[..., None]], dim=-1)

    def confidence(self, distance, state, rank):
        """Return the measured confidence of errors (B, F, 17) of joints in states (B, F, 17), at ranks from 0 to 1."""
        rows = self._table[self._group, state, torch.bucketize(distance, self._edges)]
        place = rank * (rows.shape[-1] - 1)
        before = place.long().clamp(max=rows.shape[-1] - 2)
        low, high = (rows.gather(-1, (before + step)[..., None])[..., 0] for step in (0, 1))
        return torch.lerp(low, high, place - before)

    def _measured_habits(self, clips, state):
        p = self.parameters
        spread = p.clip_spread * torch.randn(clips, 1, 1) + p.joint_spread * torch.randn(clips, 1, len(JOINTS))
        joint = torch.arange(len(JOINTS))
        scale = (self._error * self._factors[joint, state] * spread.exp())[..., None]
        constant, lasting, jitter = (part * scale for part in p.parts)
        size = (math.log(p.outlier_size[0]) + p.outlier_size[1] * torch.randn(clips, 1, len(JOINTS), 1)).exp()
        return _Habits(constant, lasting, jitter, self._outliers[joint, state][..., None], size)


def hidden_by_body(joints):
    """Return (..., 17) bool: joints (..., 17, 3), camera axes, m, before which the person's own trunk or limb is."""
    places = joints[..., :2] / joints[..., 2:].clamp(min=0.1)
    a, b = (list(end) for end in zip(*_THICKNESS))
    start, limb = places[..., a, :], places[..., b, :] - places[..., a, :]
    off = places[..., None, :] - start[..., None, :, :]  # (..., 17, limbs, 2)
    along = (off * limb[..., None, :, :]).sum(-1) / limb.square().sum(-1).clamp(min=1e-6)[..., None, :]
    along = along.clamp(0, 1)
    distance = (off - along[..., None] * limb[..., None, :, :]).square().sum(-1)
    near, far = joints[..., None, a, 2], joints[..., None, b, 2]
    depth = near + along * (far - near)
    covers = (distance * depth.square() < _THICK.square()) & (depth + _BEHIND < joints[..., 2:]) & _APART
    return covers.any(-1)


def _apart():
    """Return (17, limbs) bool: joints that are neither at a limb's ends nor within it."""
    return torch.tensor(
        [[joint not in (*limb, *_WITHIN.get(limb, ())) for limb in _THICKNESS] for joint in range(len(JOINTS))]
    )


def _broad_habits(clips, state, exact):
    scale = between(clips, *map(math.log, _ERROR_SIZE)).exp() * torch.where(exact, 0.1, 1.0)
    scale = scale[:, None, None, None] * torch.tensor(_ERROR)[:, None]
    lasting = _LASTING * scale + (state[..., None] > 0) * _GUESS
    jitter = _JITTER * torch.rand(clips, 1, 1, 1) * scale
    outliers = torch.full((*state.shape, 1), _OUTLIERS)
    return _Habits(_CONSTANT * scale, lasting, jitter, outliers, _OUTLIER_SIZE * torch.rand(clips, 1, 1, 1))


def _broad_confidence(distance, hidden):
    unsure = distance * 6
    sharpness = between(len(distance), -1.5, 1.0).exp()[:, None, None]
    visible = (1 - unsure - 0.15 * torch.rand_like(unsure)).clamp(0.02, 1) ** sharpness
    strict = some(len(distance), 0.5)[:, None, None]  # a detector that reports no hidden joint, or guesses it
    return torch.where(hidden, torch.where(strict, 0.0, visible * 0.5 * torch.rand_like(visible)), visible)


def _merge(chosen, a, b):
    return _Habits(*(where(chosen, *torch.broadcast_tensors(x, y)) for x, y in zip(a, b)))


def _over_time(clips, frames, step):
    """Return a function of a number of channels that draws (B, F, 17, channels): Gaussian of variance 1 with memory.

    step: (B,) time between frames in units of the correlation time. The draws are independent Gaussians times the
    Cholesky factor of the covariance exp(-time).
    """
    frame = torch.arange(frames)
    kept = (-step).exp()[:, None, None]
    factor = (kept ** (frame[:, None] - frame).clamp(min=0)).tril()
    factor = torch.cat([factor[:, :, :1], factor[:, :, 1:] * (1 - kept**2).sqrt()], dim=2)

    def draw(channels):
        return (factor @ torch.randn(clips, frames, len(JOINTS) * channels)).reshape(
            clips, frames, len(JOINTS), channels
        )

    return draw


def _covered(clips, frames):
    """Return (B, F, 17) bool: joints of one group that a thing hides for some frames, or throughout."""
    which = _TOGETHER[torch.randint(len(_TOGETHER), (clips,))]
    frames_hidden = _spans(clips, frames, torch.ones(clips)) | some(clips, _ALWAYS)[:, None]
    return (frames_hidden & some(clips, _HIDDEN)[:, None])[..., None] & which[:, None]


def _members(joints):
    """Return (17,) bool: whether a joint is one of these."""
    return torch.isin(torch.arange(len(JOINTS)), torch.tensor(joints))


def _spans(clips, frames, share):
    """Return (B, F) bool: in a share (B,) of the clips, some consecutive frames."""
    begin = torch.randint(frames, (clips, 1))
    length = torch.randint(1, max(2, frames // 2), (clips, 1))
    frame = torch.arange(frames)
    return (frame >= begin) & (frame < begin + length) & (torch.rand(clips) < share)[:, None]


_TOGETHER = torch.stack([_members(joints) for joints in _HIDDEN_TOGETHER])
_THICK, _APART = torch.tensor(list(_THICKNESS.values())), _apart()
