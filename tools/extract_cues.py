"""Make the cues of a video's frames, optical flow and depth, and keep them; also a film and pictures of them.

python tools/extract_cues.py --video demo/video/sample_video.mp4                  # flow by OpenCV, no weights needed
python tools/extract_cues.py --video V.mp4 --flow raft_large --depth depth_anything_v2_small --weights DIR

Writes to the folder of --out: flow.npy, depth.npy and index.json (lib/model/cues/store.py), cues.mp4 and
frame_NNNNNN.png. Stopped at any moment, the same command goes on. Weights are fetched once, or taken from --weights.
"""

import argparse
import logging
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

from lib.cli import Parser, count, progress_bar, run
from lib.errors import UserError, needing
from lib.files import only_one, require_file
from lib.model.cues.registry import CUES, DEPTH, FLOW, REQUIREMENTS, open_estimator
from lib.model.cues.store import SUFFIX, check_target, identify, open_cues, state_of
from lib.model.device import choose_device

NONE = "none"
OUTPUT = Path("demo/output")
MAX_SIDE = 512  # px, of the maps' longer side
HALF = (".cues.mp4.*.tmp", ".frame_*.png.*.tmp", ".index.json.*.tmp", ".*.unfinished.json.*.tmp")  # of a killed run


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", metavar="FILE", required=True)
    parser.add_argument("--flow", metavar="NAME", default="dis", help=f"{names(FLOW)} (default: %(default)s)")
    parser.add_argument("--depth", metavar="NAME", default=NONE, help=f"{names(DEPTH)} (default: %(default)s)")
    parser.add_argument("--weights", metavar="PATH", help="a network's weights: file or folder, or folder with both's")
    parser.add_argument("--out", metavar="DIR", type=Path, help=f"default: {OUTPUT}/NAME{SUFFIX}")
    parser.add_argument("--batch", metavar="N", type=count, default=4, help="frames at once (default: %(default)s)")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 (default: cuda if it is there)")
    options = parser.parse()
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("lib").setLevel(logging.INFO)
    make(options, require_file(options.video), opened(options))


def names(registry):
    return ", ".join([*registry, NONE])


def opened(options):
    """Return the `Estimator`s of the options."""
    chosen = {cue: name for cue in CUES if (name := getattr(options, cue)) != NONE}
    if not chosen:
        raise UserError("--flow none --depth none: leaves nothing to make; name an estimator of one of them")
    how = {"weights": options.weights, "batch": options.batch, "device": choose_device(options.device)}
    estimators = [open_estimator(cue, name, **how) for cue, name in chosen.items()]
    if options.weights and not any(estimator.takes_weights for estimator in estimators):
        raise UserError(f"--weights: {' and '.join(chosen.values())} takes none; name a network with --flow or --depth")
    return estimators


def make(options, video, estimators):
    """Make the cues of a video and what shows them, in a folder that no other process writes meanwhile."""
    with needing("tools/extract_cues.py", REQUIREMENTS):
        from lib.video.export.cues import FILM
        from lib.video.io.source import VideoSource
    folder = options.out or OUTPUT / f"{video.stem}{SUFFIX}"
    if video.resolve() == (folder / FILM).resolve():
        raise UserError(f"{video}: the film of the cues would take its place; give another folder with --out")
    whole, source = VideoSource(video), VideoSource(video, MAX_SIDE)
    if options.depth == NONE:
        print("depth: off, it takes a network's weights: --depth depth_anything_v2_small, with --weights DIR or online")
    with only_one(folder / "cues", named=folder):
        for half in chain.from_iterable(map(folder.glob, HALF)):
            half.unlink()
        try:
            write(folder, video, estimators, source, (whole.width, whole.height))
        except KeyboardInterrupt:
            print(f"stopped: {folder} keeps what is done; the same command goes on")
            raise
    if source.damaged:
        print(f"{source.name}: {source.damaged}; the cues are of what could be read")


def write(folder, video, estimators, source, frame):
    """Write the cues that are not there yet, a film and pictures.

    Args:
        source: `VideoSource` of the images that are worked on.
        frame: (width, height) px of the video's own.
    """
    from lib.model.cues.extract import extract
    from lib.video.export.cues import write_cue_videos

    identity = identify(video)
    check_target(folder, identity)
    for estimator in estimators:
        reason = state_of(folder, estimator.cue, estimator.settings())
        if reason is None:
            print(f"{estimator.cue}: is up to date")
            continue
        if reason:
            print(f"{estimator.cue}: {reason}; it is made anew")
        extract(folder, identity, estimator, source, frame, progress_bar)
    cues = open_cues(folder)
    shown = {estimator.cue: cues.arrays[estimator.cue] for estimator in estimators}
    film, *pictures = write_cue_videos(replace(cues, arrays=shown), source, folder, progress_bar)
    for cue, array in shown.items():
        size = f"{array.shape[-1]} x {array.shape[-2]}"
        print(f"{array.path}: {cue} of {len(array)} frames, {size}, by {cues.estimators[cue]['name']}")
    print(f"{film} and {len(pictures)} pictures beside it")


if __name__ == "__main__":
    run(main, when_memory_ends="lower --batch, or cut the video")
