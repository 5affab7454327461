"""Up, ground, sizes and smoothness of what is made of real footage, against its truth."""

import json
from itertools import islice

import numpy as np
import pytest
from footage import (
    CAMERAS,
    FOLDER,
    FPS,
    KEYPOINTS,
    LIMBS,
    SIZE,
    camera_poses,
    match,
    on_ground,
    projected,
    truth,
    up_error,
)
from test_video_parts import before_camera, walk  # noqa: F401
from test_vis import refusal, vis

from lib.errors import UserError
from lib.video import lift_video
from lib.video.io.source import VideoSource
from lib.video.io.writer import VideoWriter
from lib.video.lift.placement import FOCAL, roots, steady
from lib.video.lift.smoothing import smooth
from lib.video.lift.stature import stature
from lib.video.lift.world import ANKLE, settle
from lib.video.pipeline import options_of
from lib.video.poses import Person

FOCUS = FOCAL * max(SIZE)
TIMES = np.arange(100) / FPS


def person(number, camera, keypoints=None):
    """A `Person` of poses (n, 17, 3) m before the camera."""
    frames = np.arange(len(camera))
    camera = np.array(camera, np.float32)
    return Person(number, frames, keypoints, np.zeros(len(frames), bool), camera, np.empty_like(camera))


def people_of(camera, error=0.0):
    """The two true people, as if lifted: of unknown size and distance, each joint off by `error` m (std), slowly."""
    rng, people = np.random.default_rng(camera), []
    for number, poses in enumerate(camera_poses(camera)):
        places = poses[..., :2] / poses[..., 2:] * FOCUS + np.array(SIZE) / 2
        keypoints = np.concatenate([places, np.ones((100, 17, 1))], -1)
        off = rng.normal(0, error, (12, 17, 3))
        frame, key = np.arange(100), np.linspace(0, 99, 12)
        off = np.stack([np.interp(frame, key, axis) for axis in off.reshape(12, -1).T], 1).reshape(100, 17, 3)
        lifted = (poses - poses[:, :1]) * (1.1, 0.9)[number] + off - off[:, :1]
        root = steady(roots(lifted, keypoints, *SIZE, FOCUS), TIMES)
        people.append(person(number + 1, lifted + root[:, None], keypoints))
    return people


@pytest.mark.parametrize("camera", range(4), ids=CAMERAS)
@pytest.mark.parametrize("error", [0.0, 0.04])
def test_true_poses_stand_upright_on_the_ground(camera, error):
    """The man leans and kicks all the time; the cameras are rolled by up to 26 degrees."""
    people = people_of(camera, error)
    rotation, shift = settle(people, TIMES)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert up_error(camera, rotation) < 5
    for number, found in enumerate(people):
        lowest = found.world[:, [3, 6], 2].min(1)[on_ground(number)] - ANKLE
        assert abs(np.median(lowest)) < 0.02 and np.mean(np.abs(lowest) < 0.05) > (0.9 if error else 0.99)
        np.testing.assert_allclose(found.world, found.camera @ rotation.T + shift, atol=1e-3)
        places = found.camera[..., :2] / found.camera[..., 2:] * FOCUS + np.array(SIZE) / 2
        assert np.median(np.linalg.norm(places - found.keypoints[..., :2], axis=-1)) < (40 if error else 8)


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    """{camera: its `Poses`}, and without smoothing: of the default detector's keypoints, by the shipped network."""
    folder, stored = tmp_path_factory.mktemp("keypoints"), np.load(KEYPOINTS)
    made = {}
    for number, name in enumerate(CAMERAS):
        parts = {key: stored[f"{name}_{key}"] for key in ("keypoints", "frame", "person")}
        np.savez(folder / f"{name}.npz", layout="h36m17", **parts)
        video = FOLDER / f"{name}.mp4"
        made[number] = [lift_video(video, keypoints=folder / f"{name}.npz", smooth=s) for s in (None, 0)]
    return made, folder


