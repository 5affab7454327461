"""All that a training is, between two steps: what a checkpoint holds, and what a resumed run starts from."""

import logging
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lib.engine.checkpoint import random_state, restore_random_state
from lib.engine.optimizers import OPTIMIZERS
from lib.errors import UserError, describe

log = logging.getLogger(__name__)


@dataclass
class Position:
    """Position in the epoch under way: `batch` batches of task number `task` are done, in the order of `seed`.

    totals: {name: sum over clips of its loss or term}, of `count` clips, of this task; means: of the tasks before;
    seconds: so far.
    """

    task: int = 0
    batch: int = 0
    seed: int | None = None
    totals: dict = field(default_factory=dict)
    count: int = 0
    means: dict = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class TrainState:
    """After `epoch` finished epochs and `step` steps of the optimiser; `lr` is the epoch's, `best` the lowest score, mm.

    averaged: the moving average of the weights (`ema`), or None. scaler: of gradients, for fp16. clips: {name of a
    task: number of its clips}.
    """

    model: torch.nn.Module
    optimizer: Any
    averaged: AveragedModel | None
    scaler: torch.amp.GradScaler
    lr: float
    epoch: int = 0
    step: int = 0
    best: float = math.inf
    history: list = field(default_factory=list)
    position: Position = field(default_factory=Position)
    clips: dict = field(default_factory=dict)

    @property
    def scored(self):
        """Return the weights that are scored and given away."""
        return self.averaged.module if self.averaged else self.model

    def content(self, runtime, config, run_id):
        """Return what a checkpoint file holds: the published layout, and what this project adds (lib/model/weights.py).

        All processes call it; process 0 gets it, the others None.
        """
        totals = {name: total.cpu() for name, total in self.position.totals.items()}
        processes = runtime.gathered({"random_state": random_state(), "totals": totals, "count": self.position.count})
        if not runtime.is_main:
            return None
        return {
            "epoch": self.epoch,
            "lr": self.lr,
            "optimizer": self.optimizer.state_dict(),
            "model_pos": {f"module.{name}": value for name, value in self.scored.state_dict().items()},
            "min_loss": self.best,
            "config": config.model_dump(),
            "random_state": processes[0]["random_state"],
            "history": self.history,
            "mlflow_run_id": run_id,
            "trained": self.model.state_dict() if self.averaged else None,
            "state": {
                "step": self.step,
                "position": vars(self.position),
                "others": processes[1:],
                "clips": self.clips,
                "scaler": self.scaler.state_dict(),
                "averaged": int(self.averaged.n_averaged) if self.averaged else 0,
            },
        }

    def resume(self, checkpoint, runtime, config):
        """Go on from a `Checkpoint`, whose scored weights the model holds already.

        Raises:
            UserError: it holds no optimiser, or one of other parameters; or its run had other clips.
        """
        more = checkpoint.state or {}
        if more.get("clips", self.clips) != self.clips:
            raise UserError(
                f"{checkpoint.path}: its run had {_counts(more['clips'])}, and there are {_counts(self.clips)}; "
                "set dt_root and data_root_2d to the same data"
            )
        _load_optimizer(self.optimizer, checkpoint)
        self.lr = config.learning_rate if checkpoint.lr is None else checkpoint.lr
        self.epoch, self.history = checkpoint.epoch, list(checkpoint.history)
        self.best = math.inf if checkpoint.min_loss is None else checkpoint.min_loss
        self.step = more.get("step", 0)
        self.position = Position(**more.get("position", {}))
        if more.get("scaler"):
            self.scaler.load_state_dict(more["scaler"])
        if self.averaged:
            self.averaged.n_averaged.fill_(more.get("averaged", 1))
            self.model.load_state_dict(checkpoint.trained or checkpoint.model)
        position = self.position
        main = {"random_state": checkpoint.random_state, "totals": position.totals, "count": position.count}
        own = _share([main, *more.get("others", [])], runtime, checkpoint.path)
        position.count = own["count"]
        position.totals = {name: total.to(runtime.device) for name, total in own["totals"].items()}
        if own["random_state"]:
            restore_random_state(own["random_state"])


def new_state(model, config, runtime):
    """Return the `TrainState` of a new training of `model`, on its device.

    Raises:
        UserError: `partial_train` names no parameter.
    """
    trained = _trained_parameters(model, config.partial_train)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
    optimizer = OPTIMIZERS[config.optimizer](trained, config)
    return TrainState(model, optimizer, averaged, runtime.scaler, config.learning_rate)


def _counts(clips):
    return " and ".join(f"{count} clips{f' of {name}' if name else ''}" for name, count in clips.items())


def _share(saved, runtime, path):
    """Return what this process goes on with: its own of the saved {random_state, totals, count} of all processes.

    Where they are more or fewer now, process 0 takes the totals of all, and who has no random state goes on as seeded.
    """
    if not saved[0]["random_state"]:
        log.warning("%s: holds no random state: clips come in another order than they would have", path)
    if len(saved) == runtime.world_size:
        return saved[runtime.rank]
    log.warning(
        "%s: saved at world size %d, now %d: random draws differ from those of a run that never stopped",
        path, len(saved), runtime.world_size,
    )  # fmt: skip
    states = [process["random_state"] for process in saved]
    own = {"random_state": states[runtime.rank] if runtime.rank < len(states) else None, "totals": {}, "count": 0}
    if runtime.is_main:
        own["count"] = sum(process["count"] for process in saved)
        own["totals"] = {k: sum(process["totals"].get(k, 0) for process in saved) for k in saved[0]["totals"]}
    return own


def _trained_parameters(model, parts):
    """Return {name: parameter} of all, or of those whose names contain one of `parts`; the others are frozen."""
    if not parts:
        return dict(model.named_parameters())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in parts))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise UserError(f"partial_train: no parameter's name contains any of {', '.join(parts)}")
    return trained


def _load_optimizer(optimizer, checkpoint):
    if checkpoint.optimizer is None:
        raise UserError(f"{checkpoint.path}: holds no optimiser, so training cannot resume; use finetune")
    fused = [group.get("fused") for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(checkpoint.optimizer)
    except (ValueError, KeyError) as error:
        raise UserError(f"{checkpoint.path}: its optimiser has other parameters ({describe(error)})") from error
    for group, value in zip(optimizer.param_groups, fused):  # published files say nothing of it
        if value is not None:
            group["fused"], group["foreach"] = value, None
    for parameter, state in optimizer.state.items():
        kept = state["exp_avg" if "exp_avg" in state else "momentum_buffer"]
        if kept.shape != parameter.shape:
            raise UserError(f"{checkpoint.path}: its optimiser was for other parameters; set partial_train as it was")
        if "step" in state:
            state["step"] = state["step"].to(parameter.device)  # where a fused step wants it; others keep it on the CPU
