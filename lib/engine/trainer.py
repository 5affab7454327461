"""The training loop: epochs of tasks, scores, checkpoints."""

import logging
import math
import time
from contextlib import nullcontext

import numpy as np
import torch
from tqdm import tqdm

from lib.data.loader import draw_seed
from lib.engine.checkpoint import BEST, LATEST, PREVIOUS, WITHIN, numbered, write_checkpoint
from lib.engine.profiler import profiled
from lib.engine.state import Position
from lib.engine.unread import say_unread
from lib.errors import TrainingStopped

log = logging.getLogger(__name__)

_DROP = 0.1  # of the learning rate after the epochs of `lr_drops`


class Trainer:
    """Trains until `config.epochs` epochs are done; writes checkpoints to `folder`.

    Published recipe: AdamW over all parameters, learning rate times `lr_decay` after each epoch, test scores after each
    epoch.

    Args:
        state: a `lib.engine.state.TrainState`.
        tasks: of `lib.task.open_tasks`; the last is scored.
        stop: a `lib.engine.interrupts.StopRequest`.
    """

    def __init__(self, state, tasks, config, runtime, folder, stop):
        self.state, self.tasks, self.config, self.runtime = state, tasks, config, runtime
        self.folder, self.stop, self.run = folder, stop, None
        self.loaders = [task.loaders("train", **runtime.sharing()) for task in tasks]
        for task in tasks:
            what = f"2D clips from epoch {task.first} on" if task.name else "training clips"
            log.info("%s: %s", what, task.origin)
        state.clips = {task.name: len(loader.clips) for task, loader in zip(tasks, self.loaders)}
        self.model = runtime.wrap(state.model)
        self._unseen = []  # (place, numbers of clips, loss) of steps whose losses nobody has looked at
        self._saved, self._saved_step = time.monotonic(), None

    def train(self, run):
        """Train, and return the history: a list of {name: number} of the epochs.

        Args:
            run: the `lib.engine.recorder.Run` that records.

        Raises:
            TrainingStopped: a loss is not finite; checkpoints are untouched by it.
            KeyboardInterrupt: a stop was asked for; it has been saved.
            UserError: data cannot be read, or a checkpoint cannot be written.
        """
        state, config, self.run = self.state, self.config, run
        total = sum(self._steps(epoch) for epoch in range(1, config.epochs + 1))
        done = sum(self._steps(epoch) for epoch in range(1, state.epoch + 1)) + self._steps_within()
        state.step = state.step or done  # which older files do not hold
        hidden = None if self.runtime.is_main else True
        profile = profiled(config.profile and self.runtime.is_main, self.folder)
        with tqdm(total=total, initial=done, unit="step", disable=hidden) as self.bar, profile as self.profile:
            for epoch in range(state.epoch + 1, config.epochs + 1):
                self._train_epoch(epoch)
                self._finish_epoch(epoch)
        return state.history

    def _train_epoch(self, epoch):
        position = self.state.position
        before, begin = position.seconds, time.monotonic()
        self.state.model.train()
        for number in range(position.task, len(self.tasks)):
            task, loader = self.tasks[number], self.loaders[number]
            if epoch < task.first:
                position.task += 1
                continue
            if position.seed is None:
                position.seed = self.runtime.first(draw_seed())
            for batch in loader.epoch(position.seed, position.batch):
                position.seconds = before + time.monotonic() - begin
                self._train_batch(task, batch, loader, epoch)
            self._look_at_losses()
            position.means |= self._means(position)
            position.task, position.batch, position.seed, position.totals, position.count = number + 1, 0, None, {}, 0
        position.seconds = before + time.monotonic() - begin

    def _train_batch(self, task, batch, loader, epoch):
        """Learn from one batch; every `accumulate` of them, and the last ones of an epoch, make a step."""
        position, number, together = self.state.position, self.state.position.batch, self.config.accumulate
        begins = number - number % together
        steps = number + 1 == min(begins + together, len(loader))
        if number == begins:
            self.state.optimizer.zero_grad()
        batch = self.runtime.to_device(batch)
        share = batch["weight"] * loader.clips_of(number) / loader.clips_of(begins, together)
        with nullcontext() if steps else self.runtime.unsynchronised(self.model):
            loss, terms = task.loss(self.model, batch)
            self.state.scaler.scale(loss if share == 1 else loss * share).backward()
        loss = loss.detach()
        place = f"epoch {epoch}, step {number // together + 1} of {-(-len(loader) // together)}"
        place += f" of {task.name}" if task.name else ""
        self._unseen.append((place, batch["index"], loss))
        count = len(batch["index"]) if batch["weight"] else 0
        position.count += count
        for name, value in {task.name or "loss": loss, **terms}.items():
            position.totals[name] = position.totals.get(name, 0) + value * count
        position.batch += 1
        if steps:
            self._step(epoch)

    def _step(self, epoch):
        state, config = self.state, self.config
        state.step += 1
        _set_learning_rate(state.optimizer, state.lr * min(1, state.step / max(1, config.warmup_steps)))
        if config.clip_grad:
            state.scaler.unscale_(state.optimizer)
            torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_grad)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.averaged:
            state.averaged.update_parameters(state.model)
        self.profile.step()
        self.bar.set_description(f"epoch {epoch}/{config.epochs}", refresh=False)
        self.bar.update()
        stop, due = self.runtime.any(self.stop.requested, self._due())  # all stop and save after the same step
        if stop or due or len(self._unseen) >= config.log_every * config.accumulate:
            self._look_at_losses()
        if stop or due:
            self._save_within()
        if stop:
            log.info("saved at %s", self._place())
            raise KeyboardInterrupt

    def _due(self):
        return time.monotonic() - self._saved >= 60 * self.config.checkpoint_minutes

    def _look_at_losses(self):
        """Stop if a loss since the last look is not finite, in any process: the first, since it spoils all weights."""
        problem = None
        if self._unseen:
            losses = torch.stack([loss for *_, loss in self._unseen]).tolist()  # waits for the device
            bad = [number for number, value in enumerate(losses) if not math.isfinite(value)]
            if bad:
                place, clips, _ = self._unseen[bad[0]]
                who = f" in process {self.runtime.rank}" if self.runtime.world_size > 1 else ""
                clips = ", ".join(map(str, clips.tolist()))
                problem = bad[0], f"loss is {losses[bad[0]]} at {place}{who} (clips {clips})"
            self.bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
            self._unseen.clear()
        problems = [found for found in self.runtime.everyone(problem) if found]
        if problems:
            raise _stopped(min(problems, key=lambda found: found[0])[1])

    def _means(self, position):
        """Return {name: mean over clips} of the losses and terms of the task that is done, over all processes."""
        if self.runtime.world_size == 1:
            return {name: (total / position.count).item() for name, total in position.totals.items()}
        everyone = self.runtime.everyone(({k: total.item() for k, total in position.totals.items()}, position.count))
        clips = sum(count for _, count in everyone)
        return {name: sum(totals.get(name, 0) for totals, _ in everyone) / clips for name in everyone[0][0]}

    def _finish_epoch(self, epoch):
        state, config = self.state, self.config
        self._check_parameters()
        for loader in self.loaders:
            say_unread(loader, self.runtime, "others of the set took their place in training")
        entry = {"epoch": epoch, "lr": state.lr, **{f"train/{k}": v for k, v in state.position.means.items()}}
        begin = time.monotonic()
        scores = None if config.no_eval else self._score()
        if scores:
            entry |= {f"test/{name}": value for name, value in {**scores.values, **scores.details}.items()}
        entry["seconds"] = state.position.seconds + time.monotonic() - begin
        state.history.append(entry)
        self._report(entry, scores)
        state.epoch, state.lr, state.position = epoch, self._next_lr(epoch), Position()
        _set_learning_rate(state.optimizer, state.lr)
        names = []
        if scores and scores.headline < state.best:
            state.best = scores.headline
            names.append(BEST)
        if epoch % config.checkpoint_frequency == 0:
            names.append(numbered(epoch))
        self._save(LATEST, names, keep=self.folder / PREVIOUS)
        self.run.epoch(entry)  # a resumed run records what is in the checkpoint and not yet here
        if self.runtime.any(self.stop.requested)[0] and epoch < config.epochs:
            raise KeyboardInterrupt

    def _next_lr(self, epoch):
        """Return the learning rate of the epoch after this one."""
        drop = _DROP if epoch in self.config.lr_drops else 1.0
        return self.state.lr * self.config.lr_decay * drop

    def _score(self):
        """Return the `Scores` of the test split after an epoch."""
        task = self.tasks[-1]
        predictions = predict(self.state.scored, task, self.runtime, self._stop_while_scoring)
        return self.runtime.first_does(lambda: task.score(predictions))

    def _stop_while_scoring(self):
        stop, due = self.runtime.any(self.stop.requested, self._due())
        if stop or due:
            self._save_within()
        if stop:
            raise KeyboardInterrupt

    def _save_within(self):
        if self.state.step != self._saved_step:  # else scoring is under way, and nothing is new
            self._check_parameters()
            self._save(WITHIN)

    def _save(self, name, others=(), keep=None):
        content = self.state.content(self.runtime, self.config, self.run.id)
        if self.runtime.is_main:
            write_checkpoint(self.folder / name, content, [self.folder / other for other in others], keep)
        self._saved, self._saved_step = time.monotonic(), self.state.step

    def _check_parameters(self):
        if not all(parameter.isfinite().all() for parameter in self.state.model.parameters()):
            raise _stopped(f"a parameter is not finite after {self._place()}")

    def _place(self):
        """Return where training is, as text."""
        return f"epoch {self.state.epoch + 1}, step {self._steps_within()} of {self._steps(self.state.epoch + 1)}"

    def _steps(self, epoch):
        """Return the steps of an epoch."""
        return self._steps_of(len(self.tasks), epoch)

    def _steps_within(self):
        """Return the steps done of the epoch under way."""
        position = self.state.position
        return self._steps_of(position.task, self.state.epoch + 1) + position.batch // self.config.accumulate

    def _steps_of(self, tasks, epoch):
        """Return the steps that the first `tasks` tasks take in an epoch."""
        return sum(
            -(-len(loader) // self.config.accumulate)
            for task, loader in zip(self.tasks[:tasks], self.loaders)
            if epoch >= task.first
        )

    def _report(self, entry, scores):
        errors = f"  {scores.summary()}" if scores else ""
        log.info(
            "epoch %d/%d  loss %.4f%s  lr %.2e  %.0f s  about %.0f min left",
            entry["epoch"], self.config.epochs, entry["train/loss"], errors, entry["lr"], entry["seconds"],
            entry["seconds"] * (self.config.epochs - entry["epoch"]) / 60,
        )  # fmt: skip


@torch.no_grad()
def predict(model, task, runtime, after_batch=lambda: None):
    """Return the predictions of the test split (n, ...), NumPy, each clip once, in process 0.

    All processes call it and take their share of each batch; the others return their own clips alone.
    """
    model.eval()
    runtime.share_buffers(model)
    loader = task.loaders("test", **runtime.sharing())
    forward = runtime.cast(model)
    found = None
    hidden = None if runtime.is_main else True
    for batch in tqdm(loader, desc="evaluating", unit="batch", leave=False, disable=hidden):
        predicted = task.predict(forward, runtime.to_device(batch)).cpu().numpy()
        if found is None:
            found = np.empty((len(loader.clips), *predicted.shape[1:]), predicted.dtype)
        if batch["weight"]:
            found[batch["index"].numpy()] = predicted
        after_batch()
    say_unread(loader, runtime, "they count as misses in the scores")
    own = loader.indices()
    for indices, predicted in runtime.gathered((own, found[own]))[1:]:
        found[indices] = predicted
    return found


def _set_learning_rate(optimizer, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr


def _stopped(what):
    return TrainingStopped(
        f"{what}: nothing was saved over the last good checkpoint; lower learning_rate, or look at the data"
    )
