"""What `train.py` does: a training run or an evaluation, from options to artifacts."""

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
from lib.data.datasets.registry import open_reader
from lib.engine import checkpoint as files
from lib.engine.recorder import Run, environment
from lib.engine.trainer import prepare, train
from lib.errors import UserError
from lib.eval import plots
from lib.eval.mpi_inf_3dhp import Scores3DHP
from lib.eval.report import as_dict, baselines, predict, score, table, table_3dhp
from lib.export.safetensors import read_weights
from lib.files import atomic_path, cannot_write

DEFAULT_FOLDER = "checkpoint"

# What a resumed run cannot change: its optimiser, clips and MLflow run follow from these.
_KEPT_ON_RESUME = (
    "scan", "optimizer", "learning_rate", "weight_decay", "partial_train", "seed", "experiment",
    "dataset", "dt_file", "motion_files", "held_back", "ema", "clip_len", "data_stride", "sample_stride", "subset_list",
    "train_2d", "subset_list_2d", "pretrain_3d_curriculum",
)  # fmt: skip

log = logging.getLogger(__name__)


def train_model(options):
    """Trains from `options` (see `train.py`): a new run, a resumed one, or from pretrained parameters."""
    resume = files.read_checkpoint(options.resume) if options.resume else None
    config = _training_config(options, resume)
    start = resume
    if config.finetune and not resume:
        start = read_weights(Path(options.pretrained) / options.selection)
        _refuse_another_size(config, start)
    elif options.pretrained and not config.finetune:
        raise UserError("-p/--pretrained: is used only by a config with finetune: True; add finetune=True")
    folder = Path(options.checkpoint or (Path(options.resume).parent if resume else DEFAULT_FOLDER))
    _refuse_another_run(folder, options.resume)
    with ExitStack() as running:
        with _log_of_start(folder / "train.log"):
            if start and start.config.get("scan", config.scan) != config.scan:
                log.warning("%s was trained with scan=%s, not %s", start.path, start.config["scan"], config.scan)
            if resume and resume.epoch >= config.epochs:
                log.info(
                    "%s has finished epoch %d of %d: its scores again; to train on: epochs=N; a new run: -c OTHER_FOLDER",
                    resume.path, resume.epoch, config.epochs,
                )  # fmt: skip
            device, reader, model = _build(config, start)
            prepared = prepare(model, reader, config, folder, resume)
            facts = _facts(config, model, device)
            if start and not resume:
                log.info("starts from the weights of %s, epoch %d", start.path, start.epoch)
                facts["pretrained"] = start.path
            run_id = resume.mlflow_run_id if resume else None
            run = running.enter_context(Run(folder, config.experiment, options.mlflow, options.tensorboard, run_id))
        config_file = folder / "config.yaml"
        try:
            with atomic_path(config_file) as temporary:
                temporary.write_text(to_yaml(config))
            run.parameters(facts)
            run.artifacts(config_file)
            history = train(prepared, model, reader, config, folder, run, device)
            if history:
                plots.loss_curves(history, folder / "loss_curves.png")
            if not config.no_eval:
                epoch = config.epochs
                if (folder / files.BEST).is_file():
                    best = files.read_checkpoint(folder / files.BEST)
                    best.load_into(model)
                    epoch = best.epoch
                    log.info("best epoch: %d (by P1 on the test part, as published)", epoch)
                _report(model, reader, config, device, folder, run, epoch)
        except KeyboardInterrupt:
            if (folder / files.LATEST).is_file():
                log.info("stopped; to go on: python train.py --resume %s", folder / files.LATEST)
            raise
        except UserError as error:
            log.error("%s", error)
            raise
        finally:
            run.artifacts(*sorted(folder.glob("*.bin")), *sorted(folder.glob("*.png")), folder / "train.log")
    if (folder / files.BEST).is_file():
        log.info("to evaluate again: python train.py --evaluate %s", folder / files.BEST)


