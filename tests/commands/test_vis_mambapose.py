"""vis.py with MambaPose: a detector on crops of people, and poses straight from images; small untrained networks."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_vis import SAMPLE, part, refusal, vis

from lib.body.skeleton import root_relative
from lib.config import load_config
from lib.errors import UserError
from lib.model.opening import open_model
from lib.model.registry import build_model
from lib.video import lift_video
from lib.video.detection import open_detector
from lib.video.detection.mambapose import MODEL
from lib.video.export.arrays import read_npz
from lib.video.io.source import VideoSource
from lib.video.pipeline import WEIGHTS, detect, options_of
from vis import main

NAMES = {  # file: config, keys
    "2d.bin": ("2d", []),
    "3d.bin": ("3d", []),
    "rgb.bin": ("2d", ["streams=rgb"]),
    "early.bin": ("2d", ["fusion=early", "streams=rgb+flow", "crop=[48,64]"]),
    "clips.bin": ("2d", ["frames=2"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints as train.py writes them, one of them exported, and a film of one person, and a frame with two."""
    folder = tmp_path_factory.mktemp("networks")
    for name, (head, keys) in NAMES.items():
        config = load_config(ROOT / "configs" / "mambapose" / f"MambaPose_nano_{head}.yaml", keys)
        torch.manual_seed(0)
        state = {f"module.{key}": value for key, value in build_model(config).state_dict().items()}
        torch.save({"epoch": 1, "lr": 1e-3, "model_pos": state, "config": config.model_dump()}, folder / name)
    tool = [sys.executable, str(ROOT / "tools" / "export_weights.py"), "3d.bin", "--out", "3d.safetensors"]
    subprocess.run(tool, check=True, cwd=folder)
    part(folder / "film.mp4", 60, 68)
    part(folder / "one.mp4", 60, 61)
    return folder


def detections(folder, name, **options):
    """The detections of each frame of the film."""
    with open_detector(name, **options) as detector:
        return [detector.detect(frame, seconds, n) for n, seconds, frame in VideoSource(folder / "film.mp4")]


def test_keypoints_are_lifted_as_other_detectors(folder):
    """In crops of the default detector's people, by an untrained network: anywhere in them, and PoseMamba lifts that."""
    options = "--detector", "mambapose", "--pose-model", "2d.bin", "--flow", "-o", "2d"
    done = vis(folder, "--video", "film.mp4", *options)
    assert "2d.bin: is not shown depth (--flow, --depth FOLDER)" in done.stderr
    assert "people were found at " in done.stdout
    poses = read_npz(folder / "2d" / "poses.npz")
    report = json.loads((folder / "2d" / "report.json").read_text())
    (woman,) = poses.people
    assert report["detection_fps"] > 0 and woman.frames.tolist() == [*range(8)]
    for keypoints, (found,) in zip(woman.keypoints, detections(folder, "accurate")):
        low, high = found.box[:2], found.box[2:]
        middle = keypoints[:, :2].mean(0)
        assert (low < middle).all() and (middle < high).all()
        assert np.abs(keypoints[:, :2] - found.keypoints[:, :2]).max() > 5
        assert (keypoints[:, 2] < 0.5).all()  # it is not sure of anything


def test_poses_are_those_that_the_network_sees(folder):
    vis(folder, "--video", "film.mp4", "--mambapose", "3d.safetensors", "--smooth", 0, "--focal", 500, "-o", "3d")
    poses = read_npz(folder / "3d" / "poses.npz")
    (woman,) = poses.people
    assert woman.frames.tolist() == [*range(8)] and poses.focal == 500
    seen = detections(folder, "mambapose", pose_model=folder / "3d.bin", focal=500.0)
    for camera, (found,) in zip(woman.camera, seen):
        np.testing.assert_allclose(root_relative(camera), root_relative(found.pose), atol=1e-5)
    assert np.isfinite(woman.world).all()


def test_one_frame_and_early_fusion(folder):
    poses = lift_video(
        folder / "one.mp4", detector="mambapose", detector_options={"pose_model": folder / "early.bin", "flow": True}
    )
    assert [person.frames.tolist() for person in poses.people] == [[0], [0]]
    options = {"pose_model": folder / "3d.bin"}
    poses = lift_video(folder / "one.mp4", detector="mambapose", lifter="mambapose", detector_options=options)
    assert [person.frames.tolist() for person in poses.people] == [[0], [0]]


