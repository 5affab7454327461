"""Measure the accuracy and speed of a lifting network on held-back subjects, from perfect and noisy keypoints.

The subjects are those that the network's config holds back (`held_back`); fixed synthetic cameras see them, 30 frames a
second. Writes the figures to a JSON file and prints a table.

python tools/bench/lifter.py
python tools/bench/lifter.py --weights checkpoint/wild/latest_epoch.bin
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

import numpy as np
import torch

from lib.cli import Parser, progress_bar, run
from lib.config import load_config
from lib.errors import UserError
from lib.files import PROJECT
from lib.model.weights import read_weights
from lib.video import lift_keypoints
from lib.video.pipeline import WEIGHTS
from tools.bench.scoring.held_back import RATE, clips, errors
from tools.bench.shared.report import machine, table, write_json

KINDS = ("perfect", "noisy")


def main(arguments=None):
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS, metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--subjects", nargs="+", metavar="NAME", help="default: those that the network's config holds back"
    )
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="every Nth clip only (default: 1)")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks" / "cpu" / "lifter.json", metavar="FILE")
    options = parser.parse(arguments)
    checkpoint = read_weights(options.weights)
    config = load_config(base=checkpoint.config, base_origin=checkpoint.path)
    subjects = options.subjects or config.held_back
    if options.stride < 1 or not subjects:
        raise UserError("--stride: at least 1" if subjects else f"{options.weights}: holds nobody back; set --subjects")
    found = clips([PROJECT / "data" / name for name in config.motion_files], subjects)[:: options.stride]
    if not found:
        raise UserError(f"--subjects: no clip of {', '.join(subjects)} in {', '.join(config.motion_files)}")
    results, seconds = {}, 0.0
    for clip in progress_bar(found, "lifting", unit="clip"):
        for kind in KINDS:
            begin = time.perf_counter()
            poses = lift_keypoints(clip.keypoints[kind], clip.size, RATE, clip.focal, options.weights)
            seconds += time.perf_counter() - begin
            results.setdefault((clip.subject, kind), []).append(errors(clip, poses))
    result = _figures(results)
    frames = sum(len(clip.truth) for clip in found)
    result |= {
        "weights": options.weights.name,
        "clips": len(found),
        "frames": frames,
        "frames_per_second": round(len(KINDS) * frames / seconds, 1),
        "machine": machine(torch.device("cpu")),
    }
    write_json(options.out, result)
    rows = [[name, *(f"{of[kind]:.1f}" for kind in KINDS)] for name, of in result["p_mpjpe_mm"].items()]
    print("\n".join(table(["P-MPJPE, mm", *KINDS], rows)))
    print(f"{result['frames_per_second']} frames a second; {options.out}")


def _figures(results):
    """Return {"p_mpjpe_mm": {subject or "all": {kind: mean over frames}}} of {(subject, kind): [errors (F,)]}."""
    means = {}
    for (subject, kind), parts in sorted(results.items()):
        means.setdefault(subject, {})[kind] = parts
        means.setdefault("all", {}).setdefault(kind, []).extend(parts)
    means["all"] = means.pop("all")  # last
    return {
        "p_mpjpe_mm": {
            name: {kind: round(float(np.concatenate(parts).mean()), 2) for kind, parts in of.items()}
            for name, of in means.items()
        }
    }


if __name__ == "__main__":
    run(main, when_memory_ends="raise --stride")
