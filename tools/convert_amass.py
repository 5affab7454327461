"""Convert AMASS motion (SMPL-H .npz files) to the project's 17 joints and its format on disk.

python tools/convert_amass.py data/AMASS --body-models data/body_models --regressor J_regressor_h36m_correct.npy
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.body.skeleton import JOINTS
from lib.cli import Parser, progress_bar, run
from lib.data.convert.amass import convert
from lib.data.convert.options import add_motion_options, report


def main(arguments=None):
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("root", help="folder with AMASS's SMPL+H .npz files, at any depth")
    parser.add_argument("--body-models", metavar="DIR", required=True, help="folder with {male,female}/model.npz")
    add_motion_options(parser, "data/motion3d/amass.store", "files")
    joints = parser.add_mutually_exclusive_group()
    joints.add_argument(
        "--regressor",
        metavar="FILE",
        help=".npy (17, 6890): Human3.6M's joints from the mesh (default: the skeleton's); rows sum to 1 and are "
        f"{', '.join(JOINTS)}",
    )
    joints.add_argument("--skeleton", metavar="FILE", help="default: configs/skeletons/smplh.yaml")
    options = parser.parse(arguments)
    done = convert(
        options.root,
        options.body_models,
        options.out,
        options.fps,
        options.regressor,
        options.skeleton,
        options.skip_bad,
        progress=progress_bar,
    )
    report(done, options)


if __name__ == "__main__":
    run(main)