def test_detections_that_are_there_are_used_if_their_poses_fit(folder, tmp_path):
    """Those of another focal length do not, nor do those without poses."""

    def found(**keys):
        keys |= {"detector": "mambapose", "detector_options": {"pose_model": folder / "3d.bin"}}
        detections = detect(VideoSource(folder / "one.mp4"), tmp_path, options_of(keys), lambda items, *_, **__: items)
        detections.close()
        people, rows = detections.people()
        assert detections.complete and len(people) == 2
        return (tmp_path / "rows.bin").stat().st_mtime_ns, rows.dtype.names

    first, again = found(lifter="mambapose"), found(lifter="mambapose")
    assert first == again and first[1] == ("frame", "track", "keypoints", "pose")
    other = found(lifter="mambapose", focal=300)
    assert other[0] != first[0] and found()[1] == ("frame", "track", "keypoints")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"pose_model": "none.bin"}, "none.bin: no such file; name a MambaPose: --pose-model FILE"),
        ({"pose_model": WEIGHTS}, "posemamba_wild.safetensors: is not a MambaPose checkpoint"),
        ({"pose_model": SAMPLE}, "sample_video.mp4: is truncated or not a checkpoint"),
        ({"pose_model": "2d.bin", "poses": True}, "2d.bin: has head 2d, keypoints only"),
        ({"pose_model": "clips.bin"}, "clips.bin: sees clips of 2 frames"),
        ({"pose_model": "early.bin"}, "early.bin: fusion: early needs all of rgb.flow; add --flow"),
        ({"pose_model": "rgb.bin", "flow": True}, "--flow: rgb.bin sees rgb only; leave it out"),
        ({"pose_model": "2d.bin", "depth": "nowhere"}, "nowhere: no such folder; it has config.json and model"),
        ({"pose_model": "2d.bin", "det_model": "2d.bin"}, "2d.bin: is no ONNX model or is damaged"),
    ],
)
def test_a_network_that_does_not_fit(folder, monkeypatch, options, message):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message) as caught:
        open_detector("mambapose", **options)
    assert "\n" not in str(caught.value)


def test_a_network_of_keypoints_has_no_poses(folder):
    message = refusal(folder, "--video", "film.mp4", "-o", "none", "--mambapose", "2d.bin")
    assert "2d.bin: has head 2d, keypoints only; --detector mambapose --pose-model 2d.bin has PoseMamba lift" in message
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ("--mambapose 3d.bin --clip_len 9", "--clip_len: is for PoseMamba, whose place --mambapose takes"),
        ("--mambapose 3d.bin --detector fast", "--detector: fast: --mambapose finds people and joints itself"),
        ("--mambapose 3d.bin --keypoints a.npz", "--keypoints: --mambapose sees images, not keypoints"),
        ("--mambapose 3d.bin --pose-model 3d.bin", "--pose-model: --mambapose FILE names the model; leave it out"),
        ("--flow", "--flow: the detector accurate has no such option; it has --det-model, --pose-model"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(UserError, match=message):
        main(["--video", str(SAMPLE), *options.split()])


def test_poses_need_the_detector_that_gives_them():
    with pytest.raises(UserError, match="lifter: mambapose sees images; set detector: mambapose"):
        lift_video(SAMPLE, lifter="mambapose")


def test_the_network_that_ships_puts_keypoints_on_a_person(folder):
    """Nearer to those of the default detector, on a woman who walks in plain view, than anywhere in her box would be."""
    assert MODEL.stat().st_size < 4e6 and open_model(MODEL).config.head == "3d"
    vis(folder, "--video", "film.mp4", "--mambapose", "--flow", "-o", "shipped")
    (woman,) = read_npz(folder / "shipped" / "poses.npz").people
    for keypoints, (found,) in zip(woman.keypoints, detections(folder, "accurate")):
        distance = np.linalg.norm(keypoints[:, :2] - found.keypoints[:, :2], axis=-1)
        height = found.box[3] - found.box[1]
        assert np.median(distance) < 0.1 * height
    height = np.ptp(woman.world[:, [3, 6, 10], 2], axis=1)
    assert 1.2 < np.median(height) < 1.9  # m
