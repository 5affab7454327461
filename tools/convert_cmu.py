"""Convert motion capture files (CMU's ASF/AMC, or BVH) to the project's 17 joints and its format on disk.

python tools/convert_cmu.py allasfamc --out data/motion3d/cmu.store
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.cli import Parser, progress_bar, run
from lib.data.convert.mocap.convert import convert
from lib.data.convert.options import add_motion_options, report


def main(arguments=None):
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("root", help="folder with .asf and .amc files, or .bvh files, at any depth")
    add_motion_options(parser, "data/motion3d/cmu.store", "clips")
    parser.add_argument(
        "--skeleton", help="table of the points that are the 17 joints (default: configs/skeletons/cmu_*.yaml)"
    )
    parser.add_argument("--actions", help="CSV file: clip name, action")
    parser.add_argument("--test", help="file with the names of the clips of the split test, one per line")
    options = parser.parse(arguments)
    done = convert(
        options.root,
        options.out,
        options.fps,
        options.skeleton,
        options.actions,
        options.test,
        options.skip_bad,
        progress=progress_bar,
    )
    report(done, options)


if __name__ == "__main__":
    run(main)
