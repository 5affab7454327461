"""3D poses of the people in a video: a film, a page to turn around in, and data.

python vis.py --video sample_video.mp4      # looked up in demo/video; results in demo/output/sample_video
python vis.py --video my.mp4 -o results --detector rtmpose
"""

import argparse

from lib.cli import Parser, positive_number, run
from lib.errors import needing
from lib.video.detection import DETECTORS


def main(arguments=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--video", metavar="FILE", default="sample_video.mp4", help="a path, a name in demo/video, or a camera: 0"
    )
    parser.add_argument("-o", "--out_path", metavar="DIR", help="default: demo/output/NAME")
    parser.add_argument("-e", "--evaluate", metavar="FILE", help="checkpoint (default: the one that ships)")
    parser.add_argument("--config", metavar="FILE", help="its YAML config, where it holds none")
    parser.add_argument("--gpu", metavar="N", help="number of the GPU (default: the first, else the CPU)")
    parser.add_argument("--clip_len", type=int, metavar="N", help="frames of a window (default: the config's)")
    parser.add_argument("--pixel", action="store_true", help="keypoints keep their place in the image")
    parser.add_argument("--focus", type=int, metavar="ID", help="keep only this person")
    parser.add_argument("--detector", choices=DETECTORS, default="accurate", help="default: %(default)s")
    parser.add_argument("--det-model", metavar="FILE", help="the detector's model that finds people")
    parser.add_argument("--pose-model", metavar="FILE", help="the detector's model that finds joints")
    parser.add_argument("--flow", action="store_true", help="the detector mambapose sees optical flow too")
    parser.add_argument(
        "--depth", metavar="DIR", help="it sees depth too, by the weights of Depth Anything V2 Small there"
    )
    parser.add_argument(
        "--mambapose", metavar="FILE", nargs="?", const="",
        help="3D poses by a MambaPose of head 3d, straight from the images (default: the shipped one)",
    )  # fmt: skip
    parser.add_argument("--keypoints", metavar="FILE", help="detections made elsewhere, in place of a detector")
    parser.add_argument("--keypoints-first", type=int, default=0, metavar="N", help="the number of their first frame")
    parser.add_argument(
        "--max-gap", type=float, default=0.5, metavar="S", help="longest gap to bridge (default: 0.5 s)"
    )
    parser.add_argument(
        "--smooth", type=float, metavar="HZ", help="low-pass filter, 6 say; 0: none (default: by confidence)"
    )
    parser.add_argument(
        "--height", type=float, metavar="CM", help="body height of the first person, or of --focus: true sizes"
    )
    parser.add_argument(
        "--turn", type=int, choices=(0, 90, 180, 270), default=0, help="turn a video that lies on its side, clockwise"
    )
    parser.add_argument("--focal", type=positive_number, metavar="PX", help="focal length (default: of 54 degrees)")
    parser.add_argument("--audio", action="store_true", help="keep the video's sound")
    options = parser.parse(arguments)
    with needing("vis.py", "requirements-video.txt"):  # after parsing: --help need not load PyTorch
        from lib.video.demo import lift_to_folder
    lift_to_folder(options)


if __name__ == "__main__":
    run(main, when_memory_ends="lower --clip_len, or cut the video")
