"""The commands of `train.py`: a training run or an evaluation, from options to artifacts."""

import json
import logging
import random
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from selective_scan import IMPLEMENTATIONS, default_implementation, why_unavailable

from lib.config import load_config, to_yaml
from lib.data.datasets import open_dataset
from lib.engine.checkpoint import BEST, PREVIOUS, checkpoint_files, remove_unfinished
from lib.engine.interrupts import StopRequest
from lib.engine.processes import lost_ones_explained
from lib.engine.recorder import Run, environment
from lib.engine.resuming import newest_checkpoint, put_in_front, refuse_other_keys
from lib.engine.runtime import Runtime
from lib.engine.state import new_state
from lib.engine.trainer import Trainer, predict
from lib.errors import UserError, unknown
from lib.eval import plots
from lib.files import atomic_path, cannot_write, only_one
from lib.model.facts import parameters_of
from lib.model.opening import config_of, model_from, parts_to_begin, refuse_another_size, size_of
from lib.model.registry import MODELS, build_model
from lib.model.scan_layer import ScanLayer
from lib.model.weights import read_checkpoint, read_weights
from lib.task import open_tasks

DEFAULT_FOLDER = "checkpoint"

log = logging.getLogger(__name__)


def train_model(options):
    """Train from `options` (see `train.py`): a new run, a resumed one, or from pretrained parameters."""
    folder = _folder(options)
    found = checkpoint_files(folder)
    resume, damaged = _checkpoint_to_resume(options, folder)
    config = _training_config(options, resume)
    start, new = resume, {}
    if config.finetune and not resume:
        start = read_weights(Path(options.pretrained) / options.selection)
        if start.network is not None:
            raise UserError(f"{start.path}: is exported, for inference; training needs the checkpoint it was made from")
        new = parts_to_begin(config, start)
        refuse_another_size(config, start, but=new)
    elif options.pretrained and not config.finetune:
        raise UserError("-p/--pretrained: is used only by a config with finetune: True; add finetune=True")
    _refuse_another_run(folder, resume)
    with ExitStack() as running:
        runtime = running.enter_context(Runtime(config))
        runtime.check_batch_size()
        runtime.check_same((config.model_dump(), resume and (resume.epoch, (resume.state or {}).get("step"))))
        started = running.enter_context(_log_of_start(folder / "train.log", runtime.is_main))
        if runtime.is_main:
            running.enter_context(only_one(folder / "run", named=folder))
            if checkpoint_files(folder) != found:
                raise UserError(f"{folder}: another process has written to it meanwhile; start again")
            remove_unfinished(folder)
        dataset, model = _build(config, start, runtime, new.values())
        state = new_state(model, config, runtime)
        tasks = open_tasks(config, dataset)
        stop = running.enter_context(StopRequest())
        trainer = Trainer(state, tasks, config, runtime, folder, stop)
        if resume:
            state.resume(resume, runtime, config)  # last: opening the data draws random numbers
        facts = _facts(config, model, runtime)
        if start and not resume:
            facts["pretrained"] = start.path
        run = running.enter_context(_recorder(folder, config, options, runtime, resume))
        started()
        _say_what_starts(config, start, resume, damaged, runtime, new)
        if resume and runtime.is_main:
            state.best = put_in_front(resume, folder, config.checkpoint_frequency)
            run.catch_up(resume.history)
        config_file = folder / "config.yaml"
        try:
            with lost_ones_explained():
                if runtime.is_main:
                    with atomic_path(config_file) as temporary:
                        temporary.write_text(to_yaml(config))
                run.parameters(facts)
                run.artifacts(config_file)
                history = trainer.train(run)
                if history and runtime.is_main:
                    plots.loss_curves(history, folder / "loss_curves.png", *tasks[-1].curves)
                if not config.no_eval:
                    _report_best(state.scored, tasks[-1], config, runtime, folder, run, stop)
        except KeyboardInterrupt:
            if checkpoint_files(folder):
                log.info("stopped; to go on: python train.py --resume %s", folder)
            raise
        except UserError as error:
            log.error("%s", error)
            raise
        finally:
            kept = [path for path in sorted(folder.glob("*.bin")) if path.name != PREVIOUS]
            run.artifacts(*kept, *sorted(folder.glob("*.png")), folder / "train.log")
    if (folder / BEST).is_file():
        log.info("to evaluate again: python train.py --evaluate %s", folder / BEST)


def _report_best(model, task, config, runtime, folder, run, stop):
    """Score the best epoch of a finished training."""
    epoch = config.epochs
    path = folder / BEST
    best = runtime.first(read_checkpoint(path) if runtime.is_main and path.is_file() else None)
    if best:
        best.load_into(model)
        epoch = best.epoch
        log.info("best epoch: %d (by %s on the test split)", epoch, task.chosen_by)

    def stop_together():
        if runtime.any(stop.requested)[0]:
            raise KeyboardInterrupt

    _report(model, task, config, runtime, folder, run, epoch, stop_together)


