"""One run in MLflow and tensorboardX: parameters, metrics, artifacts, and how it ended."""

import logging
import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lib.errors import UserError, describe
from lib.files import PROJECT

DEFAULT_STORE = Path("mlruns/mlflow.db")
_LIBRARIES = ("torch", "numpy", "timm", "mlflow", "selective_scan")

log = logging.getLogger(__name__)


def environment(device):
    """Return {name: text} of the device, commit and library versions, which a result depends on beside the config."""
    facts = {
        "device": str(device),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    if device.type == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    for library in _LIBRARIES:
        try:
            facts[f"version_{library}"] = version(library)
        except PackageNotFoundError:
            facts[f"version_{library}"] = "not installed"
    return facts


class Run:
    """A tracked run; use it in `with`: it ends as finished, failed (an exception) or killed (Ctrl-C).

    A store that stops answering after the start costs a warning, never the training.

    Args:
        folder: checkpoint folder; event files of tensorboardX go to its `events`.
        experiment: MLflow experiment.
        use_mlflow, use_tensorboard: which of the two record.
        run_id: the MLflow run to go on with, or None; a new one is begun if the store does not know it.

    Raises:
        UserError: on entering, the MLflow store cannot be used.
    """

    def __init__(self, folder, experiment, use_mlflow=True, use_tensorboard=True, run_id=None):
        self.folder = Path(folder)
        self.experiment = experiment
        self.id = run_id
        self._mlflow = _load_mlflow() if use_mlflow else None
        self._use_tensorboard = use_tensorboard
        self._writer = None

    def __enter__(self):
        if self._mlflow:
            self._begin()
        if self._use_tensorboard:
            try:
                from tensorboardX import SummaryWriter

                self._writer = SummaryWriter(str(self.folder / "events"), purge_step=0)  # hides older files
            except Exception as error:  # what is begun must not stay as running
                self.__exit__(type(error), error, None)
                raise UserError(
                    f"{self.folder / 'events'}: tensorboardX cannot write there ({describe(error)}); "
                    "pass --no-tensorboard"
                ) from error
        return self

    def __exit__(self, kind, error, trace):
        if self._writer:
            self._writer.close()
        if self._mlflow:
            interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
            status = "KILLED" if interrupted else "FAILED" if kind else "FINISHED"
            self._attempt(self._mlflow.end_run, status)

    def parameters(self, values):
        """Record parameters; those already recorded with another value (a resumed run) become tags."""
        if not self._mlflow:
            return
        known = self._attempt(lambda: self._mlflow.get_run(self.id).data.params) or {}
        new = {key: value for key, value in values.items() if key not in known}
        changed = {
            f"resumed.{key}": value for key, value in values.items() if key in known and known[key] != str(value)
        }
        self._attempt(self._mlflow.log_params, new)
        self._attempt(self._mlflow.set_tags, changed)

    def metrics(self, values, step):
        """Record {name: number} at an epoch."""
        self._to_events(values, step)
        self._to_mlflow(values, step)

    def epoch(self, entry):
        """Record an entry of a training's history: {"epoch": its number, name: number}."""
        self.metrics(*_values_and_step(entry))

    def catch_up(self, history):
        """Record the entries of a resumed run: in MLflow those that it lacks, in new event files all."""
        known = set()
        if self._mlflow and history:
            ask = self._mlflow.MlflowClient().get_metric_history
            known = {metric.step for metric in self._attempt(ask, self.id, "lr") or ()}
        for entry in history:
            values, step = _values_and_step(entry)
            self._to_events(values, step)
            if step not in known:
                self._to_mlflow(values, step)

    def _to_events(self, values, step):
        for name, value in values.items() if self._writer else ():
            self._attempt(self._writer.add_scalar, _allowed(name), value, step)

    def _to_mlflow(self, values, step):
        if self._mlflow:
            values = {_allowed(name): value for name, value in values.items()}
            self._attempt(self._mlflow.log_metrics, values, step=step)

    def artifacts(self, *paths):
        """Record the files among `paths` that exist."""
        for path in paths:
            if self._mlflow and Path(path).is_file():
                self._attempt(self._mlflow.log_artifact, str(path))

    def _begin(self):
        uri, artifacts = os.environ.get("MLFLOW_TRACKING_URI"), None
        try:
            if not uri:
                uri = f"sqlite:///{DEFAULT_STORE.resolve()}"
                artifacts = (DEFAULT_STORE.parent / "artifacts").resolve().as_uri()
                DEFAULT_STORE.parent.mkdir(parents=True, exist_ok=True)
            self._mlflow.set_tracking_uri(uri)
            if self._mlflow.get_experiment_by_name(self.experiment) is None:
                self._mlflow.create_experiment(self.experiment, artifact_location=artifacts)
            self._mlflow.set_experiment(self.experiment)
            within = self._mlflow.active_run() is not None  # of an ablation
            self._mlflow.start_run(run_id=self._known_run(), run_name=self.folder.name, nested=within)
        except Exception as error:  # the store may be a file, a database or a server
            raise UserError(
                f"MLflow store {uri}: {describe(error)}; set MLFLOW_TRACKING_URI to another, or pass --no-mlflow"
            ) from error
        self.id = self._mlflow.active_run().info.run_id

    def _known_run(self):
        if self.id is None:
            return None
        try:
            self._mlflow.get_run(self.id)
            return self.id
        except self._mlflow.exceptions.MlflowException:
            log.warning("MLflow run %s is not in this store: a new one is begun", self.id)
            return None

    def _attempt(self, call, *arguments, **keywords):
        try:
            return call(*arguments, **keywords)
        except Exception as error:  # tracking must not end a training that works
            log.warning("not recorded (%s)", describe(error))


def _values_and_step(entry):
    return {name: value for name, value in entry.items() if name != "epoch"}, entry["epoch"]


def _allowed(name):
    """Return a metric's name with "_" for the characters that MLflow refuses."""
    return re.sub(r"[^\w\-. /:]", "_", name)


def _load_mlflow():
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import mlflow
    except ImportError as error:
        raise UserError("mlflow is not installed; pip install -r requirements.txt, or pass --no-mlflow") from error
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def _git_commit():
    def git(*arguments):
        return subprocess.run(
            ["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        dirty = "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + dirty
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
