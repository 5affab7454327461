"""Write a checkpoint's parameters and config as one safetensors file, such as the network that ships for vis.py.

python tools/export_weights.py checkpoint/wild/best_epoch.bin
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

from lib.cli import Parser, run
from lib.errors import UserError
from lib.export.safetensors import write_weights
from lib.files import PROJECT
from lib.model.weights import SUFFIX, read_checkpoint


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="in the published layout, such as train.py writes")
    parser.add_argument("--out", default=PROJECT / "demo" / "posemamba_wild.safetensors", help="default: %(default)s")
    options = parser.parse()
    if Path(options.out).suffix != SUFFIX:
        raise UserError(f"--out: {options.out}: expected a name that ends in {SUFFIX}")
    checkpoint = read_checkpoint(options.checkpoint)
    if not checkpoint.config:
        raise UserError(f"{options.checkpoint}: holds no config; export a checkpoint of this project's train.py")
    write_weights(options.out, checkpoint)
    print(f"{options.out}: {Path(options.out).stat().st_size / 1e6:.1f} MB, after epoch {checkpoint.epoch}")


if __name__ == "__main__":
    run(main)
