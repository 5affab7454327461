"""Train one config once for each scan order, and compare the scores.

python tools/ablate.py --config configs/pose3d/PoseMamba_train_h36m_S.yaml -c checkpoint/ablation
python tools/ablate.py --config configs/pose3d/PoseMamba_train_cmu.yaml -c checkpoint/ablation --limb-gradients

Each entry is a run of train.py in a folder of its own, and in MLflow a child of one run. After an interruption the same
command goes on: finished entries are skipped, the one under way is resumed. Left in the folder: ablation.json,
ablation.txt, ablation.png.
"""

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.cli import Parser, run
from lib.config import load_config
from lib.engine.processes import one_voice
from lib.errors import TrainingStopped, UserError
from lib.files import atomic_path, only_one
from lib.model.registry import MODELS, build_model
from lib.model.scan_orders import LIMB_GRADIENTS, SCAN_ORDERS

RECORD = "ablation.json"
ORDERS = [name for number, (name, order) in enumerate(SCAN_ORDERS.items())
          if order not in list(SCAN_ORDERS.values())[:number]]  # fmt: skip
_VARIED = ("scan", "limb_gradient")


class Entry(NamedTuple):
    """Training run of an ablation; limb_gradient: None where the order has no limb term."""

    scan: str
    limb_gradient: str | None

    @property
    def name(self):
        return "-".join(filter(None, self))

    @property
    def overrides(self):
        return [f"{key}={value}" for key, value in self._asdict().items() if value]


def entries_of(orders, gradients):
    """Return the `Entry`s of scan orders; those with a limb term once for each of its gradients."""
    return [
        Entry(scan, gradient)
        for scan in orders
        for gradient in (gradients if any(direction.limbs for direction in SCAN_ORDERS[scan]) else [None])
    ]


@one_voice()
def main():
    options = _parse()
    config = _config(options)
    gradients = LIMB_GRADIENTS if options.limb_gradients else [config.limb_gradient]
    entries = entries_of(options.orders or ORDERS, gradients)

    from lib.engine.experiment import train_model  # after parsing: --help need not load torch
    from lib.engine.recorder import Run
    from lib.engine.runtime import Runtime
    from train import parse as training_options

    folder = Path(options.checkpoint)
    with ExitStack() as running:
        runtime = running.enter_context(Runtime(config))  # the processes stay together from entry to entry
        is_main = runtime.is_main
        waiting = runtime.first([entry for entry in entries if not _is_finished(folder / entry.name)])
        if is_main:
            running.enter_context(only_one(folder / "ablation", named=folder))
        run_id = _recorded_run(folder, config, entries)
        recorder = Run(folder, config.experiment, options.mlflow and is_main, use_tensorboard=False, run_id=run_id)
        record = running.enter_context(recorder)
        stopped = {}
        report = _Report(folder, config, entries, stopped, record) if is_main else lambda: None
        report()
        record.parameters({**config.model_dump(exclude=set(_VARIED)), "entries": len(entries)})
        for entry in waiting:
            if is_main:
                print(f"ablation: {entry.name}, {entries.index(entry) + 1} of {len(entries)}", flush=True)
            try:
                train_model(training_options(_arguments(options, entry, folder)))
            except TrainingStopped as error:  # of this entry alone
                stopped[entry] = str(error)
            finally:
                report()
        if is_main:
            print((folder / "ablation.txt").read_text())
        if stopped:
            raise TrainingStopped("; ".join(f"{entry.name}: {error}" for entry, error in stopped.items()))


def _parse():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", required=True, help="YAML config of train.py")
    parser.add_argument("-c", "--checkpoint", metavar="DIR", required=True, help="folder of the ablation")
    parser.add_argument(
        "--orders", metavar="ORDER", action="extend", nargs="+", choices=ORDERS,
        help=f"scan orders (default: all, {', '.join(ORDERS)})",
    )  # fmt: skip
    parser.add_argument("--limb-gradients", action="store_true", help="orders with limbs: each gradient of that term")
    parser.add_argument("--no-mlflow", dest="mlflow", action="store_false", help="record nothing in MLflow")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any config key")
    return parser.parse()


def _config(options):
    """Return the config that all entries share.

    Raises:
        UserError: it is wrong, or cannot be ablated.
    """
    config = load_config(options.config, options.overrides)
    varied = [*_VARIED[:1], *(_VARIED[1:] if options.limb_gradients else [])]
    for override in options.overrides:
        key = override.partition("=")[0]
        if key in varied:
            raise UserError(f"{override}: {key} is what the ablation varies; leave it out")
    if "scan" not in MODELS[config.backbone].keys:
        raise UserError(f"backbone: {config.backbone} has no scan orders to compare")
    for key in ("no_eval", "finetune"):
        if getattr(config, key):
            raise UserError(f"{key}: an ablation scores trainings from the start; set {key}=False")
    return config


