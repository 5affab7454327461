"""From detections to poses in the world: tracks, gaps, windows, cameras, filters, and what is kept on disk."""

import time

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lib.body.skeleton import root_relative
from lib.config import validate
from lib.data.convert.cmu_views import read_motion
from lib.errors import UserError
from lib.model.opening import Opened
from lib.model.registry import build_model
from lib.video.detection import Detection
from lib.video.export.quality import quality
from lib.video.lift.lifter import Lifter
from lib.video.lift.placement import roots, steady
from lib.video.lift.smoothing import check_cutoff, smooth
from lib.video.lift.turned import where_heads_point
from lib.video.lift.world import settle
from lib.video.poses import Person
from lib.video.track.detections import Detections
from lib.video.track.gaps import bridge, fill
from lib.video.track.tracker import Track, Tracker, link

FPS = 30
WHITE = np.zeros((360, 640, 3), np.uint8)


def person(x, y=150, size=100, keypoints=None):
    box = np.array([x - size / 4, y - size / 2, x + size / 4, y + size / 2], np.float32)
    points = np.tile(np.float32([x, y, 1]), (17, 1)) if keypoints is None else keypoints
    return Detection(points, box, 0.9)


def follow(places):
    """Tracks people at places (frames, people) of x, NaN where nobody is seen; {person: frames} and who is where."""
    tracker, seen = Tracker(FPS, {}, {}), []
    for number, row in enumerate(places):
        found = [person(x) for x in row if np.isfinite(x)]
        numbers, late = tracker.update(found, WHITE, number / FPS)
        for before, known in late:
            seen[-1][[x == before.keypoints[0, 0] for x in places[number - 1]].index(True)] = known
        numbers = iter(numbers)
        seen.append([next(numbers) if np.isfinite(x) else None for x in row])
    people = link(tracker.tracks)
    return [[people.get(number) for number in row] for row in seen]


@pytest.fixture(scope="module")
def walk():
    """A walk of 200 frames at 30 per second, m, z up: (200, 17, 3)."""
    motion = read_motion("data/cmu17_large.npz")
    first = next(
        i
        for i, (a, n) in enumerate(zip(motion["action"], np.diff(motion["start"])))
        if a in ("walking", "walk") and n > 400
    )
    rows = slice(motion["start"][first], motion["start"][first] + 400, 2)
    return (motion["root"][rows, None] + motion["joints"][rows].astype(float)) * 1e-4


def before_camera(joints, tilt=0.0, focal=600.0):
    """Joints as a camera 5 m away sees them, tilted down by `tilt` rad: camera axes, m; keypoints, px of 640 x 360."""
    middle = joints[:, 0].mean(0)
    axes = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    turn = Rotation.from_rotvec([tilt, 0, 0]).as_matrix() @ axes
    camera = (joints - middle) @ turn.T + [0.2, 0.1, 5.0]
    places = camera[..., :2] / camera[..., 2:] * focal + [320, 180]
    return camera, np.concatenate([places, np.ones_like(places[..., :1])], -1).astype(np.float32)


def test_two_people_who_pass_each_other_keep_their_numbers():
    t = np.arange(90)
    who = follow(np.stack([100 + 5.0 * t, 545 - 5.0 * t], axis=1))
    for column in (0, 1):
        numbers = {row[column] for row in who}
        assert len(numbers) == 1 and None not in numbers
    assert {row[0] for row in who} != {row[1] for row in who}


def test_someone_behind_a_tree_comes_back_as_the_same_person():
    x = 100 + 3.0 * np.arange(150)
    x[60:110] = np.nan  # 1.7 s
    people = {row[0] for row in follow(x[:, None]) if row[0] is not None}
    assert people == {1}


def test_who_comes_up_from_behind_a_wall_is_the_one_who_went_there():
    """Only a third of them is seen at first."""
    tracker, gone = Tracker(FPS, {}, {}), range(60, 110)
    for number in set(range(170)) - set(gone):
        hidden = 10 - number + gone.stop if gone.stop <= number < gone.stop + 10 else 0  # tenths
        found = person(100 + number, 150 + 3 * hidden, 100 - 7 * hidden)
        tracker.update([found], WHITE, number / FPS)
    assert len(tracker.tracks) == 2 and set(link(tracker.tracks).values()) == {1}


def test_someone_else_far_away_is_another_person():
    x = np.concatenate([np.full(40, 60.0), np.full(20, np.nan), np.full(40, 600.0)])
    who = follow(x[:, None])
    assert who[20][0] == 1 and who[90][0] == 2


def test_a_person_for_an_instant_is_none():
    assert follow(np.array([[100.0]] * 4 + [[np.nan]] * 4)) == [[None]] * 8


