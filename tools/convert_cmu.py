"""Converts motion capture files (CMU's ASF/AMC, or BVH) to the project's 17 joints and its format on disk.

python tools/convert_cmu.py allasfamc --out data/motion3d/cmu.store
"""

import sys
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.cli import Parser, positive_number, run
from lib.data.mocap.convert import convert


def main(arguments=None):
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("root", help="folder with .asf and .amc files, or .bvh files, at any depth")
    parser.add_argument("--out", default="data/motion3d/cmu.store", help="default: %(default)s")
    parser.add_argument(
        "--fps", type=positive_number, default=60.0, help="frames per second of the result (default: 60)"
    )
    parser.add_argument("--skeleton", help="which points the 17 joints are (default: configs/skeletons/cmu_*.yaml)")
    parser.add_argument("--actions", help="CSV file: clip name, action")
    parser.add_argument("--test", help="file with the names of the clips for part test, one a line")
    parser.add_argument("--skip-bad", action="store_true", help="leave out clips that cannot be read")
    options = parser.parse(arguments)
    done = convert(
        options.root,
        options.out,
        options.fps,
        options.skeleton,
        options.actions,
        options.test,
        options.skip_bad,
        progress=lambda items, what: tqdm(items, desc=what, disable=None),
    )
    for problem in done.skipped:
        print(f"skipped {problem}", file=sys.stderr)
    print(done.summary(options.out, options.fps))


if __name__ == "__main__":
    run(main)
