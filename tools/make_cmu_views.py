"""Write the training sample: CMU motion capture seen by synthetic cameras, in Human3.6M's layout.

python tools/make_cmu_views.py            # writes data/motion3d/cmu17_virtual_cam_source.pkl once
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

from lib.cli import Parser, progress_bar, run
from lib.data.convert.cmu_views import VIEWS_FILE, make_views
from lib.errors import UserError


def main(arguments=None):
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--motion", default="data/cmu17_large.npz", help="motion capture (default: %(default)s)")
    parser.add_argument("--out", default=f"data/motion3d/{VIEWS_FILE}", help="default: %(default)s")
    parser.add_argument(
        "--train-views", type=int, default=3, help="views of a segment of a training clip (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of cameras and detection errors (default: 0)")
    options = parser.parse(arguments)
    if options.train_views < 1 or options.seed < 0:
        raise UserError("--train-views: at least 1; --seed: at least 0")
    made = make_views(
        options.motion,
        options.out,
        options.train_views,
        options.seed,
        progress=partial(progress_bar, doing="synthetic cameras", unit="clip"),
    )
    print(f"{options.out}: {'written' if made else 'is up to date'}")


if __name__ == "__main__":
    run(main, when_memory_ends="lower --train-views")
