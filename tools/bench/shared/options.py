"""Options that benchmarks share."""

from pathlib import Path

import torch

from lib.cli import count
from lib.errors import UserError
from tools.bench.shared.implementations import NAMES


def add_options(parser):
    """Add the options of benchmarks that compare implementations of the scan."""
    add_sizes(parser)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is a GPU")
    parser.add_argument(
        "--implementations", nargs="+", choices=NAMES, metavar="NAME",
        help=f"of {', '.join(NAMES)} (default: what is there; the loop takes minutes, so a model leaves it out)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results (default: below benchmarks/)")


def add_sizes(parser, batch=1, repeats=7):
    """Add the options that say how much is computed, how often, by how many threads."""
    parser.add_argument("--frames", type=count, default=243, help="of a clip (default: %(default)s)")
    parser.add_argument("--batch", type=count, default=batch, help="clips at once (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=count, default=repeats, help="of which the median counts (default: %(default)s)"
    )
    parser.add_argument("--threads", type=count, default=torch.get_num_threads(), help="CPU threads (default: all)")


def device_of(options):
    """Return the device, and set the threads.

    Raises:
        UserError: CUDA is asked for and not there.
    """
    torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no CUDA device here; use --device cpu")
    return torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def options_of(options, device):
    """Return the options as recorded in results: without the folder, with the chosen device."""
    return {key: value for key, value in vars(options).items() if key != "out"} | {"device": device.type}
