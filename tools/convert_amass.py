"""Converts AMASS motion (SMPL-H .npz files) to the project's 17 joints and its format on disk.

python tools/convert_amass.py data/AMASS --body-models data/body_models --regressor J_regressor_h36m_correct.npy
"""

import sys
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.cli import Parser, positive_number, run
from lib.data.amass import convert


def main(arguments=None):
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("root", help="folder with AMASS's SMPL+H .npz files, at any depth")
    parser.add_argument("--body-models", metavar="DIR", required=True, help="folder with {male,female}/model.npz")
    parser.add_argument("--out", default="data/motion3d/amass.store", help="default: %(default)s")
    parser.add_argument(
        "--fps", type=positive_number, default=60.0, help="frames per second of the result (default: 60)"
    )
    joints = parser.add_mutually_exclusive_group()
    joints.add_argument(
        "--regressor",
        metavar="FILE",
        help=".npy (17, 6890): Human3.6M's joints from the mesh (default: the skeleton's)",
    )
    joints.add_argument("--skeleton", metavar="FILE", help="default: configs/skeletons/smplh.yaml")
    parser.add_argument("--skip-bad", action="store_true", help="leave out files that cannot be read")
    options = parser.parse(arguments)
    done = convert(
        options.root,
        options.body_models,
        options.out,
        options.fps,
        options.regressor,
        options.skeleton,
        options.skip_bad,
        progress=lambda items, what: tqdm(items, desc=what, disable=None),
    )
    for problem in done.skipped:
        print(f"skipped {problem}", file=sys.stderr)
    print(done.summary(options.out, options.fps))


if __name__ == "__main__":
    run(main)
