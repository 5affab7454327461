"""Implementation of `vis.py`: from its options to a folder of results."""

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
from lib.video.export.results import is_result, write_data, write_videos
from lib.video.io.source import VideoSource
from lib.video.io.writer import VideoWriter
from lib.video.pipeline import MOST_PIXELS, WEIGHTS, Options, lift, options_of

VIDEOS = PROJECT / "demo" / "video"
OUTPUT = Path("demo/output")
_WORKING = ".posemamba"  # in the folder of results, until they are there
_OF_DETECTOR = ("det_model", "pose_model", "flow", "depth")
_OF_LIFTING = ("evaluate", "config", "clip_len", "pixel")  # what --mambapose has no use for
_SAME = (
    "config", "clip_len", "pixel", "detector", "keypoints", "keypoints_first", "focus", "max_gap", "smooth", "height",
    "turn", "focal",
)  # fmt: skip


def lift_to_folder(options):
    """Lift the video of `options` (see `vis.py`) and write all results.

    Raises:
        UserError: an option or the video is bad, nobody is seen, or results cannot be written.
    """
    chosen = _lifting(options)
    camera = options.video.isdecimal() and not Path(options.video).exists()
    source = VideoSource(int(options.video) if camera else _find(options.video), MOST_PIXELS, chosen.turn)
    name = Path(source.name).stem.replace(" ", "_").strip(".") or "video"
    folder = Path(options.out_path or OUTPUT / name).resolve()
    if not camera and is_result(source.path, folder):
        raise UserError(f"{source.path}: the video of the results would take its place; choose another folder with -o")
    with _results_folder(folder):
        if camera:
            source = _recorded(source, folder / "recording.mp4", chosen.turn)
        working = folder / _WORKING
        try:
            poses = lift(source, working, chosen, progress_bar)
            qualities = write_data(poses, source, folder, chosen.smooth)
            write_videos(poses, source, folder, working, options.audio, progress_bar)
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
    """Make the folder and lock it against other processes; remove it if the block fails and it is new and empty."""
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
    chosen = {key: getattr(options, key) for key in _SAME}
    chosen |= {"weights": options.evaluate or WEIGHTS, "device": _device(options.gpu)}
    given = {key: getattr(options, key) for key in _OF_DETECTOR if getattr(options, key)}
    if options.mambapose is not None:
        _check_mambapose(options)
        chosen |= {"lifter": "mambapose", "detector": "mambapose"}
        given |= {"pose_model": options.mambapose} if options.mambapose else {}
    if options.keypoints and given:
        raise UserError(f"--keypoints: takes the place of a detector; leave {' and '.join(map(_flag, given))} out")
    for key in given:
        if key not in (taken := options_of_detector(chosen["detector"])):
            has = [_flag(name) for name in taken if name in _OF_DETECTOR]
            kind = "model" if key.endswith("_model") else "option"
            raise UserError(
                f"{_flag(key)}: the detector {chosen['detector']} has no such {kind}; it has {', '.join(has)}"
            )
    return options_of({**chosen, "detector_options": given})


def _check_mambapose(options):
    """Raise UserError for options that --mambapose contradicts."""
    for key in _OF_LIFTING:
        if getattr(options, key):
            raise UserError(f"--{key}: is for PoseMamba, whose place --mambapose takes; leave it out")
    if options.keypoints:
        raise UserError("--keypoints: --mambapose sees images, not keypoints; leave one of them out")
    if options.pose_model:
        raise UserError("--pose-model: --mambapose FILE names the model; leave it out")
    if options.detector not in (Options().detector, "mambapose"):
        raise UserError(f"--detector: {options.detector}: --mambapose finds people and joints itself; leave it out")


def _flag(key):
    """Return the option of `vis.py` with a key's name."""
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
    """Return the file of a path, or of a name in `VIDEOS`."""
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
    """Return the `VideoSource` of a camera's recording until Ctrl-C; the recording itself is not turned."""
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
    if poses.detection_fps:
        print(f"people were found at {poses.detection_fps:.1f} frames a second")
    print(
        f"in {folder}: poses.mp4, poses.gif, viewer.html, poses.npz, poses.json, poses.csv, person_*.bvh, report.json"
    )