def evaluate_checkpoint(options):
    """Score the checkpoint that `options` name (see `train.py`); its size is read from its tensors."""
    path = Path(options.evaluate or Path(options.checkpoint or DEFAULT_FOLDER) / options.checkpoint_file)
    checkpoint = read_weights(path)
    config = config_of(checkpoint, options.config, _overrides(options))
    folder = Path(options.checkpoint or path.parent) / "evaluation"
    with ExitStack() as running:
        runtime = running.enter_context(Runtime(config))
        started = running.enter_context(_log_of_start(folder / "evaluation.log", runtime.is_main))
        told = size_of(checkpoint, config.backbone)
        for key in MODELS[config.backbone].keys:
            log.info("%s: %s (%s)", key, getattr(config, key), _origin(key, config, checkpoint, told))
        dataset, model = _build(config, checkpoint, runtime)
        facts = {**_facts(config, model, runtime), "evaluated": str(path)}
        run = running.enter_context(_recorder(folder, config, options, runtime))
        started()
        run.parameters(facts)
        _report(
            model,
            open_tasks(config.model_copy(update={"train_2d": False}), dataset)[-1],
            config,
            runtime,
            folder,
            run,
            checkpoint.epoch,
        )
        run.artifacts(folder / "evaluation.log")


def _folder(options):
    """Return the folder of the run: that of -c, else of --resume, else the default one."""
    if options.checkpoint or not options.resume:
        return Path(options.checkpoint or DEFAULT_FOLDER)
    resume = Path(options.resume)
    return resume if resume.is_dir() else resume.parent


def _checkpoint_to_resume(options, folder):
    """Return the `Checkpoint` of --resume FILE, or the newest good one of a folder, or None; and what is wrong with others.

    The folder is that of --resume DIR, or the run's.
    """
    if options.resume is None:
        return None, []
    path = Path(options.resume or folder)
    if path.is_dir() or not options.resume:
        return newest_checkpoint(path)
    return read_checkpoint(path), []


def _say_what_starts(config, start, resume, damaged, runtime, new):
    for problem in damaged:
        log.warning("%s; %s is used", problem, resume.path)
    for key in MODELS[config.backbone].keys:
        if key in new:
            log.info("%s=%s is begun anew: %s has no such part", key, getattr(config, key), start.path)
        elif start and start.config.get(key, getattr(config, key)) != getattr(config, key):
            log.warning("%s was trained with %s=%s, not %s", start.path, key, start.config[key], getattr(config, key))
    if resume and resume.epoch >= config.epochs:
        log.info(
            "%s has finished epoch %d of %d: its scores again; to train on: epochs=N; a new run: -c OTHER_FOLDER",
            resume.path, resume.epoch, config.epochs,
        )  # fmt: skip
    elif resume:
        position = (resume.state or {}).get("position", {})
        within = f", batch {position['batch']} of the next" if position.get("batch") else ""
        log.info("goes on from %s: epoch %d%s", resume.path, resume.epoch, within)
    elif start:
        log.info("starts from the weights of %s, epoch %d", start.path, start.epoch)
    if line := runtime.describe():
        log.info(line)


def _recorder(folder, config, options, runtime, resume=None):
    """Return the `Run` of this process: only process 0 records."""
    records = runtime.is_main
    run_id = resume.mlflow_run_id if resume else None
    return Run(folder, config.experiment, options.mlflow and records, options.tensorboard and records, run_id)


def _origin(key, config, checkpoint, told):
    """Return where a key is from; told: {key: value} that the shapes of the checkpoint's tensors tell."""
    recorded = checkpoint.config.get(key)
    if recorded:
        return (
            "recorded in the checkpoint" if recorded == getattr(config, key) else f"the checkpoint records {recorded}"
        )
    if key in told:
        return "read from the shapes of its tensors"
    others = " or ".join(order for order in ("v2_plus_poselimbs", "v2") if order != getattr(config, key))
    return "the checkpoint does not record it" + (f"; to switch: scan={others}" if key == "scan" else "")


def _training_config(options, resume):
    if not options.config and not (resume and resume.config):
        raise UserError("--config: give a config file, such as configs/pose3d/PoseMamba_train_h36m_S.yaml")
    base = resume.config if resume and not options.config else None
    config = load_config(options.config, _overrides(options), base)
    if resume:
        refuse_another_size(config, resume)
        refuse_other_keys(config, resume)
    if config.finetune and not resume and not options.pretrained:
        raise UserError("finetune: needs the folder of the pretrained checkpoint: -p DIR [-ms FILE]")
    return config


def _overrides(options):
    seed = [] if options.seed is None else [f"seed={options.seed}"]
    return [*options.overrides, *seed]