def evaluate_checkpoint(options):
    """Scores the checkpoint that `options` name (see `train.py`); its size is read from its tensors."""
    path = Path(options.evaluate or Path(options.checkpoint or DEFAULT_FOLDER) / options.checkpoint_file)
    checkpoint = read_weights(path)
    config = _evaluation_config(options, checkpoint)
    folder = Path(options.checkpoint or path.parent) / "evaluation"
    with ExitStack() as running:
        with _log_of_start(folder / "evaluation.log"):
            log.info("scan order: %s (%s)", config.scan, _origin_of_scan(config, checkpoint))
            device, reader, model = _build(config, checkpoint)
            facts = {**_facts(config, model, device), "evaluated": str(path)}
            run = running.enter_context(Run(folder, config.experiment, options.mlflow, options.tensorboard))
        run.parameters(facts)
        _report(model, reader, config, device, folder, run, checkpoint.epoch)
        run.artifacts(folder / "evaluation.log")


def _origin_of_scan(config, checkpoint):
    recorded = checkpoint.config.get("scan")
    if recorded:
        return "recorded in the checkpoint" if recorded == config.scan else f"the checkpoint records {recorded}"
    others = " or ".join(order for order in ("v2_plus_poselimbs", "v2") if order != config.scan)
    return f"the checkpoint does not record it; to switch: scan={others}"


def _training_config(options, resume):
    if not options.config and not (resume and resume.config):
        raise UserError("--config: give a config file, such as configs/pose3d/PoseMamba_train_h36m_S.yaml")
    base = resume.config if resume and not options.config else None
    config = load_config(options.config, _overrides(options), base)
    if resume:
        _refuse_another_size(config, resume)
        for key in _KEPT_ON_RESUME:
            if resume.config.get(key, getattr(config, key)) != getattr(config, key):
                raise UserError(
                    f"{key}: the run of {resume.path} has {resume.config[key]!r}, not {getattr(config, key)!r}; "
                    "a resumed run keeps it (a new run from its weights: finetune=True)"
                )
    if config.finetune and not resume and not options.pretrained:
        raise UserError("finetune: needs the folder of the pretrained checkpoint: -p DIR [-ms FILE]")
    return config


def _evaluation_config(options, checkpoint):
    """The given config, else the checkpoint's own, else the published recipe, with the checkpoint's size."""
    size = checkpoint.size()
    base = {"clip_len": size["maxlen"], **size, **({} if options.config else checkpoint.config)}
    config = load_config(options.config, _overrides(options), base, checkpoint.path)
    _refuse_another_size(config, checkpoint)
    recorded = checkpoint.config.get("scan")
    if recorded and not any(override.startswith("scan=") for override in options.overrides):
        config = config.model_copy(update={"scan": recorded})
    return config


def _overrides(options):
    seed = [] if options.seed is None else [f"seed={options.seed}"]
    return [*options.overrides, *seed]


def _refuse_another_size(config, checkpoint):
    """A size key that the config sets must be the checkpoint's."""
    size = checkpoint.size()
    wrong = [key for key, value in size.items() if key in config.model_fields_set and getattr(config, key) != value]
    if "mlp_ratio" in wrong and int(config.dim_feat * config.mlp_ratio) == int(size["dim_feat"] * size["mlp_ratio"]):
        wrong.remove("mlp_ratio")  # the width of the MLP is rounded down
    if wrong:
        wanted, found = (", ".join(f"{key} {values[key]}" for key in wrong) for values in (config.model_dump(), size))
        remedy = " ".join(f"{key}={size[key]}" for key in wrong)
        raise UserError(
            f"the config is for another model size ({wanted}) than the checkpoint {checkpoint.path} ({found}); "
            f"set {remedy}"
        )


