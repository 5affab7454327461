"""Export a network that lifts keypoints: to ONNX, or compiled ahead of time for programs in C++.

python tools/export_model.py demo/posemamba_wild.safetensors --out wild.onnx            # python vis.py -e wild.onnx
python tools/export_model.py demo/posemamba_wild.safetensors --out wild8.onnx --int8
python tools/export_model.py demo/posemamba_wild.safetensors --out wild.pt2             # kernels/selective_scan/cpp
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
from lib.export.aoti import write_aoti
from lib.export.onnx import write_onnx
from lib.model.onnx_file import read_onnx
from lib.model.opening import open_model

LARGEST_DIFFERENCE = 1e-4  # of poses, to the model's own


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a checkpoint or safetensors file")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ends in .onnx, or in .pt2: compiled")
    parser.add_argument("--int8", action="store_true", help="weights of 8 bits (.onnx)")
    parser.add_argument("--config", metavar="FILE", help="YAML config, where the file holds none")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="what the file does not record, as scan=v2")
    options = parser.parse()
    if options.out.suffix not in (".onnx", ".pt2"):
        raise UserError(f"--out: {options.out}: expected a name that ends in .onnx or .pt2")
    if options.int8 and options.out.suffix != ".onnx":
        raise UserError("--int8: is for .onnx files")
    opened = open_model(options.source, options.config, options.overrides)
    if options.out.suffix == ".onnx":
        write_onnx(options.out, opened, options.int8)
    else:
        print("compiling takes a minute or two", flush=True)
        write_aoti(options.out, opened)
    difference = difference_of(opened, open_exported(options.out))
    if not options.int8 and not difference <= LARGEST_DIFFERENCE:
        raise UserError(f"{options.out}: its poses differ by {difference:.1e} from the model's; do not use it")
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {opened.config.backbone}, {size:.1f} MB, poses differ by at most {difference:.1e}")


def open_exported(path):
    """Return the exported network of a file, called as the model is."""
    return read_onnx(path).network if path.suffix == ".onnx" else torch._inductor.aoti_load_package(str(path))


@torch.no_grad()
def difference_of(opened, exported):
    """Return the largest difference of an exported model's poses, for clips of several lengths of random keypoints."""
    config = opened.config
    fixed = getattr(opened.model, "frames", 0)
    generator = torch.Generator().manual_seed(0)
    found = 0.0
    for batch, frames in ((1, config.maxlen), (2, fixed or 1), (3, fixed or max(1, config.maxlen // 2))):
        x = torch.randn(batch, frames, config.num_joints, config.in_chans, generator=generator)
        difference = (exported(x) - opened.model(x)).abs().max().item()
        found = max(found, difference)
    return found


if __name__ == "__main__":
    run(main)
