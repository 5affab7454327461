"""Render people with exact labels: images, flow, depth, segmentation, keypoints and poses, to train image models on.

python tools/render_people.py                                        # 20,000 crops to train on, 2,000 to test on
python tools/render_people.py --out quick --crops 500 --test-crops 100 --look quick.png

The people move as in data/cmu17_large.npz and data/accad17.npz. The result is a folder of memory-mapped arrays
(data/README.md), the same for a seed whatever the number of processes. An interrupted rendering is continued by the same
command.
"""

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

from lib.cli import Parser, count, progress_bar, run, whole
from lib.errors import needing
from lib.files import PROJECT
from lib.system import usable_cores

OUT = PROJECT / "data" / "rendered" / "people.store"
SMALLEST, LARGEST = 32, 1024  # px


def size(text):
    """The type of --size: (width, height)."""
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and SMALLEST <= int(side) <= LARGEST for side in sides):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 96x128, sides of {SMALLEST} to {LARGEST} px")
    return tuple(map(int, sides))


@contextmanager
def progress(split, crops, there):
    """A bar with the time that is left; it says where an interrupted rendering goes on."""
    if there:
        print(f"{split}: {there} of {crops} crops are there, going on", file=sys.stderr)
    with progress_bar(None, doing=split, unit="crop", total=crops, initial=there) as bar:
        yield bar


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--crops", type=count, default=20000, metavar="N", help="to train on (default: %(default)s)")
    parser.add_argument("--test-crops", type=count, default=2000, metavar="N", help="default: %(default)s")
    parser.add_argument("--size", type=size, default=(96, 128), metavar="WxH", help="px (default: 96x128)")
    parser.add_argument("--seed", type=whole, default=0, help="default: %(default)s")
    parser.add_argument(
        "--workers", type=count, default=min(2, usable_cores()), help="processes (default: %(default)s)"
    )
    parser.add_argument("--look", type=Path, metavar="FILE", help="image to draw of some test crops and their labels")
    options = parser.parse()
    with needing("rendering people", "requirements-video.txt"):
        from lib.data.synthetic.rendered_set import render_set
        from lib.data.synthetic.sheet import draw_sheet
    crops = {"train": options.crops, "test": options.test_crops}
    try:
        made = render_set(options.out, crops, options.size, options.seed, options.workers, progress)
    except KeyboardInterrupt:
        print(f"{options.out}: not complete; the same command goes on", file=sys.stderr)
        raise
    print(f"{options.out}: {'written' if made else 'is up to date'}")
    if options.look:
        draw_sheet(options.out, options.look)
        print(f"{options.look}: written")


if __name__ == "__main__":
    run(main, when_memory_ends="lower --workers")
