"""Measure poses of real people against ground truth: four views of two people, lifted from video as by `vis.py`.

python tools/bench/footage.py                                    # the default detector
python tools/bench/footage.py --detectors mediapipe rtmpose --world-landmarks
python tools/bench/footage.py --detectors accurate mambapose --mambapose FILE
python tools/bench/footage.py --frames 60 --stride 4             # quickly
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

import argparse
import tempfile
from functools import partial
from importlib.metadata import distributions

import torch

from lib.cli import Parser, count, progress_bar, run
from lib.errors import needing
from lib.memory import reuse_freed_memory
from lib.video.detection import DETECTORS
from lib.video.detection.mambapose import MODEL
from lib.video.pipeline import WEIGHTS, NobodySeen, Options, lift, options_of
from tools.bench import shared as benchmark
from tools.bench.scoring import footage, footage_scores, world_landmarks
from tools.bench.scoring.matching import estimate_of, nobody
from tools.bench.scoring.overlay import write_overlay

PACKAGES = ("numpy", "scipy", "av", "opencv-contrib-python", "opencv-python", "onnxruntime", "mediapipe", "trackers")
COLUMNS = {  # of the table: heading, factor, format
    "found": ("found %", 100, ".0f"),
    "found_well": ("well %", 100, ".0f"),
    "pck5": ("PCK5 %", 100, ".1f"),
    "error_px": ("px", 1, ".1f"),
    "median_px": ("median", 1, ".1f"),
    "p_mpjpe": ("P-MPJPE", 1, ".1f"),
    "p_mpjpe_found": ("if found", 1, ".1f"),
    "mpjpe_scaled": ("MPJPE", 1, ".1f"),
    "acceleration_error": ("m/s2", 1, ".1f"),
    "lag_2d": ("lag 2D", 1, ".1f"),
    "lag_3d": ("lag 3D", 1, ".1f"),
    "feet_off": ("feet cm", 100, ".0f"),
    "up_error": ("up deg", 1, ".1f"),
    "false": ("false", 1, ".2f"),
    "duplicates": ("double", 1, ".2f"),
}


def lifted(options, source, _):
    """Return the `Estimate` of the pipeline."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return estimate_of(lift(source, folder, options, partial(progress_bar, leave=False)), source.scale)
        except NobodySeen as error:
            print(f"{options.detector}: {error}")
            return nobody()


def methods(options):
    """Return {name: function of a source and of what came before in that view, {name: `Estimate`}}."""
    own = {"detector": "mambapose", "detector_options": {"pose_model": options.mambapose, "flow": options.flow}}
    lifting = {
        name: (own if name == "mambapose" else {"detector": name}) | {"weights": options.evaluate}
        for name in options.detectors
    }
    if options.mambapose_3d:
        lifting["mambapose 3d"] = own | {"lifter": "mambapose"}
    chosen = {name: partial(lifted, options_of(keys)) for name, keys in lifting.items()}
    if options.world_landmarks:
        first = options.detectors[0]
        chosen["MediaPipe world"] = lambda source, _: world_landmarks.mediapipe_landmarks(source)
        chosen[f"heavy world, {first}"] = lambda source, before: world_landmarks.heavy_landmarks(source, before[first])
    return chosen


def measure(views, source_of, methods):
    """Return {view: {method: `Estimate`}}."""
    found = {view.name: {} for view in views}
    jobs = [(view, name) for name in methods for view in views]
    for view, name in progress_bar(jobs, "footage", unit="view"):
        found[view.name][name] = methods[name](source_of(view), found[view.name])
    return found


def tables(scores):
    """Return lines: of each method its mean, then a line a view and person."""
    rows = []
    for name, result in scores.items():
        rows.append([name, *cells(result["mean"])])
        for view, of_view in result["views"].items():
            shared = {key: value for key, value in of_view.items() if key != "people"}
            rows += [
                [f"  {view} person {number}", *cells(person | (shared if number == 0 else {}))]
                for number, person in enumerate(of_view["people"])
            ]
    return benchmark.table(["", *(heading for heading, _, _ in COLUMNS.values())], rows)


def cells(figures):
    known = ((figures.get(key), scale, form) for key, (_, scale, form) in COLUMNS.items())
    return ["-" if value is None else format(value * scale, form) for value, scale, form in known]


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [Options().detector]
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=default, help="default: %(default)s")
    parser.add_argument("--mambapose", metavar="FILE", default=MODEL, help="its model (default: %(default)s)")
    parser.add_argument("--mambapose-3d", action="store_true", help="also that model's own joints in space")
    parser.add_argument("--flow", action="store_true", help="it sees optical flow too")
    parser.add_argument("--world-landmarks", action="store_true", help="also MediaPipe's own 3D, and BlazePose heavy's")
    parser.add_argument("-e", "--evaluate", metavar="FILE", default=WEIGHTS, help="checkpoint (default: %(default)s)")
    parser.add_argument("--frames", type=count, metavar="N", help="of each film (default: all)")
    parser.add_argument("--stride", type=count, default=1, metavar="N", help="every Nth of them (default: 1)")
    parser.add_argument("--folder", type=Path, default=footage.FOLDER, help="films and truth (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/cpu"), help="default: %(default)s")
    options = parser.parse()
    reuse_freed_memory()
    views = footage.read_views(options.folder, options.frames, options.stride)
    source_of = lambda view: footage.Excerpt(view.path, options.frames, options.stride)  # noqa: E731
    with needing("--world-landmarks", "requirements-detectors.txt"):
        found = measure(views, source_of, methods(options))
    scores = {}
    for name in found[views[0].name]:
        of_views = {view.name: footage_scores.score_view(found[view.name][name], view) for view in views}
        scores[name] = {"mean": footage_scores.mean(of_views), "views": of_views}
        if name in options.detectors:
            write_overlay(options.out / f"footage_{name}.png", views, [found[v.name][name] for v in views], source_of)
    installed = {found.name: found.version for found in distributions()}
    results = {
        "machine": benchmark.machine(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "versions": {name: installed[name] for name in PACKAGES if name in installed},
        "weights": Path(options.evaluate).name,
        "frames": len(views[0].heights[0]),
        "fps": views[0].fps,
        "definitions": footage_scores.DEFINITIONS,
        "results": scores,
    }
    benchmark.write_json(options.out / "footage.json", results)
    print(*tables(scores), f"written: {options.out / 'footage.json'}, footage_*.png", sep="\n")


if __name__ == "__main__":
    run(main, when_memory_ends="lower --frames")
