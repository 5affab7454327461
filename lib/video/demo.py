"""What `vis.py` does: from its options to a folder of results."""

import glob
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lib.cli import progress_bar
from lib.errors import UserError, nearest
from lib.files import PROJECT, cannot_write, only_one, require_file, require_folder
from lib.video.detection import options_of_detector
from lib.video.export.results import is_result, write_data, write_pictures
from lib.video.io.source import VideoSource
from lib.video.io.writer import VideoWriter
from lib.video.pipeline import MOST_PIXELS, lift, options_of

VIDEOS = PROJECT / "demo" / "video"
OUTPUT = Path("demo/output")
_WORKING = ".posemamba"  # in the folder of results, until they are there
_SAME = (
    "config", "clip_len", "pixel", "detector", "keypoints", "keypoints_first", "focus", "max_gap", "smooth", "height",
    "turn", "focal",
)  # fmt: skip


def lift_to_folder(options):
    """Lifts the video of `options` (see `vis.py`) and writes all results.

    Raises:
        UserError: an option or the video is bad, nobody is seen, or results cannot be written.
    """
    chosen = _lifting(options)
    camera = options.video.isdecimal() and not Path(options.video).exists()
    source = VideoSource(int(options.video) if camera else _find(options.video), MOST_PIXELS, chosen.turn)
    name = Path(source.name).stem.replace(" ", "_").strip(".") or "video"
    folder = Path(options.out_path or OUTPUT / name).resolve()
    if not camera and is_result(source.path, folder):
        raise UserError(f"{source.path}: the film of the results would take its place; choose another folder with -o")
    with _results_folder(folder):
        if camera:
            source = _recorded(source, folder / "recording.mp4", chosen.turn)
        working = folder / _WORKING
        try:
            poses = lift(source, working, chosen, progress_bar)
            qualities = write_data(poses, source, folder, chosen.smooth)
            write_pictures(poses, source, folder, working, options.audio, progress_bar)
        except KeyboardInterrupt:
            again = f"python vis.py --video {source.path} -o {folder}" if camera else "the same command"
            print(f"stopped: {folder} keeps what is done; {again} goes on with the people found so far")
            raise
        shutil.rmtree(working)
    _print(poses, qualities, folder)
    if source.damaged:
        print(f"{source.name}: {source.damaged}; the results are of what could be read")


@contextmanager
def _results_folder(folder):
    """Makes the folder, which no other process writes to meanwhile; if the block fails and it is new and empty, it goes."""
    new = not folder.exists()
    if not new:
        require_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        with only_one(folder / "results", named=folder):
            yield
    except UserError:
        for empty in (folder / _WORKING, *([folder] if new else [])):
            with suppress(OSError):  # it holds something
                empty.rmdir()
        raise


def _lifting(options):
    models = {"det_model": options.det_model, "pose_model": options.pose_model}
    models = {key: value for key, value in models.items() if value}
    if options.keypoints and models:
        raise UserError("--keypoints: takes the place of a detector; leave --det-model and --pose-model out")
    for key in models:
        if key not in (taken := options_of_detector(options.detector)):
            files = [_flag(name) for name in taken if name.endswith("_model")]
            raise UserError(
                f"{_flag(key)}: the detector {options.detector} has no such model; it has {', '.join(files)}"
            )
    return options_of(
        {
            "weights": options.evaluate,
            "detector_options": models,
            "device": _device(options.gpu),
            **{key: getattr(options, key) for key in _SAME},
        }
    )


def _flag(key):
    """The option of `vis.py` that has a key's name."""
    return "--" + key.replace("_", "-")


def _device(gpu):
    if gpu is None:
        return None
    if not gpu.isdecimal():
        raise UserError(f"--gpu: {gpu}: expected a number, 0 is the first")
    if not torch.cuda.is_available():
        print("--gpu: there is no GPU here; the CPU is used")
        return "cpu"
    return f"cuda:{gpu}"


def _find(name):
    """A path, or a name in `VIDEOS`."""
    if "://" in name:
        raise UserError(f"{name}: addresses are not taken; download the video first")
    path = Path(name)
    if name and not path.exists() and path.parent == Path() and VIDEOS.is_dir():
        if (VIDEOS / name).is_file():
            return VIDEOS / name
        known = [file.name for folder in (Path(), VIDEOS) for file in folder.glob(f"*{glob.escape(path.suffix)}")]
        raise UserError(f"{name}: no such file, here or in {VIDEOS}{nearest(name, known)}")
    return require_file(path)


def _recorded(camera, path, turn):
    """The `VideoSource` of what a camera sees until Ctrl-C; the recording itself is not turned."""
    print(f"{camera.name}: recording; Ctrl-C ends it")
    with camera, VideoWriter(path, camera.width, camera.height, camera.fps, keep_partial=True) as writer:
        try:
            for _, seconds, rgb in progress_bar(camera, "recording", unit="frame"):
                writer.write(rgb, seconds)
        except KeyboardInterrupt:
            pass
    return VideoSource(path, MOST_PIXELS, turn)


def _print(poses, qualities, folder):
    table = Table(title=f"{escape(poses.source)}: {len(poses.times)} frames, {poses.fps:.2f} a second")
    for name in ("person", "from s", "to s", "frames", "bridged", "limbs vary by mm", "acceleration m/s2"):
        table.add_column(name, justify="right")
    for person in poses.people:
        limbs, acceleration = qualities[person.id]
        first, last = poses.times[person.frames[[0, -1]]]
        cells = f"{first:.1f}", f"{last:.1f}", len(person.frames), int(person.bridged.sum()), f"{limbs:.1f}"
        table.add_row(str(person.id), *map(str, cells), f"{acceleration:.1f}")
    Console().print(table)
    print(
        f"in {folder}: poses.mp4, poses.gif, viewer.html, poses.npz, poses.json, poses.csv, person_*.bvh, report.json"
    )
