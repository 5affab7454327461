"""Measure lifting of a video: time of the whole command and of its stages, and memory in a long video.

python tools/bench/video.py                     # the shipped video
python tools/bench/video.py --minutes 30        # memory in that video, repeated for half an hour
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

import argparse
import subprocess
import tempfile
import time
from fractions import Fraction
from functools import partial
from statistics import median

import av
import numpy as np
import torch

from lib.cli import Parser, progress_bar, run
from lib.files import PROJECT
from lib.memory import reuse_freed_memory
from lib.video.detection import open_detector
from lib.video.detection.mambapose import MODEL
from lib.video.io.source import VideoSource
from lib.video.io.writer import VideoWriter
from lib.video.pipeline import Options, detect, lift
from lib.video.show.render import Renderer
from tools.bench import shared as benchmark

SAMPLE = PROJECT / "demo" / "video" / "sample_video.mp4"
DETECTORS = "accurate", "fast", *(["mambapose"] if MODEL.is_file() else [])
REPEATS = 3
EVERY = 1.0  # s between readings of memory


def whole(folder, detector):
    """Return the seconds of the command, from its start to its end."""
    start = time.perf_counter()
    command = [sys.executable, PROJECT / "vis.py", "--video", SAMPLE, "--detector", detector, "-o", folder / detector]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def finding(frames, name):
    """Return the seconds that a detector takes for all frames."""
    return detecting(frames, name)[0]


def detecting(frames, name):
    """Return the seconds of one detector, and the number of its detections in all frames."""
    with open_detector(name) as detector:
        start = time.perf_counter()
        seen = sum(len(detector.detect(frame, seconds, number)) for number, seconds, frame in frames)
        return time.perf_counter() - start, seen


def lifting(source, folder):
    """Return the seconds from detections to poses of all people, loading of the network included."""
    start = time.perf_counter()
    lift(source, folder, Options())
    return time.perf_counter() - start


def drawing(frames, poses):
    renderer = Renderer(poses)
    start = time.perf_counter()
    for number, _, frame in frames:
        renderer.render(number, frame)
    return time.perf_counter() - start


def encoding(frames, poses, folder):
    """Return the seconds of rendering and writing the video."""
    renderer = Renderer(poses)
    start = time.perf_counter()
    with VideoWriter(folder / "film.mp4", *renderer.size, poses.fps) as film:
        for number, seconds, frame in frames:
            film.write(renderer.render(number, frame), seconds)
    return time.perf_counter() - start


def stages(folder):
    """Return frames per second of each stage, measured in turn, so that other load of the machine affects all alike."""
    source = VideoSource(SAMPLE)
    frames = list(source)
    detect(source, folder / "lifted" / "detections", Options(), lambda items, *_, **__: items).close()
    poses = lift(source, folder / "lifted", Options())
    calls: dict = {
        **{f"finding_people_{name}": partial(finding, frames, name) for name in DETECTORS},
        "lifting": lambda: lifting(source, folder / "lifted"),
        "rendering": lambda: drawing(frames, poses),
        "rendering_and_encoding": lambda: encoding(frames, poses, folder),
    }
    seconds = {name: [] for name in calls}
    for _ in benchmark.progress(range(REPEATS), "stages"):
        for name, call in calls.items():
            seconds[name].append(call())
    return {
        "frames": len(frames),
        "person_frames": {name: detecting(frames, name)[1] for name in DETECTORS},
        "seconds": seconds,
        "frames_per_second": {name: len(frames) / median(values) for name, values in seconds.items()},
    }


def long_video(path, minutes):
    """Write a video of the sample, played forwards and backwards repeatedly."""
    frames = [frame for _, _, frame in VideoSource(SAMPLE)]
    order = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    with VideoWriter(path, 640, 360, 30) as writer:
        for number in progress_bar(range(round(minutes * 60 * 30)), "making a long video", unit="frame"):
            writer.write(frames[order[number % len(order)]], number / 30)


def memory(folder, minutes, detector):
    """Return the anonymous memory (RssAnon) of vis.py, MB: peaks in each tenth of detecting people and of rendering."""
    film = folder / "long.mp4"
    long_video(film, minutes)
    command = [sys.executable, PROJECT / "vis.py", "--video", film, "--detector", detector, "-o", folder / "long"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    drawn, found = [], []
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text().split("RssAnon:")
        if len(status) == 2:
            stage = drawn if (folder / "long" / "report.json").exists() else found
            stage.append(int(status[1].split()[0]) / 1e3)
        time.sleep(EVERY)
    if process.returncode:
        raise RuntimeError(f"vis.py failed on {film}")
    with av.open(str(folder / "long" / "poses.mp4")) as made:
        seconds = made.duration * Fraction(1, av.time_base)
    tenths = {
        name: [max(part) for part in np.array_split(values, 10) if len(part)]
        for name, values in (("finding", found), ("drawing", drawn))
    }
    return {
        "detector": detector,
        "minutes": float(seconds / 60),
        "peak_mb_by_tenths": tenths,
        "run_seconds": (len(found) + len(drawn)) * EVERY,
    }


def measure_speed(folder):
    """Return a table of the command and its stages, and its values."""
    found = {"whole_seconds": {name: whole(folder, name) for name in DETECTORS}, **stages(folder)}
    lines = [f"{SAMPLE.name}: {found['frames']} frames"]
    for name, seconds in found["whole_seconds"].items():
        lines.append(f"{f'vis.py --detector {name}':<28}{seconds:>10.1f} s")
        lines.append(f"{f'people seen by {name}':<28}{found['person_frames'][name]:>10} times")
    for name, rate in found["frames_per_second"].items():
        lines.append(f"{name.replace('_', ' '):<28}{rate:>10.0f} frames/s")
    return lines, found


def measure_memory(folder, minutes, detector):
    """Return a table of the memory in a video of `minutes`, and its values."""
    found = memory(folder, minutes, detector)
    rate = f"{found['minutes']:.1f} minutes of video in {found['run_seconds'] / 60:.1f} minutes"
    lines = [f"{detector}: {rate}; peaks by tenths, MB"]
    for stage, peaks in found["peak_mb_by_tenths"].items():
        lines.append(f"{stage:<10}{''.join(f'{peak:>6.0f}' for peak in peaks)}")
    return lines, found


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="measure memory instead, in a video of this length")
    parser.add_argument(
        "--detector", choices=DETECTORS, default=DETECTORS[0], help="of --minutes; default: %(default)s"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/cpu"), help="default: %(default)s")
    options = parser.parse()
    reuse_freed_memory()
    machine = benchmark.machine(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if options.minutes:
            lines, found = measure_memory(folder, options.minutes, options.detector)
        else:
            lines, found = measure_speed(folder)
    path = options.out / ("video_memory.json" if options.minutes else "video.json")
    benchmark.write_json(path, {"machine": machine, **found})
    print(f"{machine['cpu']}, {machine['cores']} cores", *lines, f"written: {path}", sep="\n")


if __name__ == "__main__":
    run(main)