def test_numbers_of_a_source_that_tracks_people_are_kept():
    tracker = Tracker(FPS, {}, {})
    found = [person(100)._replace(person=7), person(105)._replace(person=3)]
    assert tracker.update(found, WHITE, 0.0) == ([0, 1], [])
    assert tracker.update(found[::-1], WHITE, 0.1) == ([1, 0], [])


def test_numbers_of_a_source_are_the_peoples_numbers_also_after_an_interruption(tmp_path):
    """7 leaves, 9 comes to the same place: they are two people, whatever `link` would think."""

    def add(detections, frames):
        detections.open()
        tracker = Tracker(FPS, detections.tracks, detections.sources)
        for number in frames:
            found = [person(100)._replace(person=7)] if number < 30 else [person(102)._replace(person=9)]
            detections.add(number / FPS, found, *tracker.update(found, WHITE, number / FPS))
        detections.save(complete=frames.stop == 60)
        detections.close()

    add(Detections(tmp_path, "a"), range(35))
    add(Detections(tmp_path, "a"), range(35, 60))
    people, rows = Detections(tmp_path, "a").people()
    assert {number: rows["frame"][chosen].tolist() for number, chosen in people.items()} == {
        7: [*range(30)],
        9: [*range(30, 60)],
    }


def test_linking_a_crowd_takes_no_time():
    """6,000 tracks, of which every second goes on with the one before it; 36 million pairs could be compared."""
    tracks = {}
    for n in range(6000):
        place = np.array([2000.0 * (n // 2 % 7), 100.0, 100.0])
        start = n // 2 * 0.5 + n % 2 * 1.5
        tracks[n] = Track(start, start + 1.0, place, place, np.ones((12, 6)))
    begin = time.perf_counter()
    people = link(tracks)
    assert time.perf_counter() - begin < 10
    assert people[0] == people[1] == 1 and people[2] == people[3] == 2


def test_short_gaps_are_bridged_and_long_ones_left():
    times = np.arange(40) / 10
    found = np.array([0, 1, 2, 6, 7, 20, 21])
    frames = bridge(found, times, longest=0.5)
    assert frames.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 20, 21]
    assert bridge(found, times, longest=0).tolist() == found.tolist()
    keypoints = np.zeros((7, 17, 3), np.float32)
    keypoints[..., 0], keypoints[..., 2] = np.array([0, 1, 2, 6, 7, 20, 21])[:, None], 0.9
    out = np.full((10, 17, 3), np.nan, np.float32)
    fill(frames, found, keypoints, out)
    np.testing.assert_allclose(out[:, 0, 0], frames, atol=1e-5)
    np.testing.assert_allclose(out[:, 0, 2], [0.9, 0.9, 0.9, 0, 0, 0, 0.9, 0.9, 0.9, 0.9])


class Linear(torch.nn.Module):
    """A network whose poses are its keypoints, so that windows must agree wherever they are cut."""

    def forward(self, x):
        return torch.cat([x[..., :2], x[..., :1] * 0.5], dim=-1)


@pytest.mark.parametrize("frames", [1, 2, 5, 26, 27, 28, 100, 1000])
def test_windows_are_blended_without_seams(frames):
    config = validate({"maxlen": 27, "clip_len": 27, "no_conf": True, "flip": False})
    lifter = Lifter(Opened(Linear(), config, None), torch.device("cpu"), 27, "image", pixel=True)
    t = np.arange(frames)[:, None] / 20
    keypoints = np.ones((frames, 17, 3), np.float32)
    keypoints[..., 0] = 320 + 100 * np.sin(t + np.arange(17))
    keypoints[..., 1] = 180 + 90 * np.cos(2 * t + np.arange(17))
    out = np.full((frames, 17, 3), np.nan, np.float32)
    lifter.lift(keypoints, out, 640, 360, 600.0, FPS)
    places = root_relative(keypoints[..., :2] - [320, 180])
    assert np.isfinite(out).all()
    ratio = (out[:, 5, 0] / places[:, 5, 0])[np.abs(places[:, 5, 0]) > 20]
    assert np.abs(np.diff(ratio)).max(initial=0) < 0.02  # only the standard size, by window, changes a little


class Inputs(Linear):
    """A network that keeps what it was shown."""

    def forward(self, x):
        self.seen = x
        return super().forward(x)


@pytest.mark.parametrize("unseen", [(0, 0), (5000, -3000)])
def test_the_box_of_a_person_is_that_of_the_joints_seen(unseen):
    """Networks of whole images see a person as large whatever stands for a joint that the detector did not find."""
    config = validate({"maxlen": 27, "clip_len": 27, "no_conf": True, "flip": False})
    network = Inputs()
    lifter = Lifter(Opened(network, config, None), torch.device("cpu"), 27, "image")
    keypoints = np.ones((27, 17, 3), np.float32)
    keypoints[..., :2] = np.random.default_rng(0).uniform((300, 100), (350, 300), (27, 17, 2))
    keypoints[:, 4] = *unseen, 0  # as OpenPose writes it, and far away
    keypoints[3, 9] = *unseen, 0
    lifter.lift(keypoints, np.empty_like(keypoints), 640, 360, 600.0, FPS)
    height = network.seen[0][torch.from_numpy(keypoints[..., 2] > 0)][:, 1]
    assert (float(height.min()), float(height.max())) == pytest.approx((-0.5, 0.5), abs=1e-5)
    keypoints[..., 2] = 0  # a window of bridged frames, whose joints have places
    lifter.lift(keypoints, np.empty_like(keypoints), 640, 360, 600.0, FPS)
    assert network.seen.isfinite().all()


def test_windows_do_not_depend_on_how_many_go_through_at_once(monkeypatch):
    torch.manual_seed(0)
    config = validate({"maxlen": 9, "clip_len": 9, "dataset": "views", "no_conf": False, "depth": 1, "dim_feat": 16})
    lifter = Lifter(Opened(build_model(config).eval(), config, None), torch.device("cpu"), 9, "person")
    keypoints = np.random.default_rng(0).uniform(0.1, 1, (200, 17, 3)).astype(np.float32) * [640, 360, 1]
    results = []
    for batch in (1, 3, 64):
        monkeypatch.setattr("lib.video.lift.lifter._BATCH", batch)
        results.append(np.empty((200, 17, 3), np.float32))
        lifter.lift(keypoints.astype(np.float32), results[-1], 640, 360, 600.0, FPS)
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)
    np.testing.assert_allclose(results[0], results[2], atol=1e-5)


def test_a_video_of_many_frames_a_second_is_lifted_at_the_speed_the_network_knows():
    """At 240 a second every fourth frame is lifted and those between are interpolated."""
    torch.manual_seed(0)
    config = validate({"maxlen": 9, "clip_len": 9, "dataset": "views", "no_conf": False, "depth": 1, "dim_feat": 16})
    lifter = Lifter(Opened(build_model(config).eval(), config, None), torch.device("cpu"), 9, "person")
    keypoints = (np.random.default_rng(0).uniform(0.1, 1, (40, 17, 3)) * [640, 360, 1]).astype(np.float32)
    slow, fast = np.empty((40, 17, 3), np.float32), np.empty((160, 17, 3), np.float32)
    lifter.lift(keypoints, slow, 640, 360, 600.0, 60)
    lifter.lift(keypoints.repeat(4, axis=0), fast, 640, 360, 600.0, 240)
    np.testing.assert_allclose(fast[::4], slow, atol=1e-5)
    np.testing.assert_allclose(fast[2:-4:4], (slow[:-1] + slow[1:]) / 2, atol=1e-5)
    lifter.lift(keypoints[:3], fast[:3], 640, 360, 600.0, 240)  # fewer than are passed over
    assert np.isfinite(fast[:3]).all()


def test_people_are_put_where_their_keypoints_are(walk):
    camera, keypoints = before_camera(walk)
    found = roots(root_relative(camera), keypoints, 640, 360, 600.0)
    np.testing.assert_allclose(found, camera[:, 0], atol=2e-3)
    keypoints[50:55, :, 2] = 0
    missing = roots(root_relative(camera), keypoints, 640, 360, 600.0)
    assert np.isnan(missing[50:55]).all()
    np.testing.assert_allclose(steady(missing, np.arange(200) / FPS), camera[:, 0], atol=0.08)


@pytest.mark.parametrize("tilt", [0.0, 0.3, -0.2])
def test_the_world_is_upright_whatever_the_camera_looks_down(walk, tilt):
    camera, _ = before_camera(walk, tilt)
    walker = Person(1, np.arange(200), None, None, camera.astype(np.float32), np.empty((200, 17, 3), np.float32))
    rotation, _ = settle([walker], np.arange(200) / FPS)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    up = Rotation.from_rotvec([tilt, 0, 0]).as_matrix() @ [0, -1, 0]
    assert np.degrees(np.arccos(up @ rotation[2])) < 6
    assert 0.02 < np.percentile(walker.world[:, [3, 6], 2], 5) < 0.14  # m: ankles above the floor


def test_the_floor_is_under_who_stands_not_under_who_crouches(walk):
    camera, _ = before_camera(walk)
    crouching = camera * 0.4 + [0, 1.5, 0]  # lifted too low
    crouching[:, [2, 5]] = crouching[:, [1, 4]] + [0, 0, 0.2]
    people = [
        Person(n, np.arange(200), None, None, joints.astype(np.float32), np.empty((200, 17, 3), np.float32))
        for n, joints in enumerate((camera, crouching), 1)
    ]
    settle(people, np.arange(200) / FPS)
    assert 0.02 < np.percentile(people[0].world[:, [3, 6], 2].min(1), 10) < 0.15


@pytest.mark.parametrize("cutoff", [6.0, None])
def test_a_filter_takes_jitter_out_and_delays_nothing(walk, cutoff):
    camera, _ = before_camera(walk)
    noisy = camera + np.random.default_rng(0).normal(0, 0.02, camera.shape)
    smoothed = noisy.copy()
    smooth(smoothed, np.ones((200, 17)), np.arange(200) / FPS, cutoff)
    assert np.linalg.norm(smoothed - camera, axis=-1).mean() < 0.8 * np.linalg.norm(noisy - camera, axis=-1).mean()
    as_person = [Person(1, np.arange(len(p)), None, None, p, None) for p in (camera, noisy, smoothed)]
    true, before, after = (quality(p, FPS) for p in as_person)
    assert before.acceleration > 3 * after.acceleration and after.limb_deviation < before.limb_deviation
    assert true.limb_deviation < 8 and before.limb_deviation > 20  # mm
    with pytest.raises(UserError, match="smooth: 15 Hz must be"):
        check_cutoff(15.0, FPS)


def bodies(*directions):
    """Keypoints (n, 17, 3) of people whose bodies point to directions in the image, degrees clockwise from up."""
    angles, keypoints = np.radians(directions), np.zeros((len(directions), 17, 3))
    keypoints[:, 8, 0], keypoints[:, 8, 1] = 50 * np.sin(angles), -50 * np.cos(angles)
    return keypoints


def test_where_heads_point():
    for side, angle, turn in (("right", 90, 270), ("bottom", 180, 180), ("left", 270, 90)):
        assert where_heads_point([bodies(angle - 25, angle), bodies(angle + 25, angle, 0)]) == (side, turn)
        assert where_heads_point([bodies(angle, angle, angle, 0)]) is None  # someone falls, or stands on their hands
        assert where_heads_point([bodies(angle + 44)]) is None
    assert where_heads_point([bodies(0, 20)]) is None and where_heads_point([np.zeros((2, 17, 3))]) is None


def test_quality_of_a_ball_that_falls():
    fall = -0.5 * 9.81 * (np.arange(60) / FPS)[:, None, None] ** 2 * np.array([0.0, 1, 0])
    joints = np.tile(fall, (1, 17, 1)) + np.arange(17)[None, :, None]
    assert quality(Person(1, np.arange(60), None, None, joints, None), FPS).acceleration == pytest.approx(9.81, 1e-6)


def test_detections_go_on_where_they_were_saved(tmp_path):
    whole, parts = Detections(tmp_path / "whole", ["a"]), Detections(tmp_path / "parts", ["a"])
    whole.open()
    parts.open()
    tracker, first = Tracker(FPS, whole.tracks, whole.sources), Tracker(FPS, parts.tracks, parts.sources)
    for number in range(40):
        found = [person(100 + number)]
        whole.add(number / FPS, found, *tracker.update(found, WHITE, number / FPS))
        parts.add(number / FPS, found, *first.update(found, WHITE, number / FPS))
        if number == 24:
            parts.warn(["a crowd"])
            parts.save()
    parts.close()  # as if killed: frames 25 to 39 do not count
    again = Detections(tmp_path / "parts", ["a"])
    assert again.frames == 25 and not again.complete and again.warnings == ["a crowd"]
    again.warn(["a crowd", "a mirror"])
    assert again.warnings == ["a crowd", "a mirror"]
    again.open()
    second = Tracker(FPS, again.tracks, again.sources)
    for number in range(25, 40):
        found = [person(100 + number)]
        again.add(number / FPS, found, *second.update(found, WHITE, number / FPS))
    for detections in (whole, again):
        detections.save(complete=True)
    np.testing.assert_array_equal(whole.times(), again.times())
    (people, _), (people_again, rows_again) = whole.people(), again.people()
    assert list(people) == list(people_again) == [1]
    assert len(people[1]) == len(people_again[1]) == 40
    assert rows_again["frame"][people_again[1]][-1] == 39
    assert Detections(tmp_path / "parts", ["a"]).complete
    assert Detections(tmp_path / "parts", ["another video"]).frames == 0
    other = Detections(tmp_path / "parts", ["b"])
    assert not other.frames and Detections(tmp_path / "parts", ["a"]).frames == 40  # nothing goes before it is opened
    other.open()
    other.close()
    assert not Detections(tmp_path / "parts", ["a"]).frames
