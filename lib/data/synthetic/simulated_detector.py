"""Simulated 2D detector: detections of people whose true joints are known, for training on random views.

Each clip has a detector of one of three kinds (`KINDS`):

- measured: has the errors measured of the detector `accurate` (`tools/measure_detector.py`, configs/noise/blazepose.yaml);
- broad: any other: its own definition of each joint, errors of any size, any style of confidence;
- exact: has the joint definitions of the motion capture and hardly any error, hidden or not, like keypoints that were
  computed from motion capture.

An error in a clip is constant + lasting + jitter, each Gaussian: the second with a correlation that falls exponentially in
time, the third white. Their size varies from clip to clip and joint to joint (log-normal) and grows where a joint is
hidden; some errors are outliers, which last as well. Lengths are in units of the person's size: the root mean
square distance of all joints from their centre (lib/body/normalize.py). The confidence follows from the error and from whether
the joint is seen, by tables of measured quantiles.
"""

import math
from typing import NamedTuple

import torch

from lib.body.camera import project
from lib.body.layouts import MEANS
from lib.body.skeleton import FLIPPED, JOINTS, LEFT, RIGHT
from lib.data.synthetic.detector_parameters import GROUPS, STATES, read_parameters
from lib.data.synthetic.draws import between, some, where
from lib.data.synthetic.hiding import behind_body, behind_objects, members, spans
from lib.data.synthetic.trunk import trunk_axes
from lib.files import PROJECT

PARAMETERS = PROJECT / "configs" / "noise" / "blazepose.yaml"
KINDS = MEASURED, BROAD, EXACT = range(3)
SIDES = {"all": (*LEFT, *RIGHT), "legs": (1, 2, 3, 4, 5, 6), "arms": (11, 12, 13, 14, 15, 16)}  # swapped together

_EXACT, _MEASURED = 0.4, 0.3  # shares of clips
_CERTAIN = 0.7  # share of exact clips whose every confidence is 1
_NOSE, _HEAD_TOP = 9, 10
_NOSE_TIP = 0.6  # detectors report the tip of the nose, nearer to the head's top by up to this share
_LABORATORIES = 0.5  # of `_DEFINITION`: deviation of the joints of motion capture where the detector's are known
_GAPS = 0.1  # share of clips with frames without a detection

# Of the broad kind. By joint: std (m) of the detectors' definitions, and the relative size of errors.
_DEFINITION = (0, .03, .025, .03, .03, .025, .03, 0, 0, .04, .05, .03, .025, .025, .03, .025, .025)  # fmt: skip
_ERROR = (0, 1, 1, 1.4, 1, 1, 1.4, 0, 0, .7, .9, .9, 1.1, 1.5, .9, 1.1, 1.5)  # fmt: skip
_ERROR_SIZE = (0.006, 0.06)  # of a joint with error 1
_CONSTANT, _LASTING, _JITTER = 0.7, 1.0, 0.4  # std of the parts of an error; of jitter at most
_OUTLIERS, _OUTLIER_SIZE = 0.01, 0.5
_GUESS = 0.25  # error of a hidden joint
_SWAPS = {"all": 0.06, "legs": 0.0, "arms": 0.0}  # shares of clips in which sides are swapped for some frames


class _Statistics(NamedTuple):
    """Error statistics of the detectors of B clips: std per coordinate of the parts of errors, each (B, 1 or F, 17, 1)."""

    constant: torch.Tensor
    lasting: torch.Tensor
    jitter: torch.Tensor
    guess: torch.Tensor  # lasting too, but without effect on the confidence
    outliers: torch.Tensor  # share of frames
    outlier_size: torch.Tensor


