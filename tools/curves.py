"""Draw the curves of several trainings beside each other: loss and test score, over epochs and over time.

python tools/curves.py checkpoint/mambapose/2d checkpoint/mambapose/2d_vitpose --out curves.png
python tools/curves.py MambaPose=runs/a,runs/b,runs/c ViTPose=runs/d,runs/e,runs/f --out three_seeds.png

A training is the folder of a run of train.py, or a latest_epoch.bin of it. Several with commas between them, the seeds of
one training, are a mean and the range of all of them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.cli import Parser, run
from lib.errors import UserError

FORMATS = (".png", ".pdf", ".svg")


def named_runs(text):
    """Return the name and the paths of NAME=RUN,RUN or of RUN alone, which is called as its folder is."""
    name, _, paths = text.rpartition("=")
    paths = [Path(path) for path in paths.split(",") if path]
    if not paths:
        raise argparse.ArgumentTypeError(f"expected the folder of a run, or NAME=RUN,RUN, got {text!r}")
    return name or paths[0].name, paths


def picture(text):
    """Return the path of a picture, for argparse."""
    if Path(text).suffix not in FORMATS:
        raise argparse.ArgumentTypeError(f"expected a name that ends in {', '.join(FORMATS)}, got {text!r}")
    return Path(text)


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=named_runs, nargs="+", metavar="RUN", help="folder of a training, or NAME=RUN,RUN")
    parser.add_argument("--out", type=picture, required=True, metavar="FILE", help="image to draw")
    options = parser.parse()
    names = [name for name, _ in options.runs]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{min(repeated)}: two trainings have this name; say NAME=RUN")

    from lib.engine.checkpoint import LATEST  # after parsing: --help need not load torch
    from lib.eval import plots
    from lib.model.weights import read_checkpoint
    from lib.task import scored_task

    found = {
        name: [read_checkpoint(path / LATEST if path.is_dir() else path) for path in paths]
        for name, paths in options.runs
    }
    curves = {checkpoint.path: _curves(checkpoint, scored_task) for runs in found.values() for checkpoint in runs}
    if len({str(kind) for kind in curves.values()}) > 1:
        raise UserError(f"{', '.join(curves)}: are scored in different ways; draw those of one task together")
    histories = {name: [checkpoint.history for checkpoint in runs] for name, runs in found.items()}
    plots.compared_curves(histories, options.out, *next(iter(curves.values())))
    print(f"{options.out}: written")


def _curves(checkpoint, scored_task):
    """Return the scores of a training's task and their unit."""
    from lib.config import load_config

    if not checkpoint.history:
        raise UserError(f"{checkpoint.path}: records no finished epoch")
    return scored_task(load_config(None, (), checkpoint.config)).curves


if __name__ == "__main__":
    run(main)
