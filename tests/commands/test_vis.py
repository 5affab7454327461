"""vis.py as people type it: the shipped video, the shipped models, real processes."""

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from fractions import Fraction

import av
import numpy as np
import pytest
from commands_here import run_here
from conftest import ROOT
from test_video_io import cut, make_video

from lib.config import validate
from lib.data.convert.mocap.bvh import read_bvh
from lib.errors import UserError
from lib.model.registry import build_model
from lib.model.weights import read_checkpoint, read_weights
from lib.video import lift_video
from lib.video.export.arrays import read_npz
from lib.video.export.results import write_data
from lib.video.io.source import VideoSource

SAMPLE = ROOT / "demo" / "video" / "sample_video.mp4"


def command(*arguments):
    return [sys.executable, str(ROOT / "vis.py"), *map(str, arguments)]


def vis_apart(folder, *arguments, code=0):
    """A run in a process of its own."""
    result = subprocess.run(command(*arguments), capture_output=True, text=True, cwd=folder, timeout=500)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def vis(folder, *arguments, code=0):
    """A run in this process, which has the libraries loaded."""
    result = run_here("vis", *arguments, folder=folder)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def refusal(folder, *arguments):
    """The line that a wrong command says."""
    (line,) = vis(folder, *arguments, code=2).stderr.splitlines()
    return line