def test_footage_is_upright_and_stands_on_the_ground(lifted):
    for camera, (poses, _) in lifted[0].items():
        assert up_error(camera, poses.rotation) < 5
        for number, found in enumerate(match(poses, camera)):
            lowest = found.world[:, [3, 6], 2].min(1)[on_ground(number)[found.frames]] - ANKLE
            assert np.mean(np.abs(lowest) < 0.05) > 0.95


def velocities(poses, camera):
    """Of poses, of the truth, and of keypoints and the true ones: pairs (m, 12, 2 or 3) for each person."""
    pairs = []
    for number, found in enumerate(match(poses, camera)):
        true, places = camera_poses(camera)[number][found.frames], projected(camera)[number][found.frames]
        relative = found.camera - found.camera[:, :1], true - true[:, :1]
        for kind in (relative, (found.keypoints[..., :2], places)):
            pairs.append([np.gradient(np.asarray(x, float)[:, LIMBS], axis=0) for x in kind])
    return pairs


def lag(pairs, reach=5):
    """Frames by which the first of pairs (m, ...) comes after the second: where their correlation is highest."""
    shifts = range(-reach, reach + 1)
    total = np.zeros((3, len(shifts)))
    for late, early in pairs:
        still = early[reach:-reach]
        for column, shift in enumerate(shifts):
            moved = late[reach + shift : len(late) - reach + shift]
            total[:, column] += (moved * still).sum(), (moved**2).sum(), (still**2).sum()
    return shifts[int(np.argmax(total[0] / np.sqrt(total[1] * total[2])))]


def test_smoothing_halves_jitter_and_delays_nothing(lifted):
    errors, pairs, overlay, against_raw = [], [], [], []
    for camera, (smoothed, raw) in lifted[0].items():
        for found, rough, true in zip(match(smoothed, camera), match(raw, camera), camera_poses(camera)):
            rows = [p.camera - p.camera[:, :1] for p in (found, rough)] + [(true - true[:, :1])[found.frames]]
            second = [np.diff(np.asarray(x, float)[:, LIMBS], 2, axis=0) * FPS**2 for x in rows]
            errors.append([np.linalg.norm(x - second[2], axis=-1).mean() for x in second[:2]])
            against_raw.append([np.gradient(x[:, LIMBS], axis=0) for x in rows[:2]])
        found = velocities(smoothed, camera)
        pairs += found[::2]
        overlay += found[1::2]
    now, before = np.mean(errors, axis=0)
    assert now < 0.5 * before and now < 12  # m/s^2
    assert lag(pairs) == lag(overlay) == lag(against_raw) == 0


def test_the_height_of_a_person_sets_the_scale(lifted):
    made, folder = lifted
    plain, _ = made[3]
    poses = lift_video(FOLDER / "cam04.mp4", keypoints=folder / "cam04.npz", height=183)
    assert stature(poses.people[0]) == pytest.approx(1.83, abs=0.005)
    scale = 1.83 / stature(plain.people[0])
    np.testing.assert_allclose(poses.shift, scale * plain.shift, rtol=1e-5)
    for before, after in zip(plain.people, poses.people):
        np.testing.assert_allclose(after.world, scale * before.world, atol=2e-3)
    (woman,) = lift_video(FOLDER / "cam04.mp4", keypoints=folder / "cam04.npz", height=160, focus=2).people
    assert woman.id == 2 and stature(woman) == pytest.approx(1.6, abs=0.005)


