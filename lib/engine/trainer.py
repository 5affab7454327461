"""The training loop: epochs of clips, scores, checkpoints."""

import logging
import math
import time
from typing import NamedTuple

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from lib.engine import checkpoint as files
from lib.engine.optimizers import OPTIMIZERS
from lib.errors import TrainingStopped, UserError, describe
from lib.eval.report import predict, score
from lib.task.stages import training_stages

log = logging.getLogger(__name__)


class Start(NamedTuple):
    """Where training begins: after `done` epochs, with learning rate `lr`; `best` is the lowest P1 so far, in mm.

    averaged: the moving average of the weights (`ema`), or None.
    """

    averaged: AveragedModel | None
    stages: list
    optimizer: torch.optim.Optimizer
    done: int
    lr: float
    best: float
    history: list


def prepare(model, reader, config, folder, resume=None):
    """The `Start` of a training; writes nothing.

    Args:
        model: on its device, already holding the parameters of `resume`.
        reader: a `DataReaderH36M`.
        folder: of the run's checkpoints.
        resume: the `Checkpoint` to go on from, or None.

    Raises:
        UserError: data or a checkpoint cannot be read, or `resume` is of other parameters.
    """
    stages = training_stages(config, reader)
    trained = _trained_parameters(model, config.partial_train)
    optimizer = OPTIMIZERS[config.optimizer](trained, config)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
    done, lr, best, history = 0, config.learning_rate, math.inf, []
    if resume:
        done, lr, history = _continue_from(resume, optimizer, config)
        if averaged:
            averaged.n_averaged += 1
            model.load_state_dict(resume.trained or resume.model)
        if (folder / files.BEST).is_file():
            best = files.read_checkpoint(folder / files.BEST).min_loss or math.inf
    return Start(averaged, stages, optimizer, done, lr, best, history)


def train(start, model, reader, config, folder, run, device):
    """Trains until `config.epochs` epochs are done; writes checkpoints to `folder` after each.

    Published recipe: AdamW over all parameters, learning rate times `lr_decay` after each epoch, test
    scores after each epoch.

    Args:
        start: what `prepare` gave for the same model, reader, config and folder.
        model: on `device`.
        run: the `Run` that records.

    Raises:
        TrainingStopped: the loss is not finite; checkpoints of earlier epochs are untouched.
        UserError: data cannot be read, or a checkpoint cannot be written.
    """
    averaged, stages, optimizer, done, lr, best, history = start
    scored = averaged.module if averaged else model
    total, initial = _steps(stages, config.epochs), _steps(stages, done)
    bar = tqdm(total=total, initial=initial, unit="step", disable=None)
    with bar:
        for epoch in range(done + 1, config.epochs + 1):
            begin = time.monotonic()
            losses = _train_epoch(model, averaged, stages, optimizer, lr, config, device, epoch, bar)
            entry = {"epoch": epoch, "lr": lr, **{f"train/{k}": v for k, v in losses.items()}}
            _check_finite(losses, f"epoch {epoch}")
            if not all(p.isfinite().all() for p in model.parameters()):
                raise _stopped("a parameter is not finite", f"epoch {epoch}, after its last step")
            if not config.no_eval:
                scores = score(predict(scored, reader, config, device), reader, config)
                entry |= {"test/mpjpe": scores.mpjpe, "test/p_mpjpe": scores.p_mpjpe}
                entry |= {
                    f"test/{name} {action}": value
                    for action, errors in scores.per_action.items()
                    for name, value in errors._asdict().items()
                }
            seconds = time.monotonic() - begin
            entry["seconds"] = seconds
            history.append(entry)
            run.metrics({k: v for k, v in entry.items() if k != "epoch"}, epoch)
            _report(entry, config.epochs, seconds * (config.epochs - epoch))

            lr *= config.lr_decay
            _set_learning_rate(optimizer, lr)
            names = []
            if entry.get("test/mpjpe", math.inf) < best:
                best = entry["test/mpjpe"]
                names.append(files.BEST)
            if epoch % config.checkpoint_frequency == 0:
                names.append(files.numbered(epoch))
            names.append(files.LATEST)  # last: a run resumes from it, and then the others are there
            files.write_checkpoint(
                [folder / name for name in names],
                scored,
                optimizer,
                epoch,
                lr,
                best,
                config=config.model_dump(),
                random_state=files.random_state(),
                history=history,
                mlflow_run_id=run.id,
                trained=model.state_dict() if averaged else None,
            )
    return history