class SimulatedDetector:
    """Detectors of random clips; all random numbers are from torch's global generator.

    Args:
        path: YAML file of the measured parameters.

    Raises:
        UserError: the file is missing, not YAML or not such a table; names the key.
    """

    def __init__(self, path=PARAMETERS):
        self.parameters = parameters = read_parameters(path)
        joints = [parameters.joints[name] for name in JOINTS]
        self._definition, self._error, self._spread, self._outliers = (
            torch.tensor([getattr(joint, key) for joint in joints])
            for key in ("definition", "error", "spread", "outliers")
        )
        self._group = torch.zeros(len(JOINTS), dtype=torch.long)
        for number, joints in enumerate(GROUPS.values()):
            self._group[list(joints)] = number
        self._parts = torch.tensor([getattr(parameters.parts, group) for group in GROUPS])[self._group, :, None]
        confidence = parameters.confidence
        self._edges, self._ranks = torch.tensor(confidence.edges), torch.tensor(confidence.ranks)
        self._table = torch.tensor(
            [[getattr(getattr(confidence, group), state) for state in STATES] for group in GROUPS]
        )  # (groups, states, edges + 1, ranks)

    def kinds(self, clips):
        """Return the kinds (clips,) of the detectors of clips."""
        drawn = torch.rand(clips)
        return torch.where(drawn < _EXACT, EXACT, torch.where(drawn < _EXACT + _MEASURED, MEASURED, BROAD))

    def definitions(self, joints, kinds):
        """Return joints (B, F, 17, 3), m, z up, by the definitions of the detectors: the same shape."""
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
        """Return detections (B, F, 17, 3) of joints by the detector's definition: x, y from the principal point; confidence.

        Args:
            joints: (B, F, 17, 3) m, camera axes.
            focal, half: (B,) and half of the image's width and height (B, 2), in the unit of the results.
            seconds: (B,) from one frame to the next.
            kinds: (B,) of `KINDS`.
        """
        places = project(joints, focal[:, None, None, None])
        hidden = behind_objects(*joints.shape[:2]) | behind_body(joints)
        outside = (places.abs() > half[:, None, None]).any(-1)
        size = (places - places.mean((1, 2), keepdim=True)).square().sum(-1).mean((1, 2)).sqrt()
        state = torch.where(outside, 2, hidden.long()).masked_fill((kinds == EXACT)[:, None, None], 0)
        return self.err(places, state, size, seconds, kinds)

    def err(self, places, state, size, seconds, kinds):
        """Return detections (B, F, 17, 3) of true places (B, F, 17, 2).

        Args:
            state: (B, F, 17) numbers of `STATES`.
            size: (B,) of the person, in the unit of the places.
            seconds, kinds: as of `detect`.
        """
        clips, frames = places.shape[:2]
        measured, exact = kinds == MEASURED, kinds == EXACT
        statistics = _merge(measured, self._measured_statistics(clips, state), _broad_statistics(clips, state, exact))
        over_time = _over_time(clips, frames, seconds / self.parameters.correlation_time)
        error = statistics.constant * torch.randn(clips, 1, len(JOINTS), 2) + statistics.lasting * over_time(2)
        error = error + statistics.jitter * torch.randn_like(places)
        outlier = torch.special.ndtr(over_time(1)) < statistics.outliers
        error = error + outlier * statistics.outlier_size * over_time(2)
        found = places + (error + statistics.guess * over_time(2)) * size[:, None, None, None]

        for name, joints in SIDES.items():
            share = torch.where(measured, getattr(self.parameters.swaps, name), _SWAPS[name]).masked_fill(exact, 0)
            swapped = spans(clips, frames, share)[..., None] & members(joints)
            found = torch.where(swapped[..., None], found[:, :, list(FLIPPED)], found)

        distance = error.norm(dim=-1)
        memory = self.parameters.confidence.memory
        rank = memory**0.5 * over_time(1) + (1 - memory) ** 0.5 * torch.randn(clips, frames, len(JOINTS), 1)
        as_measured = self.confidence(distance, state, torch.special.ndtr(rank[..., 0]))
        confidence = where(measured, as_measured, _broad_confidence(distance, state > 0))
        certain = exact & some(clips, _CERTAIN)
        confidence = confidence.masked_fill(certain[:, None, None], 1.0)

        for joint, parts in MEANS.items():
            found[:, :, joint] = found[:, :, list(parts)].mean(2)
            confidence[:, :, joint] = confidence[:, :, list(parts)].amin(2)
        gap = spans(clips, frames, torch.full((clips,), _GAPS))
        confidence = torch.where(gap[..., None], 0.0, confidence)
        return torch.cat([found, confidence[..., None]], dim=-1)

    def confidence(self, distance, state, rank):
        """Return the measured confidence of errors (B, F, 17) of joints in states (B, F, 17), at ranks from 0 to 1."""
        rows = self._table[self._group, state, torch.bucketize(distance, self._edges)]
        after = torch.bucketize(rank, self._ranks).clamp(1, len(self._ranks) - 1)
        low, high = self._ranks[after - 1], self._ranks[after]
        least, most = (rows.gather(-1, (after - back)[..., None])[..., 0] for back in (1, 0))
        return torch.lerp(least, most, (rank - low) / (high - low))

    def _measured_statistics(self, clips, state):
        p, joint = self.parameters, torch.arange(len(JOINTS))
        size = p.common**0.5 * torch.randn(clips, 1, 1) + (1 - p.common) ** 0.5 * torch.randn(clips, 1, len(JOINTS))
        scale = self._error[joint, state] * (self._spread[joint, state] * size).exp()
        constant, lasting, jitter = (part * scale[..., None] for part in self._parts.unbind(1))
        median, spread = p.outlier_size
        outlier_size = median * (spread * torch.randn(clips, 1, len(JOINTS), 1)).exp()
        outliers = self._outliers[joint, state][..., None]
        return _Statistics(constant, lasting, jitter, torch.zeros_like(constant), outliers, outlier_size)


def _broad_statistics(clips, state, exact):
    scale = between(clips, *map(math.log, _ERROR_SIZE)).exp() * torch.where(exact, 0.1, 1.0)
    scale = scale[:, None, None, None] * torch.tensor(_ERROR)[:, None]
    jitter = _JITTER * torch.rand(clips, 1, 1, 1) * scale
    guess = _GUESS * (state[..., None] > 0)
    outlier_size = _OUTLIER_SIZE * torch.rand(clips, 1, 1, 1)
    outliers = torch.full_like(scale, _OUTLIERS).masked_fill(exact[:, None, None, None], 0)
    return _Statistics(_CONSTANT * scale, _LASTING * scale, jitter, guess, outliers, outlier_size)


def _broad_confidence(distance, hidden):
    unsure = distance * 6
    sharpness = between(len(distance), -1.5, 1.0).exp()[:, None, None]
    visible = (1 - unsure - 0.15 * torch.rand_like(unsure)).clamp(0.02, 1) ** sharpness
    strict = some(len(distance), 0.5)[:, None, None]  # a detector that reports no hidden joint, or guesses it
    return torch.where(hidden, torch.where(strict, 0.0, visible * 0.5 * torch.rand_like(visible)), visible)


def _merge(chosen, a, b):
    return _Statistics(*(where(chosen, *torch.broadcast_tensors(x, y)) for x, y in zip(a, b)))


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
        drawn = factor @ torch.randn(clips, frames, len(JOINTS) * channels)
        return drawn.reshape(clips, frames, len(JOINTS), channels)

    return draw