def _refuse_another_run(folder, resume):
    existing = sorted(folder.glob("*.bin")) if folder.is_dir() else []
    own = resume and Path(resume).resolve().parent == folder.resolve()
    if existing and not own:
        latest = folder / files.LATEST
        raise UserError(
            f"{folder}: already holds a run ({existing[0].name}); choose another folder with -c, "
            f"or go on with it: --resume {latest if latest.is_file() else existing[0]}"
        )


def _build(config, start):
    """Device, reader and model; every random draw follows from `config.seed`."""
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reader = open_reader(config)
    model = config.build_model().to(device)
    if start:
        start.load_into(model)
    return device, reader, model


def _facts(config, model, device):
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    scan = default_implementation(device.type)
    if scan not in IMPLEMENTATIONS or why_unavailable(scan, device.type):
        raise UserError(f"SELECTIVE_SCAN_IMPLEMENTATION: {scan!r} is not available; see: python -m selective_scan")
    log.info("%s: %s parameters, on %s, selective scan: %s", config.backbone, f"{parameters:,}", device, scan)
    if trained < parameters:
        log.info("partial_train: %s of the parameters are trained", f"{trained:,}")
    if scan != device.type and device.type in IMPLEMENTATIONS and (reason := why_unavailable(device.type)):
        log.warning("the selective scan is slow: its form for %s is not available: %s", device.type, reason)
    return {
        **config.model_dump(),
        "parameters": parameters,
        "trained_parameters": trained,
        "selective_scan": scan,
        **environment(device),
    }


def _report(model, reader, config, device, folder, run, step):
    """Scores the test part; prints the table, writes scores.json and pictures to `folder`, records all."""
    predictions = predict(model, reader, config, device)
    scores, without = score(predictions, reader, config), baselines(reader)
    log.info("\n%s", table(scores, without))
    numbers = {}
    if isinstance(scores, Scores3DHP):
        log.info("\n%s", table_3dhp(scores))
        numbers = {"best/pck": scores.overall.pck, "best/auc": scores.overall.auc}
    with atomic_path(folder / "scores.json") as temporary:
        result = {"PoseMamba": as_dict(scores)} | {k: as_dict(v) for k, v in without._asdict().items()}
        temporary.write_text(json.dumps(result, indent=1))
    plots.per_action(scores, without, folder / "per_action.png")
    plots.skeletons(predictions, reader, folder / "skeletons.png")
    run.metrics(
        {
            "best/mpjpe": scores.mpjpe,
            "best/p_mpjpe": scores.p_mpjpe,
            "mean_pose/mpjpe": without.mean_pose.mpjpe,
            "linear/mpjpe": without.linear.mpjpe,
            **numbers,
        },
        step,
    )
    run.artifacts(folder / "scores.json", folder / "per_action.png", folder / "skeletons.png")


@contextmanager
def _log_of_start(path):
    """Messages of the project go to the terminal and to a file from here on.

    If the block fails, what is new of the file and its folders is taken away.

    Raises:
        UserError: the file cannot be written.
    """
    new = [made for made in (path, *path.parents) if not made.exists()]
    try:
        _log_to(path)
        yield
    except BaseException:
        for made in new:
            with suppress(OSError):
                made.unlink() if made == path else made.rmdir()
        raise


def _log_to(path):
    """Messages of the project to the terminal, beside progress bars, and to a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{cannot_write(path, error)}; choose another folder with -c") from error
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = _BesideBars(sys.stdout)
    to_terminal.addFilter(lambda record: record.levelno < logging.ERROR)  # `lib.cli.run` prints errors
    root = logging.getLogger("lib")
    root.setLevel(logging.INFO)
    root.handlers = [to_terminal, to_file]


class _BesideBars(logging.StreamHandler):
    """Prints above tqdm's bars instead of through them."""

    def emit(self, record):
        from tqdm import tqdm

        try:
            tqdm.write(self.format(record), file=self.stream)
            self.stream.flush()
        except OSError:
            pass  # nobody reads the terminal any more; the file has it
