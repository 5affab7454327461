"""Measure a detector's errors on real footage and on rendered people, for training on random views to simulate.

python tools/measure_detector.py                                   # about 7 minutes of one core
python tools/measure_detector.py --sequences 20 --out quick        # a quick run, other folder
python tools/measure_detector.py --tracks benchmarks/detector      # only fit earlier measurements again

Writes the parameters (configs/noise/blazepose.yaml, or detector.yaml in the folder of --out), and to benchmarks/detector,
or the folder of --out: errors.png, errors as measured and as simulated with the parameters; footage.npz and
drawn.npz, all measurements.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

from lib.cli import Parser, count, progress_bar, run
from lib.data.motion_files import read_motion_files
from lib.data.synthetic.body import Body
from lib.data.synthetic.sequences import Stage
from lib.data.synthetic.simulated_detector import PARAMETERS
from lib.files import PROJECT
from lib.video.detection import DETECTORS
from lib.video.io.source import VideoSource
from tools.bench.detector.figure import compared, save_figure
from tools.bench.detector.fit import fit
from tools.bench.detector.parameters import table, write_parameters
from tools.bench.detector.tracks import drawn_tracks, footage_tracks, load_tracks, save_tracks
from tools.bench.scoring.footage import read_views

MOTION = ("cmu17_large.npz", "accad17.npz")
SAMPLE = PROJECT / "demo" / "video" / "sample_video.mp4"
FOLDER, NAMES = PROJECT / "benchmarks" / "detector", ("footage.npz", "drawn.npz")
FRAMES = 10  # of a sequence
BACKGROUND_SIDE, EVERY = 640, 50  # px; stride of the frames of a video that are backgrounds, blurred


def measure(options):
    """Return `Track`s of the footage and of rendered people."""
    films = [SAMPLE, *(view.path for view in read_views())]
    frames = [image for film in films for number, _, image in VideoSource(film, BACKGROUND_SIDE) if number % EVERY == 0]
    motion = read_motion_files([PROJECT / "data" / name for name in MOTION])
    stage = Stage(Body(), motion["joints"], motion["start"], frames)
    real = list(footage_tracks(options.detector, partial(progress_bar, doing="footage")))
    drawn = partial(progress_bar, doing="rendered people")
    return real, list(drawn_tracks(options.detector, stage, options.sequences, FRAMES, options.seed, drawn))


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", choices=DETECTORS, default="accurate", help="default: %(default)s")
    parser.add_argument("--sequences", type=count, default=300, help="of rendered people (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1000, help="of rendered people (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of all results")
    parser.add_argument("--tracks", type=Path, metavar="DIR", help="folder of earlier measurements: only fit them")
    options = parser.parse()
    folder = options.out or FOLDER
    if options.tracks:
        real, drawn = (load_tracks(options.tracks / name) for name in NAMES)
    else:
        real, drawn = measure(options)
        for name, tracks in zip(NAMES, (real, drawn)):
            save_tracks(folder / name, tracks)
    target = options.out / "detector.yaml" if options.out else PARAMETERS
    parameters = fit(real, drawn)
    what = f"{len(real)} people in views of benchmarks/footage and {len(drawn)} sequences of drawn people"
    write_parameters(target, parameters, options.detector, what)
    save_figure(folder / "errors.png", compared(real, drawn, target))
    print(*table(parameters), f"written: {target}, {folder / 'errors.png'}", sep="\n")


if __name__ == "__main__":
    run(main)