def _refuse_another_run(folder, resume):
    existing = sorted(path.name for path in folder.glob("*.bin")) if folder.is_dir() else []
    own = resume and Path(resume.path).resolve().parent == folder.resolve()
    if existing and not own:
        raise UserError(
            f"{folder}: already holds a run ({existing[0]}); choose another folder with -c, "
            f"or go on with it: --resume {folder}"
        )


def _build(config, start, runtime, new=()):
    """Return data set and model; every random draw follows from `config.seed` and the rank.

    start: the `Checkpoint` whose parameters it gets, all but those with a prefix in `new`, or whose network it is; or None.
    """
    random.seed(config.seed)
    np.random.seed(config.seed)  # the same in all processes: clips are cut alike
    torch.manual_seed(config.seed)
    dataset = open_dataset(config)
    model = model_from(start, config, runtime.device, new) if start else build_model(config).to(runtime.device)
    if runtime.rank:
        torch.manual_seed(config.seed + runtime.rank)
    return dataset, model


def _facts(config, model, runtime):
    own = parameters_of(model)
    parameters = getattr(model, "parameter_count", own)  # an exported network has them elsewhere
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    device = runtime.device
    scans = {"selective_scan": _scan_on(device)} if any(isinstance(part, ScanLayer) for part in model.modules()) else {}
    found = environment(device)
    where = f"{device} ({found['gpu']}, CUDA {found['cuda']})" if "gpu" in found else str(device)
    by = "".join(f", selective scan: {scan}" for scan in scans.values())
    log.info("%s: %s parameters, on %s%s", config.backbone, f"{parameters:,}", where, by)
    if trained < own:
        log.info("partial_train: %s of the parameters are trained", f"{trained:,}")
    return {
        **config.model_dump(),
        "parameters": parameters,
        "trained_parameters": trained,
        **scans,
        "processes": runtime.world_size,
        **found,
    }


def _scan_on(device):
    """Return the implementation of the selective scan on a device; warn if it is a slow one.

    Raises:
        UserError: the environment asks for one that is not available.
    """
    scan = default_implementation(device.type)
    if scan not in IMPLEMENTATIONS:
        raise UserError(f"SELECTIVE_SCAN_IMPLEMENTATION: {unknown(scan, IMPLEMENTATIONS)}")
    if reason := why_unavailable(scan, device.type):
        raise UserError(f"SELECTIVE_SCAN_IMPLEMENTATION: {scan!r} is not available: {reason}")
    if scan != device.type and device.type in IMPLEMENTATIONS and (reason := why_unavailable(device.type)):
        log.warning("the selective scan is slow: its form for %s is not available: %s", device.type, reason)
    return scan


def _report(model, task, config, runtime, folder, run, step, after_batch=lambda: None):
    """Score the test split; print the table, write scores.json and plots to `folder`, record all."""
    predictions = predict(model, task, runtime, after_batch)
    if not runtime.is_main:
        return
    scores, others = task.score(predictions), task.baselines()
    log.info("\n%s", scores.table(config.backbone, others))
    with atomic_path(folder / "scores.json") as temporary:
        result = {name: found.as_dict() for name, found in {config.backbone: scores, **others}.items()}
        temporary.write_text(json.dumps(result, indent=1))
    charts = task.draw(predictions, scores, others, folder)
    run.metrics(
        {f"best/{name}": value for name, value in {**scores.values, **scores.extra}.items()}
        | {f"{name}/{key}": value for name, other in others.items() for key, value in list(other.values.items())[:1]},
        step,
    )
    run.artifacts(folder / "scores.json", *charts)


@contextmanager
def _log_of_start(path, is_main):
    """Send messages of the project to the terminal and to a file from here on, those of process 0 alone.

    Yields a function. If the block fails before it is called, what is new of the file and its folders is taken away.

    Raises:
        UserError: the file cannot be written.
    """
    if not is_main:
        yield lambda: None
        return
    new = [made for made in (path, *path.parents) if not made.exists()]
    try:
        _log_to(path)
        yield new.clear
    except BaseException:
        for made in new:
            with suppress(OSError):
                made.unlink() if made == path else made.rmdir()
        raise


def _log_to(path):
    """Send messages of the project to the terminal, beside progress bars, and to a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        to_file = _ToFile(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{cannot_write(path, error)}; choose another folder with -c") from error
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = _BesideBars(sys.stdout)
    to_terminal.addFilter(lambda record: record.levelno < logging.ERROR)  # `lib.cli.run` prints errors
    root = logging.getLogger("lib")
    root.setLevel(logging.INFO)
    root.handlers = [to_terminal, to_file]


class _ToFile(logging.FileHandler):
    """Goes on where the disk is full: the terminal has it."""

    def handleError(self, record):
        pass


class _BesideBars(logging.StreamHandler):
    """Prints above tqdm's bars instead of through them."""

    def emit(self, record):
        from tqdm import tqdm

        try:
            tqdm.write(self.format(record), file=self.stream)
            self.stream.flush()
        except OSError:
            pass  # nobody reads the terminal any more; the file has it
