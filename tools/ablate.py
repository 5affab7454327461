"""Train one config several times with other keys and seeds, and compare the scores.

python tools/ablate.py --config configs/pose3d/PoseMamba_train_h36m_S.yaml -c checkpoint/ablation
python tools/ablate.py --config configs/pose3d/PoseMamba_train_cmu.yaml -c checkpoint/ablation --limb-gradients
python tools/ablate.py --config configs/mambapose/MambaPose_nano_2d.yaml -c checkpoint/streams --seeds 0 1 2
python tools/ablate.py --config configs/mambapose/MambaPose_nano_2d.yaml -c checkpoint/rate \\
    --entries learning_rate=1e-3,ema=0.99 learning_rate=4e-3,ema=0.999

Without --entries: PoseMamba's scan orders, or MambaPose's streams and encoders. Each training is a run of train.py in a
folder of its own, and in MLflow a child of one run. After an interruption the same command goes on: finished entries are
skipped, the one under way is resumed. Left in the folder: ablation.json, ablation.txt, ablation.png, curves.png.
"""

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.cli import Parser, run, whole
from lib.config import load_config
from lib.engine.ablation import entries_of, summary, variation
from lib.engine.processes import one_voice
from lib.errors import TrainingStopped, UserError
from lib.files import atomic_path, only_one
from lib.model.registry import MODELS, build_model
from lib.model.scan_orders import DISTINCT_ORDERS, LIMB_GRADIENTS, SCAN_ORDERS

RECORD, TABLE, BARS, CURVES = "ablation.json", "ablation.txt", "ablation.png", "curves.png"


@one_voice()
def main():
    options = _parse()
    config = load_config(options.config, options.overrides)
    entries = entries_of(_variations(options, config), options.seeds)
    _refuse(options, config, entries)

    from lib.engine.experiment import train_model  # after parsing: --help need not load torch
    from lib.engine.recorder import Run
    from lib.engine.runtime import Runtime
    from train import parse as training_options

    folder = Path(options.checkpoint)
    varied = {key for entry in entries for key in (*entry.keys, "seed")}
    with ExitStack() as running:
        runtime = running.enter_context(Runtime(config))  # the processes stay together from entry to entry
        is_main = runtime.is_main
        waiting = runtime.first([entry for entry in entries if not _is_finished(folder / entry.name)])
        if is_main:
            running.enter_context(only_one(folder / "ablation", named=folder))
        shared = config.model_dump(exclude=varied)
        run_id = _recorded_run(folder, shared, entries)
        recorder = Run(folder, config.experiment, options.mlflow and is_main, use_tensorboard=False, run_id=run_id)
        record = running.enter_context(recorder)
        stopped = {}
        report = _Report(folder, options, shared, entries, stopped, record) if is_main else lambda: None
        report()
        record.parameters({**shared, "entries": len(entries)})
        for entry in waiting:
            if is_main:
                print(f"ablation: {entry.name}, {entries.index(entry) + 1} of {len(entries)}", flush=True)
            try:
                train_model(training_options(_arguments(options, entry, folder)))
            except TrainingStopped as error:  # of this entry alone
                stopped[entry.name] = str(error)
            finally:
                report()
        if is_main:
            print((folder / TABLE).read_text())
        if stopped:
            raise TrainingStopped("; ".join(f"{name}: {error}" for name, error in stopped.items()))


def _parse():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", required=True, help="YAML config of train.py")
    parser.add_argument("-c", "--checkpoint", metavar="DIR", required=True, help="folder of the ablation")
    parser.add_argument(
        "--entries", metavar="KEY=VALUE", action="extend", nargs="+", type=_entry,
        help="what is trained: keys of the config, those of one training joined by commas",
    )  # fmt: skip
    parser.add_argument(
        "--orders", metavar="ORDER", action="extend", nargs="+", choices=DISTINCT_ORDERS,
        help=f"scan orders (default: all, {', '.join(DISTINCT_ORDERS)})",
    )  # fmt: skip
    parser.add_argument("--limb-gradients", action="store_true", help="orders with limbs: each gradient of that term")
    parser.add_argument(
        "--seeds", metavar="N", action="extend", nargs="+", type=whole, help="every entry once with each of these seeds"
    )
    parser.add_argument("--no-mlflow", dest="mlflow", action="store_false", help="record nothing in MLflow")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any config key")
    return parser.parse()


