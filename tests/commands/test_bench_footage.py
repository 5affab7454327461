"""The benchmark on real footage: its figures on poses whose errors are known, and the command on a few frames."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import ROOT
from scipy.spatial.transform import Rotation
from test_video_io import make_video

from lib.errors import UserError
from lib.video.io.source import VideoSource
from lib.video.pipeline import options_of
from tools.bench.scoring import pose_errors
from tools.bench.scoring.footage import FOLDER, Excerpt, project, read_views
from tools.bench.scoring.footage_scores import MISSING, mean, score_view
from tools.bench.scoring.matching import Estimate, nobody
from tools.bench.scoring.world_landmarks import heavy_landmarks, square_about

TURN = Rotation.from_euler("xyz", [20, -30, 50], degrees=True).as_matrix()


@pytest.fixture(scope="module")
def view():
    return read_views()[3]


def truth(view, late=0):
    """The truth as an `Estimate`, `late` frames late."""
    people, frames = view.believed.shape[:2]
    numbers = np.tile(np.arange(frames), people)
    shown = np.tile(np.maximum(np.arange(frames) - late, 0), people)
    person = np.repeat(np.arange(people), frames)
    return Estimate(
        numbers, view.keypoints[person, shown], view.poses[person, shown], view.levels[person, shown], view.up
    )


def test_the_truth_has_no_error(view):
    score = score_view(truth(view), view)
    assert score["up_error"] == score["false"] == score["duplicates"] == score["bystanders"] == 0
    for person in score["people"]:
        assert person["found"] == person["found_well"] == person["pck5"] == 1
        assert person["scale"] == pytest.approx(1) and person["lag_2d"] == pytest.approx(0, abs=0.05)
        for key in ("error_px", "median_px", "p_mpjpe", "p_mpjpe_found", "mpjpe_scaled"):
            assert person[key] == pytest.approx(0, abs=1e-6), key
        assert 10 < person["acceleration_error"] < 50  # of the truth itself
    steady = replace(truth(view), poses=view.steady.reshape(-1, 17, 3))
    for person in score_view(steady, view)["people"]:
        assert person["acceleration_error"] < 0.5 and person["p_mpjpe"] < 8
    assert [person["frames"] for person in score["people"]] == [92, 100]


def test_turned_and_scaled_poses(view):
    """Procrustes takes both away, one scale takes only the second."""
    wrong = replace(truth(view), poses=0.5 * truth(view).poses @ TURN.T)
    people = score_view(wrong, view)["people"]
    assert all(person["p_mpjpe"] == pytest.approx(0, abs=1e-3) and person["mpjpe_scaled"] > 100 for person in people)
    small = replace(truth(view), poses=0.5 * truth(view).poses)
    for person in score_view(small, view)["people"]:
        assert person["scale"] == pytest.approx(2) and person["mpjpe_scaled"] == pytest.approx(0, abs=1e-6)


def test_shifted_keypoints(view):
    moved = replace(truth(view), keypoints=truth(view).keypoints + (30, 40))
    heights = [np.where(view.believed[p].any(-1), view.heights[p], np.inf) for p in range(2)]
    assert all(height.min() * 0.05 < 50 < height.min() * 0.12 for height in heights)
    for person, height in zip(score_view(moved, view)["people"], heights):
        assert person["error_px"] == person["median_px"] == pytest.approx(50) and person["found"] == 1
        judged = np.isfinite(height)
        assert person["found_well"] == np.mean(50 < 0.08 * height[judged])
        assert person["pck5"] == 0


def test_missed_people_and_others(view):
    whole = truth(view)
    half = replace(whole, **{n: getattr(whole, n)[::2] for n in ("frames", "keypoints", "poses", "levels")})
    score = score_view(half, view)
    for person in score["people"]:
        assert person["found"] == pytest.approx(0.5, abs=0.01) and person["p_mpjpe_found"] == pytest.approx(0, abs=1e-6)
        assert person["p_mpjpe"] == pytest.approx(MISSING * (1 - person["found"]))
    assert score_view(nobody(), view)["people"][0]["p_mpjpe"] == MISSING

    more = Estimate(
        np.tile(whole.frames, 3),
        np.concatenate([whole.keypoints, whole.keypoints + 3, whole.keypoints + 3000]),
        np.tile(whole.poses, (3, 1, 1)),
    )
    score = score_view(more, view)
    assert (score["duplicates"], score["false"], score["bystanders"]) == (2, 2, 0)
    stranger = replace(view, bystanders=np.array([[2000.0, 2000, 9000, 9000]]))
    score = score_view(more, stranger)
    assert (score["duplicates"], score["false"], score["bystanders"]) == (2, 0, 2)


@pytest.mark.parametrize("late", [1, 3])
def test_a_late_result(view, late):
    person = score_view(truth(view, late), view)["people"][0]
    assert person["lag_2d"] == pytest.approx(late, abs=0.15) and person["lag_3d"] == pytest.approx(late, abs=0.15)


def test_lag_of_a_wave():
    time = np.arange(120)[:, None] / 20
    assert pose_errors.lag(np.sin(time - 2.5 / 20), np.sin(time)) == pytest.approx(2.5, abs=0.05)
    assert pose_errors.lag(np.sin(time), np.zeros_like(time)) is None


def test_acceleration_of_a_jerk():
    """One joint that is off by 1 cm in one frame of 60 a second: twice that, or once, in each of three frames."""
    found = np.zeros((9, 17, 3))
    found[4, 5, 0] = 0.01
    errors = pose_errors.acceleration_errors(found, np.zeros_like(found), 60.0)
    assert errors[2:5, 5] == pytest.approx(np.array([1, 2, 1]) * 0.01 * 3600)
    assert errors.sum() == pytest.approx(4 * 36)


def test_feet_that_float(view):
    raised = replace(truth(view), levels=truth(view).levels + 0.3)
    level, high = (score_view(estimate, view)["people"][1]["feet"] for estimate in (truth(view), raised))
    assert np.array(high) - level == pytest.approx(0.3)


def test_up_and_means(view):
    tilted = replace(truth(view), up=Rotation.from_euler("z", 12, degrees=True).apply(view.up))
    expected = np.degrees(np.arccos(tilted.up @ view.up))
    scores = {"a": score_view(truth(view), view), "b": score_view(tilted, view)}
    assert scores["b"]["up_error"] == pytest.approx(expected)
    assert mean(scores)["up_error"] == pytest.approx(expected / 2)
    assert mean({"a": scores["a"], "b": score_view(nobody(), view)})["p_mpjpe"] == pytest.approx(MISSING / 2)


def test_projection_is_opencvs():
    points = np.random.default_rng(0).normal(0, 0.6, (20, 3)) + (0, 0, 4)
    K = np.array([[1600.0, 0, 540], [0, 1610, 960], [0, 0, 1]])
    distortion = np.array([-0.05, 0.14, 0.002, -0.003])
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, distortion)[0][:, 0]
    np.testing.assert_allclose(project(points, K, distortion), expected)


def test_a_square_stands_upright():
    keypoints = np.zeros((17, 2)) + (400, 300)
    keypoints[8] = 500, 300  # the trunk lies to the right
    keypoints[3] = 200, 300
    square = square_about(keypoints)
    assert square.centre.tolist() == [400, 300] and square.up.tolist() == [1, 0]
    assert square.half == pytest.approx(1.25 * 200)


def test_heavys_own_poses_of_people_where_they_are(view):
    """Both people in one frame of a camera that is rolled by 26 degrees: turned back, they lean as in the image."""
    source = Excerpt(view.path, 1)
    aimed = truth(view)
    first = replace(aimed, **{n: getattr(aimed, n)[[0, 100]] for n in ("frames", "keypoints", "poses", "levels")})
    found = heavy_landmarks(source, first)
    for pose, true in zip(found.poses, first.poses):
        trunks = [p[8, :2] - p[0, :2] for p in (pose, true)]
        assert pose_errors.angle(*trunks) < 8 and abs(trunks[1][0]) > 0.3 * abs(trunks[1][1])
    score = score_view(found, view)
    assert all(30 < person["p_mpjpe_found"] < 110 for person in score["people"])


def bench(*arguments):
    command = [sys.executable, ROOT / "tools/bench/footage.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.weekly
def test_the_command(tmp_path):
    pytest.importorskip("mediapipe")
    done = bench("--detectors", "mediapipe", "--world-landmarks", "--frames", 40, "--stride", 8, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "footage.json").read_text())
    assert results["machine"]["cpu"] and results["versions"]["numpy"] == np.__version__
    assert results["frames"] == 5 and results["fps"] == 7.5
    assert list(results["results"]) == ["mediapipe", "MediaPipe world", "heavy world, mediapipe"]
    for name, result in results["results"].items():
        assert name in done.stdout and list(result["views"]) == ["cam01", "cam02", "cam03", "cam04"]
        assert set(result["mean"]) | {"feet"} == set(results["definitions"])
        woman = result["views"]["cam01"]["people"][1]
        assert woman["found_well"] == 1 and woman["pck5"] > 0.8 and woman["p_mpjpe"] < 90
    assert results["results"]["mediapipe"]["views"]["cam04"]["up_error"] < 45
    image = cv2.imread(str(tmp_path / "footage_mediapipe.png"))
    assert len(image) == 4 * 360
    green = (image[..., 1] > 200) & (image[..., 0] < 120) & (image[..., 2] < 90)
    magenta = (image[..., 2] > 200) & (image[..., 1] < 110) & (image[..., 0] > 150)
    assert green.sum() > 5000 and magenta.sum() > 1000


@pytest.mark.weekly
def test_few_frames_count_too(tmp_path, monkeypatch, capsys):
    """Two frames of a tenth of a second: people are there for too short a time to be told from errors, elsewhere."""
    done = bench("--detectors", "fast", "--frames", 8, "--stride", 4, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "footage.json").read_text())["results"]["fast"]["mean"]["found"] > 0.8

    lifted = importlib.import_module("tools.bench.footage").lifted
    film = make_video(tmp_path / "nobody.mp4", 9)
    assert not len(lifted(options_of({"detector": "fast"}), VideoSource(film), None).frames)
    assert capsys.readouterr().out == "fast: nobody.mp4: nobody is seen for 0.13 s in any of its 9 frames\n"


def test_an_excerpt_is_part_of_the_film():
    whole, part = Excerpt(FOLDER / "cam01.mp4", 3), Excerpt(FOLDER / "cam01.mp4", 3, 2)
    frames = [frame for _, _, frame in whole]
    assert (whole.frames, part.frames, part.fps) == (3, 2, 30)
    for (number, seconds, frame), expected in zip(part, (0, 2)):
        assert number == expected / 2 and seconds == pytest.approx(expected / 60)
        np.testing.assert_array_equal(frame, frames[expected])


def test_bad_input_is_one_line(tmp_path, monkeypatch):
    done = bench("--frames", "0", "--out", tmp_path / "out")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr.startswith("error: argument --frames: expected a whole number")
    assert len(done.stderr.strip().splitlines()) == 1

    main = importlib.import_module("tools.bench.footage").main
    monkeypatch.setattr("sys.argv", ["footage.py", "--folder", str(tmp_path)])
    with pytest.raises(UserError, match="truth.npz: no such file"):
        main()
    (tmp_path / "truth.npz").write_bytes((FOLDER / "truth.npz").read_bytes()[:2000])
    (tmp_path / "bystanders.json").write_text("{}")
    with pytest.raises(UserError, match="truth.npz: is truncated or not an .npz file"):
        main()
