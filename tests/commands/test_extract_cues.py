"""tools/extract_cues.py as people type it, on the shipped sample and with real classes of random weights."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT, is_drawn
from test_cues import SAMPLE, SMALL, weights  # noqa: F401

from lib.errors import UserError
from lib.model.cues.registry import open_estimator
from lib.model.cues.store import open_cues
from lib.video.io.source import VideoSource
from lib.video.io.writer import VideoWriter
from tools.extract_cues import main


def start(*arguments, **environment):
    command = [sys.executable, ROOT / "tools/extract_cues.py", *arguments]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def extract(*arguments, code=0, **environment):
    """What the command prints; its one line of error where it is to fail."""
    process = start(*arguments, **environment)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == code, printed + errors
    if code:
        assert errors.startswith("error: ") and errors.count("\n") == 1, errors
    return errors if code else printed


def shortened(path, count, max_side=None):
    """The sample's first frames as a video, and those frames as they are decoded from it."""
    source = VideoSource(SAMPLE, max_side)
    with VideoWriter(path, source.width, source.height, source.fps) as writer:
        for number, seconds, image in source:
            if number == count:
                break
            writer.write(image, seconds)
    return path, [image for _, _, image in VideoSource(path, 512)]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return shortened(tmp_path_factory.mktemp("video") / "walk.mp4", 6)


@pytest.fixture
def again(monkeypatch, capsys):
    """The command in this process, which spares a new one the start of PyTorch; what it prints."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["extract_cues.py", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    yield call
    logging.getLogger("lib").setLevel(logging.NOTSET)


def check_flow(folder, images, scale):
    """The stored flow is what the estimator tells of the frames, and the last one's is repeated."""
    stored = np.load(folder / "flow.npy", mmap_mode="r")
    expected = (open_estimator("flow", "dis")(images) * scale).numpy().astype(np.float16)
    np.testing.assert_array_equal(stored[:-1], expected)
    np.testing.assert_array_equal(stored[-1], expected[-1])


def test_the_default_makes_flow_a_film_and_pictures_once_and_mends_damage(again, video, tmp_path):
    path, images = video
    printed = extract("--video", path, "--out", tmp_path / "out")
    assert "depth: off, it takes a network's weights: --depth depth_anything_v2_small" in printed
    assert f"{tmp_path / 'out' / 'flow.npy'}: flow of 6 frames, 512 x 288, by dis" in printed
    cues = open_cues(tmp_path / "out")
    assert cues.frame == (640, 360) and list(cues.arrays) == ["flow"] and cues.video["name"] == "walk.mp4"
    check_flow(tmp_path / "out", images, 640 / 512)
    film = VideoSource(tmp_path / "out" / "cues.mp4")
    assert (film.width, film.height) == (1024, 310) and len(list(film)) == 6
    pictures = sorted((tmp_path / "out").glob("frame_*.png"))
    assert [picture.stem[-2:] for picture in pictures] == ["00", "01", "03", "05"]
    for picture in pictures:
        is_drawn(picture)

    file = tmp_path / "out" / "flow.npy"
    good, made = file.read_bytes(), file.stat().st_mtime_ns
    assert "flow: is up to date" in again("--video", path, "--out", tmp_path / "out")
    assert file.stat().st_mtime_ns == made
    file.write_bytes(good[:-1] + b"x")
    printed = again("--video", path, "--out", tmp_path / "out")
    assert f"flow: {file} has changed since it was written; it is made anew" in printed
    assert file.read_bytes() == good


def test_a_killed_run_goes_on_where_it_was(again, tmp_path):
    path, images = shortened(tmp_path / "walk.mp4", 60)
    record = tmp_path / "out" / ".flow.unfinished.json"
    process = start("--video", path, "--out", tmp_path / "out", "--batch", 1)
    deadline = time.monotonic() + 60
    while not record.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = json.loads(record.read_text())["frames"]
    assert process.returncode == -signal.SIGKILL and 0 < done < 60 and not (tmp_path / "out" / "index.json").exists()
    began = (tmp_path / "out" / ".flow.unfinished.npy").stat().st_ino
    again("--video", path, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "flow.npy").stat().st_ino == began
    check_flow(tmp_path / "out", images, 640 / 512)
    assert not list((tmp_path / "out").glob(".*"))


def test_networks_of_a_folder_of_weights(again, weights, tmp_path, caplog):  # noqa: F811
    path, images = shortened(tmp_path / "small.mp4", 3, 160)
    names = ["--flow", "raft_small", "--depth", "depth_anything_v2_small"]
    printed = again("--video", path, *names, "--weights", weights, "--out", tmp_path / "out", "--batch", 2)
    assert "depth of 3 frames, 160 x 90, by depth_anything_v2_small" in printed and "depth: off" not in printed
    assert "flow by raft_small: images of 160 x 90 px are worked on at 160 x 90, correlations take" in caplog.text
    cues = open_cues(tmp_path / "out")
    assert list(cues.arrays) == ["flow", "depth"]
    depth = open_estimator("depth", "depth_anything_v2_small", weights=weights)(images)
    np.testing.assert_allclose(cues.arrays["depth"][:], depth.numpy(), rtol=2e-3, atol=2e-3)
    with torch.no_grad():
        flow = open_estimator("flow", "raft_small", weights=weights / SMALL)(images)
    np.testing.assert_allclose(cues.arrays["flow"][:2], flow.numpy(), rtol=0.01, atol=0.01)
    film = VideoSource(tmp_path / "out" / "cues.mp4")
    assert (film.width, film.height) == (3 * 320, 180 + 22) and len(list(film)) == 3


def test_a_video_of_one_frame_rests(again, tmp_path):
    path, _ = shortened(tmp_path / "still.mp4", 1, 160)
    again("--video", path, "--out", tmp_path / "out")
    flow = open_cues(tmp_path / "out").arrays["flow"]
    assert flow.shape == (1, 2, 90, 160) and not flow[:].any()


def test_what_cannot_be_done_is_one_line(again, video, tmp_path):
    path, _ = video
    out = tmp_path / "out"
    for arguments, message in (
        (["--video", tmp_path / "no.mp4"], "no.mp4: no such file"),
        (["--video", path, "--flow", "none"], "--flow none --depth none: leaves nothing to make"),
        (["--video", path, "--flow", "rafts"], "flow: 'rafts' is unknown (did you mean 'raft_small'?)"),
        (["--video", path, "--weights", tmp_path], "--weights: dis takes none"),
        (["--video", path, "--batch", "0"], "expected a whole number of at least 1"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            again(*arguments, "--out", out)
        assert not out.exists()


@pytest.mark.weekly
def test_no_weights_and_no_network(video, tmp_path):
    away = {"TORCH_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    line = extract("--video", video[0], "--flow", "raft_small", "--out", tmp_path / "out", code=2, **away)
    assert "raft_small: its weights cannot be fetched" in line and f"{SMALL} and give the file" in line


def test_a_folder_of_other_things_is_left_alone(again, video, tmp_path):
    path, _ = video
    index, film = tmp_path / "index.json", tmp_path / "cues.mp4"
    index.write_text('{"format": "pose-store", "version": 1}')
    with pytest.raises(UserError, match="index.json: is damaged or no index of cues"):
        again("--video", path, "--out", tmp_path)
    film.write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="the film of the cues would take its place"):
        again("--video", film, "--out", tmp_path)
    assert film.read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cues.mp4", "index.json"]