def _entry(text):
    try:
        return variation(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected key=value, or several with commas, got {text!r}") from error


def _variations(options, config):
    """Return the {key: text} of every variation.

    Raises:
        UserError: the model has nothing to compare, or options contradict each other.
    """
    if options.entries:
        if options.orders or options.limb_gradients:
            raise UserError("--entries: says all that is compared; leave out --orders and --limb-gradients")
        return options.entries
    model = MODELS[config.backbone]
    if "scan" not in model.keys:
        if options.orders or options.limb_gradients:
            raise UserError(f"backbone: {config.backbone} has no scan orders to compare")
        if not model.variations:
            raise UserError(f"backbone: {config.backbone} has nothing to compare by default; give --entries")
        return model.variations
    gradients = LIMB_GRADIENTS if options.limb_gradients else [config.limb_gradient]
    orders = options.orders or [keys["scan"] for keys in model.variations]
    with_limbs = {order for order in orders if any(direction.limbs for direction in SCAN_ORDERS[order])}
    return [
        {"scan": order} | ({"limb_gradient": gradient} if gradient else {})
        for order in orders
        for gradient in (gradients if order in with_limbs else [None])
    ]


def _refuse(options, config, entries):
    """Raise a `UserError` for a config that cannot be ablated."""
    for override in options.overrides:
        key = override.partition("=")[0]
        chosen_here = key == "limb_gradient" and not options.limb_gradients
        if not chosen_here and any(key in entry.keys for entry in entries):
            raise UserError(f"{override}: {key} is what the ablation varies; leave it out")
        if key == "seed" and options.seeds:
            raise UserError(f"{override}: --seeds says the seeds; leave it out")
    for key in ("no_eval", "finetune"):
        if getattr(config, key):
            raise UserError(f"{key}: an ablation scores trainings from the start; set {key}=False")


def _recorded_run(folder, shared, entries):
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
        for key, value in shared.items():
            if key in before and before[key] != value:
                raise UserError(
                    f"{key}: the ablation in {folder} has {before[key]!r}, not {value!r}; choose another folder with -c"
                )
    return run_id


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
    """Writer of the results so far: record, table and charts, in the folder and in MLflow."""

    def __init__(self, folder, options, shared, entries, stopped, record):
        from lib.model.facts import parameters_of
        from lib.task import scored_task

        self.folder, self.shared, self.entries, self.stopped, self.record = folder, shared, entries, stopped, record
        configs = [load_config(options.config, [*options.overrides, *entry.overrides]) for entry in entries]
        self.backbones = [config.backbone for config in configs]
        of_variations = {entry.variation: config for entry, config in zip(entries, configs)}  # one of all seeds
        of_sizes = {name: parameters_of(build_model(config)) for name, config in of_variations.items()}
        self.parameters = [of_sizes[entry.variation] for entry in entries]
        self.epochs = max(config.epochs for config in configs)
        self.scores, self.unit = scored_task(configs[0]).curves
        self._histories: dict = {}  # of finished entries

    def __call__(self):
        from lib.eval import plots

        rows = [self._row(*found) for found in zip(self.entries, self.backbones, self.parameters)]
        spreads = summary(rows, self.scores)
        content = {"config": self.shared, "mlflow_run_id": self.record.id, "entries": rows}
        self._write(RECORD, json.dumps(content, indent=1))
        self._write(TABLE, self._table(rows, spreads) + "\n")
        known = [row for row in rows if row["state"] == "finished"]
        if known:
            done = {name: found for name, found in spreads.items() if found["seconds"]}
            plots.ablation(done, self.folder / BARS, self.scores, self.unit)
            histories = {
                name: [self._history(row["name"]) for row in known if row["variation"] == name] for name in done
            }
            plots.compared_curves(histories, self.folder / CURVES, self.scores, self.unit)
        metrics = {
            f"{row['name']}/{key}": row[key]
            for row in known
            for key in (*self.scores, "seconds")
            if row[key] is not None
        }
        self.record.metrics(metrics, self.epochs)
        self.record.artifacts(*(self.folder / name for name in (RECORD, TABLE, BARS, CURVES)))

    def _row(self, entry, backbone, parameters):
        """Return the figures of an entry; None: not known yet. seconds: of its epochs, training and scoring."""
        own = self.folder / entry.name
        row = {"name": entry.name, "variation": entry.variation, **entry.keys, "parameters": parameters}
        row |= {} if entry.seed is None else {"seed": entry.seed}
        if not _is_finished(own):
            state = "stopped" if entry.name in self.stopped else "started" if _has_checkpoint(own) else "waiting"
            return {**row, "state": state, **dict.fromkeys((*self.scores, "seconds"))}
        scores = json.loads((own / "scores.json").read_text())[backbone]
        seconds = sum(epoch["seconds"] for epoch in self._history(entry.name))
        return {**row, "state": "finished", **{key: scores.get(key) for key in self.scores}, "seconds": seconds}

    def _history(self, name):
        """Return the history of a finished entry."""
        from lib.engine.checkpoint import LATEST
        from lib.model.weights import read_checkpoint

        if name not in self._histories:
            self._histories[name] = read_checkpoint(self.folder / name / LATEST).history
        return self._histories[name]

    def _table(self, rows, spreads):
        """Return the figures as text: a row for each variation, means and standard deviations over its seeds."""
        from rich.table import Table

        from lib.eval.scores import as_text

        keys = list(dict.fromkeys(key for entry in self.entries for key in entry.keys))
        shown = [key for key in self.scores if any(found[key] for found in spreads.values())] or list(self.scores)
        view = Table(title=f"scores of the best epoch, {self.unit}")
        for key in keys:
            view.add_column(key.replace("_", " "), no_wrap=True)
        for key in shown:
            view.add_column(self.scores[key], justify="right", no_wrap=True)
        for title in ("seconds", "parameters", "state"):
            view.add_column(title, justify="right", no_wrap=True)
        digits = 1 if self.unit == "mm" else 3
        for name, found in spreads.items():
            same = [row for row in rows if row["variation"] == name]
            done = [row["state"] for row in same]
            state = done[0] if len(set(done)) == 1 else f"{done.count('finished')} of {len(done)}"
            figures = [_figure(found[key], digits) for key in shown]
            varied = [str(same[0].get(key, "")) for key in keys]
            view.add_row(*varied, *figures, _figure(found["seconds"], 0), f"{same[0]['parameters']:,}", state)
        return as_text(view)

    def _write(self, name, text):
        with atomic_path(self.folder / name) as temporary:
            temporary.write_text(text)


def _figure(spread, digits):
    if not spread:
        return ""
    mean, deviation = spread
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if deviation else "")


if __name__ == "__main__":
    run(main, when_memory_ends="lower batch_size or clip_len")