def part(path, first, last, size=(640, 360), columns=slice(None)):
    """Frames of the sample as a video of its own, of some columns only, in another size."""
    frames = [f for n, f in enumerate(av.open(str(SAMPLE)).decode(video=0)) if first <= n < last]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.pix_fmt = "yuv420p"
        stream.width, stream.height = size
        for number, frame in enumerate(frames):
            picture = np.ascontiguousarray(frame.to_ndarray(format="rgb24")[:, columns])
            frame = av.VideoFrame.from_ndarray(picture).reformat(*size, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The folder of results of the shipped video, and what was printed."""
    work = tmp_path_factory.mktemp("sample")
    result = vis_apart(work, "--video", "sample_video.mp4")
    return work / "demo" / "output" / "sample_video", result


def test_the_sample_has_two_people_with_one_identity_each(sample):
    folder, result = sample
    poses = read_npz(folder / "poses.npz")
    assert [person.id for person in poses.people] == [1, 2]
    man, woman = poses.people
    assert man.frames[0] <= 2 and man.frames[-1] > 210  # on the roof, off it, across the grass
    assert 40 <= woman.frames[0] <= 60 and woman.frames[-1] > 190
    assert len(man.frames) > 130 and len(woman.frames) > 130
    gaps = np.diff(man.frames)
    assert gaps.max() > 15 and len(man.segments()) > 1  # in the air he is out of sight for longer than is bridged
    assert "person" in result.stdout and "Traceback" not in result.stderr


def test_every_file_is_there_and_says_the_same(sample):
    folder, _ = sample
    names = {path.name for path in folder.iterdir()}
    wanted = {"poses.mp4", "poses.gif", "poses.npz", "poses.json", "poses.csv", "viewer.html", "report.json"}
    assert wanted | {"person_1.bvh", "person_2.bvh"} <= names and not any(n.startswith(".") for n in names)
    poses = read_npz(folder / "poses.npz")
    with av.open(str(folder / "poses.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == len(poses.times) == 230
    content = json.loads((folder / "poses.json").read_text())
    report = json.loads((folder / "report.json").read_text())
    assert content["source"] == report["source"] == "sample_video.mp4" and report["damaged"] is None
    rows = list(csv.DictReader((folder / "poses.csv").open()))
    assert len(rows) == sum(len(person.frames) for person in poses.people)
    assert {p: v["frames"] for p, v in report["people"].items()} == {str(p.id): len(p.frames) for p in poses.people}
    assert read_bvh(folder / "person_2.bvh").frames == len(poses.people[1].frames)


def test_poses_look_like_people(sample):
    """Upright, of human size, where their keypoints are, with limbs that keep their length."""
    folder, _ = sample
    poses = read_npz(folder / "poses.npz")
    report = json.loads((folder / "report.json").read_text())
    _, woman = poses.people
    height = woman.world[:, 10, 2] - woman.world[:, [3, 6], 2].min(1)
    assert 1.3 < np.median(height) < 1.9
    places = woman.camera[..., :2] / woman.camera[..., 2:] * poses.focal + [poses.width / 2, poses.height / 2]
    error = np.linalg.norm(places - woman.keypoints[..., :2], axis=-1)[~woman.bridged]
    assert np.median(error) < 6  # px, of a person 140 px tall
    np.testing.assert_allclose(woman.world, woman.camera @ poses.rotation.T + poses.shift, atol=1e-3)
    assert np.ptp(woman.world[:, 0, 0]) > 2  # m: she walks across the picture
    assert report["people"]["2"]["limb_deviation_mm"] < 40


def test_the_man_stands_on_a_roof_and_the_woman_on_the_ground(sample):
    folder, _ = sample
    man, woman = read_npz(folder / "poses.npz").people[:2]
    lower = [person.world[:, [3, 6], 2].min(1) for person in (man, woman)]
    assert np.median(lower[0][man.frames < 60]) > 1 and -0.05 < np.median(lower[1]) < 0.2  # m
    report = json.loads((folder / "report.json").read_text())
    assert abs(report["camera"]["roll_degrees"]) < 5 and abs(report["camera"]["tilt_down_degrees"]) < 10
    assert report["smoothing"]["method"].startswith("penalised least squares")


@pytest.mark.weekly
def test_one_person_smoothed_from_the_same_detections(sample, tmp_path):
    folder, _ = sample
    poses = read_npz(folder / "poses.npz")
    keypoints = np.concatenate([person.keypoints[~person.bridged] for person in poses.people])
    frame = np.concatenate([person.frames[~person.bridged] for person in poses.people])
    number = np.concatenate([np.full((~person.bridged).sum(), person.id) for person in poses.people])
    np.savez(tmp_path / "found.npz", keypoints=keypoints, frame=frame, person=number, layout="h36m17")
    options = ("--video", SAMPLE, "--keypoints", "found.npz", "-o", "out", "--gpu", 0)
    vis(tmp_path, *options, "--focus", 2, "--smooth", 1)
    (woman,) = read_npz(tmp_path / "out" / "poses.npz").people
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    before = json.loads((folder / "report.json").read_text())
    assert woman.id == 2 and len(woman.frames) == len(poses.people[1].frames)
    assert report["people"]["2"]["acceleration_m_s2"] < 0.7 * before["people"]["2"]["acceleration_m_s2"]
    assert "there is no person 5; there are 1, 2" in refusal(tmp_path, *options, "--focus", 5)


def test_an_interrupted_detection_goes_on(tmp_path):
    film = part(tmp_path / "film.mp4", 90, 130)
    process = subprocess.Popen(command("--video", film, "-o", "out"), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    rows = tmp_path / "out" / ".posemamba" / "detections" / "rows.bin"
    deadline = time.monotonic() + 120
    while not (rows.is_file() and rows.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on" in printed
    done = json.loads((tmp_path / "out" / ".posemamba" / "detections" / "state.json").read_text())["frames"]
    assert 0 < done < 40
    vis(tmp_path, "--video", film, "-o", "out")
    poses = read_npz(tmp_path / "out" / "poses.npz")
    assert len(poses.times) == 40 and poses.people[0].frames[-1] == 39
    assert len(poses.people[0].frames) > 30 and not (tmp_path / "out" / ".posemamba").exists()


def test_files_of_others_stay(tmp_path):
    """The video itself, what lies in the folder of results, and detections when an option is mistyped."""
    out = tmp_path / "out"
    out.mkdir()
    film = part(out / "preview.mp4", 60, 75)
    assert "would take its place; choose another folder" in refusal(tmp_path, "--video", film, "-o", out)
    film = film.rename(tmp_path / "film.mp4")
    mine = {"preview.mp4": "a", ".editor.tmp": "b", "person_one.bvh": "c", "notes.txt": "d"}
    for name, text in mine.items():
        (out / name).write_text(text)
    keypoints = np.random.default_rng(0).uniform(50, 250, (15, 17, 3))
    np.savez(tmp_path / "found.npz", keypoints=keypoints, frame=np.arange(15), person=[0] * 15, layout="h36m17")
    working = out / ".posemamba" / "detections"
    message = refusal(tmp_path, "--video", film, "-o", out, "--keypoints", "found.npz", "--focus", 3)
    assert "there is no person 3; there are 0" in message and (working / "state.json").exists()
    (tmp_path / "cut.npz").write_bytes((tmp_path / "found.npz").read_bytes()[:500])
    refusal(tmp_path, "--video", film, "-o", out, "--keypoints", "cut.npz")
    assert (working / "state.json").exists()
    closed = 'exec "$@" 2>&-'  # no place for errors
    subprocess.run(["sh", "-c", closed, "sh", *command("--video", film, "-o", out)], check=True, cwd=tmp_path)
    assert (out / "poses.gif").exists() and not (out / ".posemamba").exists()
    assert mine == {name: (out / name).read_text() for name in mine}


def test_a_filter_that_a_varying_frame_rate_does_not_take(tmp_path):
    film = tmp_path / "film.mkv"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 5 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + 9 * max(0, number - 5), Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    keypoints = np.random.default_rng(0).uniform(5, 60, (40, 17, 3))
    np.savez(tmp_path / "found.npz", keypoints=keypoints, frame=np.arange(40), layout="h36m17")
    message = refusal(tmp_path, "--video", film, "-o", "out", "--keypoints", "found.npz", "--smooth", 6)
    assert "smooth: 6 Hz must be below half the frame rate" in message
    vis(tmp_path, "--video", film, "-o", "out", "--keypoints", "found.npz", "--max-gap", 1)


def test_in_python(tmp_path):
    film = part(tmp_path / "film.mp4", 60, 100)
    poses = lift_video(film, detector_options={"people": 1}, max_gap=0.2)
    (man, *_) = poses.people
    assert man.world.shape == (len(man.frames), 17, 3) and not isinstance(man.world, np.memmap)
    assert poses.fps == pytest.approx(30, 1e-3)
    assert poses.warnings == ["more than 1 people are in view: the largest are followed"]
    write_data(poses, VideoSource(film), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["warnings"] == poses.warnings


def test_hundreds_of_people_do_not_need_hundreds_of_open_files(tmp_path):
    people, frames = 40, 9
    keypoints = np.random.default_rng(0).uniform(50, 250, (people * frames, 17, 3)).astype(np.float32)
    who = {"frame": np.tile(np.arange(frames), people), "person": np.repeat(np.arange(people), frames)}
    np.savez(tmp_path / "crowd.npz", keypoints=keypoints, layout="h36m17", **who)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + people, hard))
    try:
        poses = lift_video(SAMPLE, keypoints=tmp_path / "crowd.npz")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(poses.people) == people and all(np.isfinite(person.world).all() for person in poses.people)


def test_a_clip_shorter_than_a_window(tmp_path):
    vis(tmp_path, "--video", part(tmp_path / "short.mp4", 60, 72), "-o", "out")
    poses = read_npz(tmp_path / "out" / "poses.npz")
    assert len(poses.times) == 12 and poses.people


def test_a_clip_of_one_frame(tmp_path):
    vis(tmp_path, "--video", part(tmp_path / "one.mp4", 60, 61), "-o", "out")
    poses = read_npz(tmp_path / "out" / "poses.npz")
    assert len(poses.times) == 1 and [person.frames.tolist() for person in poses.people] == [[0], [0]]
    height = np.ptp(poses.people[1].world[0, [3, 6, 10], 2])
    assert 1.2 < height < 1.9  # m, of the woman
    assert (tmp_path / "out" / "poses.gif").exists()


@pytest.mark.parametrize(
    "frames, message", [(1, "nobody is seen in its one frame"), (5, "for 0.067 s in any of its 5")]
)
def test_a_short_clip(tmp_path, frames, message):
    poses = lift_video(part(tmp_path / "short.mp4", 60, 60 + frames), detector="fast")
    assert [person.frames.tolist() for person in poses.people] == [[*range(frames)]] * 2
    with pytest.raises(UserError, match=message):
        lift_video(make_video(tmp_path / "nobody.mp4", frames), detector="fast")


def test_a_video_that_is_turned(tmp_path, caplog):
    """The warning says what mends it: then keypoints, which are where they were in the video, come out upright."""
    motion = np.load(ROOT / "tests" / "data" / "footage_keypoints.npz")
    first = motion["cam04_person"] == motion["cam04_person"][0]
    upright, frame = motion["cam04_keypoints"][first][:20], np.arange(20)
    upright[..., :2] /= 3
    width, height = 360, 640
    turned = np.stack([upright[..., 1], width - upright[..., 0], upright[..., 2]], axis=-1)  # a quarter anticlockwise
    poses = {}
    for name, keypoints, size in (("upright", upright, (width, height)), ("turned", turned, (height, width))):
        make_video(tmp_path / f"{name}.mp4", 20, width=size[0], height=size[1])
        np.savez(tmp_path / f"{name}.npz", keypoints=keypoints, frame=frame, person=[4] * 20, layout="h36m17")
        poses[name] = lift_video(tmp_path / f"{name}.mp4", keypoints=tmp_path / f"{name}.npz")
    warning = "most heads point to the left of the image: if the video is turned, pass --turn 90"
    assert poses["upright"].warnings == [] and poses["turned"].warnings == [warning] and warning in caplog.text
    options = "--keypoints", "turned.npz", "--turn", 90, "-o", "out"
    result = vis(tmp_path, "--video", "turned.mp4", *options)
    mended = read_npz(tmp_path / "out" / "poses.npz")
    assert (mended.width, mended.height) == (width, height) and "most heads" not in result.stderr
    for key in ("keypoints", "camera", "world"):
        arrays = [getattr(found.people[0], key) for found in (poses["upright"], mended)]
        np.testing.assert_allclose(*arrays, atol=1e-3)


@pytest.mark.weekly
def test_a_truncated_video_gives_what_can_be_read_and_says_so(tmp_path):
    film = cut(part(tmp_path / "film.mkv", 60, 160), 0.8)
    result = vis(tmp_path, "--video", film, "-o", "out")
    assert re.search(r"ends after frame \d+: .*; the results are of what could be read", result.stdout)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert 8 < report["frames"] < 100 and "ends after frame" in report["damaged"]


@pytest.mark.weekly
@pytest.mark.parametrize(
    "size, columns", [((3840, 2160), slice(None)), ((404, 720), slice(420, 622))], ids=["4K", "portrait"]
)
def test_other_sizes(tmp_path, size, columns):
    vis(tmp_path, "--video", part(tmp_path / "film.mp4", 60, 75, size, columns), "-o", "out")
    poses = read_npz(tmp_path / "out" / "poses.npz")
    assert max(poses.width, poses.height) == min(1920, max(size)) and (poses.width > poses.height) == (
        size[0] > size[1]
    )


@pytest.mark.weekly
def test_published_checkpoints_lift_too(sample, tmp_path):
    """A network trained on whole pictures, in the published layout, with its YAML config."""
    import torch

    config = {"maxlen": 27, "clip_len": 27, "dim_feat": 16, "depth": 2}
    model = build_model(validate(config))
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 1, "lr": 1e-4, "model_pos": state, "min_loss": 40.0}, tmp_path / "best_epoch.bin")
    (tmp_path / "config.yaml").write_text("".join(f"{key}: {value}\n" for key, value in config.items()))
    film = part(tmp_path / "film.mp4", 60, 100)
    common = ("--video", film, "-e", "best_epoch.bin", "--config", "config.yaml")
    for name, options in {"crop": (), "pixel": ("--pixel", "--clip_len", 9)}.items():
        vis(tmp_path, *common, "-o", name, *options)
    crop, pixel = (read_npz(tmp_path / name / "poses.npz").people[0] for name in ("crop", "pixel"))
    assert np.isfinite(crop.world).all() and not np.allclose(crop.camera, pixel.camera, atol=1e-2)
    assert read_checkpoint(tmp_path / "best_epoch.bin").config == {}
    message = refusal(tmp_path, *common, "-o", "long", "--clip_len", 81)
    assert "clip_len: 81: the network takes 1 to 27 frames" in message


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--video", "nothing.mp4"), "nothing.mp4: no such file"),
        (("--video", "sample_vide.mp4"), "did you mean 'sample_video.mp4'?"),
        (("--video", "text.mp4"), "text.mp4: is text, not a video"),
        (("--video", "nobody.mp4"), "nobody.mp4: nobody is seen"),
        (("--video", "nobody.mp4", "--gpu", "first"), "--gpu: first: expected a number"),
        (("--video", "nobody.mp4", "--clip_len", "0"), "clip_len: 0: input should be greater than or equal to 1"),
        (
            ("--video", "nobody.mp4", "--smooth", "15"),
            "smooth: 15 Hz must be below half the frame rate, 15 Hz; 0 for no smoothing",
        ),
        (("--video", "nobody.mp4", "--max-gap", "-1"), "max_gap: -1.0: input should be greater"),
        (("--video", "nobody.mp4", "--detector", "yolo"), "invalid choice: 'yolo'"),
        (
            ("--video", "nobody.mp4", "-e", "text.mp4"),
            "text.mp4: is truncated or not a checkpoint; a file that PyTorch wrote is needed, of tensors and plain",
        ),
        (("--video", "nobody.mp4", "-e", "broken.safetensors"), "broken.safetensors: is truncated or not"),
        (("--video", "nobody.mp4", "--keypoints", "none.json"), "none.json: no such file"),
        (("--video", "nobody.mp4", "-o", "text.mp4/out"), "text.mp4/out: cannot be written"),
        (("--video", "99"), "camera 99: there is none"),
        (("--video", "https://example.com/a.mp4"), "addresses are not taken; download the video first"),
        (("--video", "nobody.mp4", "--pixel"), "takes keypoints that are normalised by the person"),
        (
            ("--video", "nobody.mp4", "--detector", "fast", "--pose-model", "a.onnx"),
            "--pose-model: the detector fast has no such model; it has --det-model",
        ),
        (("--video", "nobody.mp4", "--keypoints", "a.npz", "--pose-model", "b"), "--keypoints: takes the place of"),
        (("--video", "nobody.mp4", "--max-gap", "nan"), "max_gap: nan: input should be a finite number"),
        (("--video", "nobody.mp4", "--focal-length", "3"), "--focal-length: unknown option"),
        (("--video", "nobody.mp4", "--turn", "45"), "--turn: invalid choice: 45"),
    ],
)
def test_bad_input_is_refused(tmp_path, arguments, message):
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "broken.safetensors").write_bytes(b"\0" * 40)
    make_video(tmp_path / "nobody.mp4", 30)
    assert message in refusal(tmp_path, *arguments)
    assert {path.name for path in tmp_path.iterdir()} <= {"text.mp4", "broken.safetensors", "nobody.mp4", "demo"}
    assert not list(tmp_path.glob("demo/output/*"))


def test_a_refusal_is_one_line_in_the_terminal(tmp_path):
    result = vis_apart(tmp_path, "--video", "nothing.mp4", code=2)
    assert re.fullmatch(r"error: nothing.mp4: no such file, here or in .*\n", result.stderr) and result.stdout == ""


def test_a_model_of_the_detector_that_is_none(tmp_path):
    (tmp_path / "model.onnx").write_bytes(os.urandom(100))
    message = refusal(tmp_path, "--video", SAMPLE, "--pose-model", "model.onnx", "-o", "out")
    assert "model.onnx: is no ONNX model or is damaged" in message


def test_a_missing_package_is_named(tmp_path):
    hide = f"""if True:
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        import vis
        from lib.cli import run
        for package in ("av", "trackers", "onnxruntime"):
            sys.modules[package] = None
            try:
                run(lambda: vis.main(["--video", {str(SAMPLE)!r}, "-o", "out"]))
            except SystemExit as end:
                print(end.code)
            del sys.modules[package]
    """
    result = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert result.stdout.split() == ["2"] * 3
    for package, line in zip(("av", "trackers", "onnxruntime"), result.stderr.splitlines(), strict=True):
        needed = f"needs the package {package}, which is not installed: pip install -r requirements-video.txt"
        assert line.startswith("error: ") and needed in line


def test_weights_are_what_the_checkpoint_had(tmp_path):
    import torch

    model = build_model(validate({"maxlen": 9, "clip_len": 9, "dim_feat": 16, "depth": 1}))
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 3, "model_pos": state, "config": {"scan": "v2"}}, tmp_path / "best_epoch.bin")
    tool = [sys.executable, str(ROOT / "tools" / "export_weights.py"), "best_epoch.bin", "--out", "model.safetensors"]
    subprocess.run(tool, check=True, cwd=tmp_path)
    weights = read_weights(tmp_path / "model.safetensors")
    assert weights.config == {"scan": "v2"} and weights.epoch == 3
    weights.load_into(model)
    assert all(torch.equal(weights.model[name], value) for name, value in model.state_dict().items())
