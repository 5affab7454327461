"""Predicting the test clips and scoring them, with the table that people read."""

import io
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from lib.baselines import linear_predictions, mean_pose_predictions
from lib.data.dataset import network_input
from lib.data.skeleton import JOINTS, ROOT, flip
from lib.errors import TrainingStopped
from lib.metrics import Scores, evaluate_h36m


class Baselines(NamedTuple):
    """`Scores` of what needs no network."""

    mean_pose: Scores
    linear: Scores


def baselines(reader):
    """Scores of the mean training pose and of a linear regression from one frame's keypoints."""
    return Baselines(
        evaluate_h36m(mean_pose_predictions(reader), reader),
        evaluate_h36m(linear_predictions(reader), reader),
    )


@torch.no_grad()
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
        y = model(x)
        if config.flip:
            y = (y + flip(model(flip(x)))) / 2
        if config.rootrel:
            y[:, :, ROOT] = 0
        if config.gt_2d:
            y[..., :2] = x[..., :2]
        predictions[start : start + config.batch_size] = y.float().cpu()
    return predictions


def score(predictions, reader, config):
    """`Scores` of what `predict` returned.

    Raises:
        TrainingStopped: a prediction is not finite.
    """
    if not np.isfinite(predictions).all():
        raise TrainingStopped("predictions are not finite: the network diverged; lower learning_rate")
    return evaluate_h36m(predictions, reader, rootrel=config.rootrel and not config.gt_2d)


def table(scores, baselines):
    """The errors per action as text, the model's beside the baselines'."""
    columns = {"PoseMamba": scores, "mean pose": baselines.mean_pose, "linear": baselines.linear}
    view = Table(title="errors in mm: P1 = MPJPE, P2 = P-MPJPE")
    view.add_column("action", no_wrap=True)
    for name in columns:
        view.add_column(f"{name}\nP1", justify="right")
        view.add_column("\nP2", justify="right")
    for action in scores.per_action:
        view.add_row(escape(action), *_cells(s.per_action[action] for s in columns.values()))
    view.add_section()
    view.add_row("mean of actions", *_cells(columns.values()))
    console = Console(file=io.StringIO(), width=100)
    console.print(view)
    return console.file.getvalue().rstrip()


def as_dict(scores):
    """`Scores` as plain values for JSON."""
    return {
        "mpjpe": scores.mpjpe,
        "p_mpjpe": scores.p_mpjpe,
        "per_action": {action: errors._asdict() for action, errors in scores.per_action.items()},
    }


def _cells(scores):
    return [f"{value:.1f}" for s in scores for value in (s.mpjpe, s.p_mpjpe)]
