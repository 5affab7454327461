"""Pairs of poses of motion capture, one frame of a video apart."""

from dataclasses import dataclass

import numpy as np
import torch

from lib.body.skeleton import ROOT
from lib.data.motion_files import FPS as MOTION_FPS
from lib.data.synthetic.draws import seeded
from lib.data.synthetic.random_views import vary_poses

FPS = 30.0
_STEP = round(MOTION_FPS / FPS)  # frames of motion capture


@dataclass(frozen=True)
class PosePairs:
    """Pairs of poses of some clips.

    Attributes:
        motion: of `lib.data.motion_files.read_motion_files`.
        clips: (n,) numbers of the clips.
        varied: share of pairs that are mirrored, get limbs of others, or are flexed further; the others are as recorded.
    """

    motion: dict
    clips: np.ndarray
    varied: float

    @classmethod
    def of_split(cls, motion, test, held_back, varied):
        """Return the pairs of the test clips and held-back subjects, or of all others."""
        of_test = (motion["split"] == "test") | np.isin(motion["subject"], list(held_back))
        long = np.diff(motion["start"]) > _STEP
        return cls(motion, np.flatnonzero(long & (of_test == test)), varied)

    def draw(self, count, rng):
        """Return joints (count, 2, 17, 3) float32 m, z up, the first root above the origin; numbers (count,) of clips."""
        start = self.motion["start"]
        clip = rng.choice(self.clips, count)
        first = rng.integers(start[clip], start[clip + 1] - _STEP)
        joints = self.motion["joints"][first[:, None] + [0, _STEP]].astype(np.float32)
        with seeded(rng):
            altered = vary_poses(torch.from_numpy(joints)).numpy()
        joints = np.where((rng.random(count) < self.varied)[:, None, None, None], altered, joints)
        return joints - joints[:, :1, ROOT, None] * np.array([1, 1, 0], np.float32), clip