def test_the_report_says_what_was_done(tmp_path):
    stored = np.load(KEYPOINTS)
    rows = stored["cam02_frame"] < 40
    parts = {key: stored[f"cam02_{key}"][rows] for key in ("frame", "person")}
    np.savez(tmp_path / "found.npz", keypoints=stored["cam02_keypoints"][rows] / [4, 4, 1], layout="h36m17", **parts)
    with VideoWriter(tmp_path / "small.mp4", SIZE[0] // 4, SIZE[1] // 4, FPS) as film:
        for _, seconds, image in islice(VideoSource(FOLDER / "cam02.mp4", SIZE[1] // 4), 40):
            film.write(image, seconds)
    options = ("--video", "small.mp4", "--keypoints", "found.npz", "-o", "out")
    vis(tmp_path, *options, "--smooth", 0, "--height", 170)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["smoothing"] == {"method": "none"} and report["people"]["1"]["height_m"] == 1.7
    assert abs(report["camera"]["roll_degrees"] + 1.6) < 5 and abs(report["camera"]["tilt_down_degrees"] - 17.3) < 5
    assert "height: 30.0: input should be greater than 50" in refusal(tmp_path, *options, "--height", 30)
    for key, value in (("height", 300), ("height", np.nan), ("height", "tall"), ("smooth", -1), ("smooth", np.inf)):
        with pytest.raises(UserError, match=f"^{key}: .*: input should be"):
            options_of({key: value})


def test_sizes_make_people_share_a_ground_but_not_one_on_a_roof(walk):  # noqa: F811
    """A child looks like a far adult: of standard size, feet below the ground. A man on a roof stays there."""
    camera, _ = before_camera(walk, tilt=0.2)
    turn = np.array([0, np.cos(0.2), np.sin(0.2)])  # down
    adult = camera + 1.0 * turn
    child, roof = 1.4 * adult, camera - 1.5 * turn
    people = [person(n, joints) for n, joints in enumerate((adult, child, roof), 1)]
    times = np.arange(len(camera)) / 30
    settle(people, times)
    feet = [np.percentile(found.world[:, [3, 6], 2].min(1), 20) for found in people]
    assert abs(feet[0] - ANKLE) < 0.03 and abs(feet[1] - ANKLE) < 0.03 and feet[2] > 1.5
    assert stature(people[1]) == pytest.approx(stature(people[0]), rel=0.02)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_frame_or_two_and_nobody_who_stands(walk, frames):  # noqa: F811
    camera, _ = before_camera(walk)
    middle = camera[:frames, :1]
    lying = (camera[:frames] - middle) @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]) + middle + [0, 1, 0]
    for poses, most in ((camera[:frames], 6), (lying, 6)):
        found = person(1, poses)
        rotation, _ = settle([found], np.arange(frames) / 30)
        assert np.isfinite(found.world).all() and np.degrees(np.arccos(-rotation[2, 1])) < most
    found = person(1, np.tile(lying, (400, 1, 1)))
    rotation, _ = settle([found], np.arange(400 * frames) / 30)
    assert np.degrees(np.arccos(-rotation[2, 1])) < 10


def test_a_fast_kick_keeps_its_speed():
    """The kicking man's feet, and a foot that is not seen for a moment."""
    true = truth()["joints"][0]
    smoothed = true.copy()
    smooth(smoothed, np.ones((100, 17)), TIMES)
    before, after = (np.linalg.norm(np.gradient(x[:, [3, 6]], axis=0), axis=-1).max() for x in (true, smoothed))
    assert 0.9 < after / before <= 1.01
    hidden, confidence = true.copy(), np.ones((100, 17))
    hidden[40:44, 3] += [0.3, 0, 0.2]
    confidence[40:44, 3] = 0
    smooth(hidden, confidence, TIMES)
    assert np.linalg.norm(hidden - true, axis=-1)[40:44, 3].max() < 0.1


@pytest.mark.parametrize("fps", [12, 30, 60, 120, "varying"])
def test_the_default_filter_passes_slow_and_stops_fast_whatever_the_frame_rate(fps):
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.015, 0.05, 400)) if fps == "varying" else np.arange(400) / fps
    slow = np.sin(2 * np.pi * 0.5 * times)[:, None, None] * [1.0, 2, 3]
    points = slow + rng.normal(0, 0.1, slow.shape)
    smooth(points, np.ones((400, 1)), times)
    noise = (points - slow)[5:-5].std() / 0.1
    assert noise < {12: 0.95, 30: 0.75, 60: 0.55, 120: 0.4, "varying": 0.8}[fps]
    steady_ones = slow.copy()
    smooth(steady_ones, np.ones((400, 1)), times)
    assert np.abs(steady_ones - slow)[5:-5].max() < 0.01
