"""MPI-INF-3DHP's scores as the benchmark's own tool takes them: MPJPE, PCK and AUC of valid frames, root-relative."""

from typing import NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from lib.body.skeleton import root_relative
from lib.eval import scores
from lib.eval.h36m import p_mpjpe

_NAMED = ("per_sequence", "per_activity", "per_group")

PCK_LIMIT = 150  # mm
AUC_LIMITS = np.arange(0, 151, 5)  # mm, 31 of them

JOINT_GROUPS = {  # the 14 joints of PCK and AUC, numbers of `lib.body.skeleton.JOINTS`
    "head": (10,),  # its top
    "neck": (8,),
    "shoulders": (14, 11),
    "elbows": (15, 12),
    "wrists": (16, 13),
    "hips": (1, 4),
    "knees": (2, 5),
    "ankles": (3, 6),
}
SCORED_JOINTS = tuple(joint for group in JOINT_GROUPS.values() for joint in group)

ACTIVITIES = {
    1: "standing/walking",
    2: "exercising",
    3: "sitting",
    4: "reaching/crouching",
    5: "on the floor",
    6: "sports",
    7: "miscellaneous",
}


class Score(NamedTuple):
    """Of `frames` valid frames: mean errors in mm over the 17 joints; PCK and AUC in % over the 14 joints."""

    frames: int
    mpjpe: float
    p_mpjpe: float
    pck: float
    auc: float


class GroupScore(NamedTuple):
    """Of some joints in all valid frames: mean error in mm, PCK and AUC in %."""

    mpjpe: float
    pck: float
    auc: float


class _Scores3DHP(NamedTuple):
    overall: Score
    per_sequence: dict
    per_activity: dict
    per_group: dict


class Scores3DHP(scores.PoseScores, _Scores3DHP):
    """Scores of MPI-INF-3DHP; `overall` is the headline: all valid frames together. The rest are dicts by name."""

    group, total = "sequence", "all valid frames"
    mpjpe = property(lambda self: self.overall.mpjpe)
    p_mpjpe = property(lambda self: self.overall.p_mpjpe)
    per_action = property(lambda self: self.per_sequence)
    extra = property(lambda self: {"pck": self.overall.pck, "auc": self.overall.auc})

    def as_dict(self):
        named = {key: {name: s._asdict() for name, s in getattr(self, key).items()} for key in _NAMED}
        return {**self.overall._asdict(), **named}

    def table(self, name, others):
        """Return the errors beside those of others, then MPJPE, PCK and AUC of this model in all detail."""
        return f"{super().table(name, others)}\n{self.detailed_table()}"

    def detailed_table(self):
        """Return MPJPE, PCK and AUC as text: per sequence, activity and group of joints, and overall."""
        view = Table(title="MPI-INF-3DHP: MPJPE in mm, PCK at 150 mm and AUC in %")
        for title in ("", "MPJPE", "PCK", "AUC"):
            view.add_column(title, justify="right" if title else "left", no_wrap=True)
        for named in (*(getattr(self, key) for key in _NAMED), {self.total: self.overall}):
            for name, found in named.items():
                view.add_row(escape(name), *(f"{value:.1f}" for value in (found.mpjpe, found.pck, found.auc)))
            view.add_section()
        return scores.as_text(view)


def evaluate_clips_3dhp(predictions, reader, rootrel=True):
    """Return `evaluate_3dhp` of predicted test clips (clips, F, 17, 3), in m, root-relative.

    A frame that several clips hold gets the mean of its poses. Where the reader's clips are made for their middle
    frame, only that one counts.
    """
    _, clips = reader.get_split_id()
    if reader.middle_frame:
        middle = clips.shape[1] // 2
        clips, predictions = clips[:, middle], predictions[:, middle]
    total, count = np.zeros((reader.count("test"), *predictions.shape[-2:])), np.zeros(reader.count("test"))
    np.add.at(total, clips, predictions)
    np.add.at(count, clips, 1)
    frames = np.flatnonzero(count)
    predicted = total[frames] / count[frames, None, None] * reader.unit("test", frames)[:, None, None]
    known = (reader.array("test", key, frames) for key in ("valid", "source", "activity"))
    return evaluate_3dhp(predicted, reader.read_mm("test", frames), *known)


def evaluate_3dhp(predicted, target, valid, sequence, activity):
    """Return the scores of predicted poses, in the project's joint order; both are made root-relative here.

    Args:
        predicted, target: (n, 17, 3) mm, camera coordinates. Frames that are not valid may hold anything.
        valid: (n,) bool, the frames to score.
        sequence: (n,) names, TS1 to TS6.
        activity: (n,) numbers of `ACTIVITIES`, 0 where no label is given.

    Returns:
        `Scores3DHP`; `per_sequence` and `per_activity` have what holds valid frames.

    Raises:
        ValueError: shapes do not fit, no frame is valid, or a pose of a valid frame is not finite.
    """
    predicted, target = np.asarray(predicted), np.asarray(target)
    valid, sequence, activity = np.asarray(valid, bool), np.asarray(sequence), np.asarray(activity)
    count = len(valid)
    for name, rows, shape in (
        ("predicted", predicted, (count, 17, 3)),
        ("target", target, (count, 17, 3)),
        ("sequence", sequence, (count,)),
        ("activity", activity, (count,)),
    ):
        if rows.shape != shape:
            raise ValueError(f"{name}: expected {shape}, got {rows.shape}")
    frames = np.flatnonzero(valid)
    if not len(frames):
        raise ValueError("valid: no frame is left to score")
    predicted = _checked("predicted", predicted, frames)
    target = _checked("target", target, frames)
    sequence, activity = sequence[frames], activity[frames]
    errors = np.linalg.norm(predicted - target, axis=-1)
    aligned = p_mpjpe(predicted, target)

    def score(chosen):
        scored = errors[chosen][:, SCORED_JOINTS]
        means = errors[chosen].mean(), aligned[chosen].mean(), _pck(scored), _auc(scored)
        return Score(int(chosen.sum()), *map(float, means))

    return Scores3DHP(
        overall=score(np.ones(len(frames), bool)),
        per_sequence={name: score(sequence == name) for name in np.unique(sequence).tolist()},
        per_activity={name: score(activity == n) for n, name in ACTIVITIES.items() if (activity == n).any()},
        per_group={
            name: GroupScore(float(errors[:, joints].mean()), _pck(errors[:, joints]), _auc(errors[:, joints]))
            for name, joints in JOINT_GROUPS.items()
        },
    )


def _checked(name, poses, frames):
    """Return the poses of those frames, root-relative."""
    poses = poses[frames].astype(np.float64)
    bad = ~np.isfinite(poses).all((1, 2))
    if bad.any():
        raise ValueError(f"{name}: is not finite in frame {frames[bad][0]}")
    return root_relative(poses)


def _pck(errors):
    """Percentage of errors in mm, of any shape, below `PCK_LIMIT`."""
    return float((errors < PCK_LIMIT).mean() * 100)


def _auc(errors):
    """Return the mean over `AUC_LIMITS` of the percentage of errors in mm, of any shape, below each."""
    below = np.searchsorted(np.sort(errors, axis=None), AUC_LIMITS, side="left")
    return float(below.mean() / errors.size * 100)