def _recorded_run(folder, config, entries):
    """Return the MLflow run of the ablation in a folder, or None.

    Raises:
        UserError: the folder has trainings of another config, or its record is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        before, run_id = record["config"], record["mlflow_run_id"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: is not the record of an ablation; remove it, or choose another folder with -c"
        ) from error
    if any(_has_checkpoint(folder / entry.name) for entry in entries):
        for key, value in _shared(config).items():
            if key in before and before[key] != value:
                raise UserError(
                    f"{key}: the ablation in {folder} has {before[key]!r}, not {value!r}; choose another folder with -c"
                )
    return run_id


def _shared(config):
    return config.model_dump(exclude=set(_VARIED))


def _has_checkpoint(folder):
    return any(folder.glob("*.bin"))


def _is_finished(folder):
    return (folder / "scores.json").is_file()  # what train.py writes last


def _arguments(options, entry, folder):
    """Return the arguments of `train.py` for an entry: a new run, or the one that was interrupted."""
    own = folder / entry.name
    return [
        "--config", options.config, "-c", str(own), *(["--resume", str(own)] if _has_checkpoint(own) else []),
        *([] if options.mlflow else ["--no-mlflow"]), *options.overrides, *entry.overrides,
    ]  # fmt: skip


class _Report:
    """Writer of the results so far: record, table and chart, in the folder and in MLflow."""

    def __init__(self, folder, config, entries, stopped, record):
        from lib.model.facts import parameters_of

        self.folder, self.config, self.entries, self.stopped, self.record = folder, config, entries, stopped, record
        self.parameters = parameters_of(build_model(config))

    def __call__(self):
        from lib.eval import plots

        rows = [self._row(entry) for entry in self.entries]
        known = {row["name"]: row for row in rows if row["state"] == "finished"}
        content = {"config": _shared(self.config), "mlflow_run_id": self.record.id, "entries": rows}
        self._write(RECORD, json.dumps(content, indent=1))
        self._write("ablation.txt", _table(rows) + "\n")
        if known:
            plots.ablation(known, self.folder / "ablation.png")
        metrics = {f"{name}/{key}": row[key] for name, row in known.items() for key in ("mpjpe", "p_mpjpe", "seconds")}
        self.record.metrics(metrics, self.config.epochs)
        self.record.artifacts(*(self.folder / name for name in (RECORD, "ablation.txt", "ablation.png")))

    def _row(self, entry):
        """Return the figures of an entry; None: not known yet. seconds: of its epochs, training and scoring."""
        from lib.engine.checkpoint import LATEST
        from lib.model.weights import read_checkpoint

        own = self.folder / entry.name
        row = {"name": entry.name, **entry._asdict(), "parameters": self.parameters}
        if not _is_finished(own):
            state = "stopped" if entry in self.stopped else "started" if _has_checkpoint(own) else "waiting"
            return {**row, "state": state, "mpjpe": None, "p_mpjpe": None, "seconds": None}
        scores = json.loads((own / "scores.json").read_text())[self.config.backbone]
        seconds = sum(epoch["seconds"] for epoch in read_checkpoint(own / LATEST).history)
        return {**row, "state": "finished", "mpjpe": scores["mpjpe"], "p_mpjpe": scores["p_mpjpe"], "seconds": seconds}

    def _write(self, name, text):
        with atomic_path(self.folder / name) as temporary:
            temporary.write_text(text)


def _table(rows):
    """Return the figures of all entries as text."""
    from rich.table import Table

    from lib.eval.scores import as_text

    view = Table(title="errors of the best epoch in mm: P1 = MPJPE, P2 = P-MPJPE")
    view.add_column("scan order", no_wrap=True)
    view.add_column("limb gradient", no_wrap=True)
    for title in ("P1", "P2", "seconds", "parameters", "state"):
        view.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        figures = [f"{row[key]:.1f}" if row[key] is not None else "" for key in ("mpjpe", "p_mpjpe", "seconds")]
        view.add_row(row["scan"], row["limb_gradient"] or "", *figures, f"{row['parameters']:,}", row["state"])
    return as_text(view)


if __name__ == "__main__":
    run(main, when_memory_ends="lower batch_size or clip_len")