def _train_epoch(model, averaged, stages, optimizer, lr, config, device, epoch, bar):
    """One pass over the clips of all stages at learning rate `lr`; means over each of its loss and of its terms."""
    means, steps_done = {}, _steps(stages, epoch - 1)
    for stage in stages:
        if epoch >= stage.first:
            means |= _train_stage(model, averaged, stage, optimizer, lr, config, device, epoch, steps_done, bar)
            steps_done += len(stage.batches)
    return means


def _train_stage(model, averaged, stage, optimizer, lr, config, device, epoch, steps_done, bar):
    model.train()
    totals, count = {}, 0
    of = f" of {stage.name}" if stage.name else ""
    for step, (inputs, targets) in enumerate(stage.batches, 1):
        loss, terms = stage.learn(model, inputs, targets, device)
        _check_finite({"loss": loss.item()}, f"epoch {epoch}, step {step} of {len(stage.batches)}{of}")
        _set_learning_rate(optimizer, lr * min(1, (steps_done + step) / max(1, config.warmup_steps)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if averaged:
            averaged.update_parameters(model)

        count += len(inputs)
        for name, value in {stage.name or "loss": loss.detach(), **terms}.items():
            totals[name] = totals.get(name, 0) + value * len(inputs)
        bar.set_description(f"epoch {epoch}/{config.epochs}", refresh=False)
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
        bar.update()
    return {name: (total / count).item() for name, total in totals.items()}


def _steps(stages, epochs):
    """Steps of the first so many epochs."""
    return sum(len(stage.batches) * max(0, epochs - stage.first + 1) for stage in stages)


def _set_learning_rate(optimizer, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr


def _check_finite(values, place):
    for name, value in values.items():
        if not math.isfinite(value):
            raise _stopped(f"{name} is {value}", place)


def _stopped(what, place):
    return TrainingStopped(
        f"{what} at {place}: nothing was saved over the last good checkpoint; lower learning_rate, or look at the data"
    )


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


def _continue_from(resume, optimizer, config):
    """Optimiser and random state of a checkpoint; its finished epochs, next lr, history."""
    if resume.optimizer is None:
        raise UserError(f"{resume.path}: holds no optimiser, so training cannot resume; use finetune")
    try:
        optimizer.load_state_dict(resume.optimizer)
    except (ValueError, KeyError) as error:
        raise UserError(f"{resume.path}: its optimiser has other parameters ({describe(error)})") from error
    for parameter, state in optimizer.state.items():
        kept = state["exp_avg" if "exp_avg" in state else "momentum_buffer"]
        if kept.shape != parameter.shape:
            raise UserError(f"{resume.path}: its optimiser was for other parameters; set partial_train as it was")
    lr = config.learning_rate if resume.lr is None else resume.lr
    if resume.random_state:
        files.restore_random_state(resume.random_state)
    else:
        log.warning("%s: holds no random state: the order of clips starts anew", resume.path)
    return resume.epoch, lr, list(resume.history)


def _report(entry, epochs, seconds_left):
    errors = ""
    if "test/mpjpe" in entry:
        errors = f"  P1 {entry['test/mpjpe']:.1f} mm  P2 {entry['test/p_mpjpe']:.1f} mm"
    log.info(
        "epoch %d/%d  loss %.4f%s  lr %.2e  %.0f s  about %.0f min left",
        entry["epoch"], epochs, entry["train/loss"], errors, entry["lr"], entry["seconds"],
        seconds_left / 60,
    )  # fmt: skip
