"""Convert a checkpoint to a folder with model.safetensors and config.json, or such a folder back to a checkpoint.

python tools/convert_checkpoint.py best_epoch.bin --out my_model
python tools/convert_checkpoint.py posemamba_s.bin --out my_model scan=v2     # published: says its scan order here
python tools/convert_checkpoint.py my_model --out best_epoch.bin
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

import torch

from lib.cli import Parser, run
from lib.errors import UserError
from lib.files import atomic_path
from lib.model.hub import WEIGHTS, write_folder
from lib.model.opening import open_model


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a checkpoint or safetensors file, or a folder of a model")
    parser.add_argument("--out", type=Path, required=True, help="a folder; of a folder: a file that ends in .bin")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="what the file does not record")
    options = parser.parse()
    back = options.source.is_dir()
    if back != (options.out.suffix == ".bin"):
        wanted = "a file that ends in .bin" if back else "a folder"
        raise UserError(f"--out: {options.out}: expected {wanted}, since {options.source} is the other")
    opened = open_model(options.source / WEIGHTS if back else options.source, overrides=options.overrides)
    parameters, config = opened.model.state_dict(), opened.model.recorded
    if back:
        write_checkpoint(options.out, parameters, config, opened.checkpoint)
    else:
        write_folder(options.out, parameters, config, opened.checkpoint.epoch)
    print(f"{options.out}: {opened.config.backbone}, {len(parameters)} tensors, after epoch {opened.checkpoint.epoch}")


def write_checkpoint(path, parameters, config, checkpoint):
    """Write parameters in the published layout, with the config that readers of this project look for."""
    content = {
        "epoch": checkpoint.epoch,
        "lr": checkpoint.lr,
        "optimizer": None,
        "model_pos": {f"module.{name}": value for name, value in parameters.items()},
        "min_loss": checkpoint.min_loss,
        "config": config,
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


if __name__ == "__main__":
    run(main)
