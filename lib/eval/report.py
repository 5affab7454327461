"""Predicting the test clips and scoring them, with the table that people read."""

import io
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from lib.body.skeleton import JOINTS, ROOT
from lib.data.datasets.mpi_inf_3dhp import DataReader3DHP
from lib.data.training_clips import network_input
from lib.errors import TrainingStopped
from lib.eval.baselines import linear_predictions, mean_pose_predictions
from lib.eval.h36m import Scores, evaluate_h36m
from lib.eval.mpi_inf_3dhp import Scores3DHP, evaluate_clips_3dhp
from lib.model.inference import infer

_PARTS_3DHP = ("per_sequence", "per_activity", "per_group")


class Baselines(NamedTuple):
    """`Scores` of what needs no network."""

    mean_pose: Scores
    linear: Scores


def baselines(reader):
    """Scores of the mean training pose and of a linear regression from one frame's keypoints."""
    return Baselines(
        _evaluate(mean_pose_predictions(reader), reader),
        _evaluate(linear_predictions(reader), reader),
    )


def predict(model, reader, config, device):
    """Normalised poses of the reader's test clips: (clips, F, 17, 3) NumPy, mirrored and averaged if `flip`."""
    model.eval()
    _, clips = reader.get_split_id()
    predictions = np.empty((*clips.shape, len(JOINTS), 3), np.float32)
    starts = range(0, len(clips), config.batch_size)
    for start in tqdm(starts, desc="evaluating", unit="batch", leave=False, disable=None):
        rows = clips[start : start + config.batch_size]
        inputs, targets = (torch.from_numpy(read("test", rows)) for read in (reader.read_2d, reader.read_3d))
        x = network_input(inputs, targets, config)
        x = x.to(device)
        y = infer(model, x, config)
        if config.rootrel:
            y[:, :, ROOT] = 0
        if config.gt_2d:
            y[..., :2] = x[..., :2]
        predictions[start : start + config.batch_size] = y.float().cpu()
    return predictions


def score(predictions, reader, config):
    """`Scores`, or `Scores3DHP`, of what `predict` returned.

    Raises:
        TrainingStopped: a prediction is not finite.
    """
    if not np.isfinite(predictions).all():
        raise TrainingStopped("predictions are not finite: the network diverged; lower learning_rate")
    return _evaluate(predictions, reader, config.rootrel and not config.gt_2d)


def _evaluate(predictions, reader, rootrel=True):
    if isinstance(reader, DataReader3DHP):
        return evaluate_clips_3dhp(predictions, reader)
    return evaluate_h36m(predictions, reader, rootrel)


def table(scores, baselines):
    """The errors per action or sequence as text, the model's beside the baselines'."""
    columns = {"PoseMamba": scores, "mean pose": baselines.mean_pose, "linear": baselines.linear}
    view = Table(title="errors in mm: P1 = MPJPE, P2 = P-MPJPE")
    view.add_column(scores.group, no_wrap=True)
    for name in columns:
        view.add_column(f"{name}\nP1", justify="right")
        view.add_column("\nP2", justify="right")
    for action in scores.per_action:
        view.add_row(escape(action), *_cells(s.per_action[action] for s in columns.values()))
    view.add_section()
    view.add_row(scores.total, *_cells(columns.values()))
    return _as_text(view)


def table_3dhp(scores):
    """MPJPE, PCK and AUC of `Scores3DHP` as text: overall, per sequence, activity and group of joints."""
    view = Table(title="MPI-INF-3DHP: MPJPE in mm, PCK at 150 mm and AUC in %")
    for name in ("", "MPJPE", "PCK", "AUC"):
        view.add_column(name, justify="right" if name else "left", no_wrap=True)
    parts = scores.per_sequence, scores.per_activity, scores.per_group, {scores.total: scores.overall}
    for part in parts:
        for name, found in part.items():
            view.add_row(escape(name), *(f"{value:.1f}" for value in (found.mpjpe, found.pck, found.auc)))
        view.add_section()
    return _as_text(view)


def _as_text(view):
    console = Console(file=io.StringIO(), width=100)
    console.print(view)
    return console.file.getvalue().rstrip()


def as_dict(scores):
    """`Scores` or `Scores3DHP` as plain values for JSON."""
    if isinstance(scores, Scores3DHP):
        parts = {key: {name: s._asdict() for name, s in getattr(scores, key).items()} for key in _PARTS_3DHP}
        return {**scores.overall._asdict(), **parts}
    return {
        "mpjpe": scores.mpjpe,
        "p_mpjpe": scores.p_mpjpe,
        "per_action": {action: errors._asdict() for action, errors in scores.per_action.items()},
    }


def _cells(scores):
    return [f"{value:.1f}" for s in scores for value in (s.mpjpe, s.p_mpjpe)]
