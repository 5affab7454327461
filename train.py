"""Train and evaluate PoseMamba.

python train.py --config configs/pose3d/PoseMamba_train_h36m_S.yaml -c checkpoint/pose3d/PoseMamba_S
python train.py --evaluate checkpoint/pose3d/PoseMamba_S/best_epoch.bin
"""

import argparse
from pathlib import Path

from lib.cli import Parser, run
from lib.engine.processes import one_voice
from lib.errors import UserError


def parse(arguments=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", help="YAML config; needed for a new training")
    parser.add_argument("-c", "--checkpoint", metavar="DIR", help="folder of the run (default: checkpoint)")
    parser.add_argument("-e", "--evaluate", metavar="FILE", help="evaluate this checkpoint")
    parser.add_argument(
        "--eval-only", action="store_true", help="evaluate DIR/FILE of --checkpoint and --checkpoint-file"
    )
    parser.add_argument("--checkpoint-file", metavar="FILE", default="best_epoch.bin", help="default: %(default)s")
    parser.add_argument(
        "-r", "--resume", metavar="FILE", nargs="?", const="",
        help="go on from this checkpoint, or from the newest good one of this folder (default: that of -c)",
    )  # fmt: skip
    parser.add_argument("-p", "--pretrained", metavar="DIR", help="folder of the checkpoint that finetune starts from")
    parser.add_argument(
        "-ms", "--selection", metavar="FILE", default="best_epoch.bin",
        help="its name in that folder (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("-sd", "--seed", type=int, help="of every random draw (default: the config's, 0)")
    parser.add_argument("--no-mlflow", dest="mlflow", action="store_false", help="record nothing in MLflow")
    parser.add_argument(
        "--no-tensorboard", dest="tensorboard", action="store_false", help="write no tensorboardX events"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any config key")
    options = parser.parse(arguments)
    if options.resume and "=" in options.resume and not Path(options.resume).exists():  # --resume key=value
        options.overrides.insert(0, options.resume)
        options.resume = ""
    return options


@one_voice()
def main():
    options = parse()
    modes = [options.evaluate is not None, options.eval_only, options.resume is not None]
    if sum(modes) > 1:
        raise UserError("--evaluate, --eval-only, --resume: give only one of them")
    from lib.engine.experiment import evaluate_checkpoint, train_model  # after parsing: --help need not load torch

    if options.evaluate is not None or options.eval_only:
        evaluate_checkpoint(options)
    else:
        train_model(options)


if __name__ == "__main__":
    run(main, when_memory_ends="lower batch_size or clip_len")
