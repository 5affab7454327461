"""The rendered panels: joints are where they belong, people fill the 3D view, and it is quick."""

import time

import cv2
import numpy as np
import pytest
from conftest import ROOT

from lib.body.skeleton import JOINTS
from lib.video.poses import Person, Poses
from lib.video.show.render import _LEFT, _RIGHT, Renderer

FRAMES = 120
GREY = np.full((360, 640, 3), 128, np.uint8)
LEFT_KNEE, RIGHT_KNEE = JOINTS.index("left knee"), JOINTS.index("right knee")


@pytest.fixture(scope="module")
def motion():
    """Clips (n, 17, 3) by name at 30 a second, m, z up, feet on the ground, around the origin."""
    with np.load(ROOT / "data" / "cmu17_large.npz") as arrays:
        names, start = arrays["name"].tolist(), arrays["start"]
        root, joints = arrays["root"], arrays["joints"]

    def clip(name):
        rows = slice(start[names.index(name)], start[names.index(name) + 1])
        world = ((root[rows, None] + joints[rows].astype(float)) * 1e-4)[::2][:FRAMES]
        world[..., 2] -= np.percentile(world[..., 2].min(1), 2)
        world[..., :2] -= world[:, :1, :2].mean(0)
        return world

    return {
        "traffic": clip("cmu_train_directing_traffic_1"),
        "signal": clip("cmu_train_basketball_signal_1"),
    }


def poses_of(*tracks, width=640, height=360):
    """`Poses` of (frames, world[, bridged]) as a camera sees them that stands 6 m away, 1.5 m up, tilted down 5 degrees."""
    tilt, focal, shift = np.radians(5), 1.1 * width, np.array([0, -6, 1.5])
    rotation = np.array([[1, 0, 0], [0, -np.sin(tilt), np.cos(tilt)], [0, -np.cos(tilt), -np.sin(tilt)]])
    people = []
    for number, (frames, world, *bridged) in enumerate(tracks, 1):
        camera = (world - shift) @ rotation
        places = focal * camera[..., :2] / camera[..., 2:] + [width / 2, height / 2]
        keypoints = np.concatenate([places, np.ones((*places.shape[:2], 1))], axis=-1)
        arrays = (array.astype(np.float32) for array in (keypoints, camera, world))
        keypoints, camera, world = arrays
        bridged = bridged[0] if bridged else np.zeros(len(frames), bool)
        people.append(Person(number, np.asarray(frames), keypoints, bridged, camera, world))
    return Poses("x.mp4", np.arange(FRAMES) / 30, width, height, focal, rotation, shift, people)


@pytest.fixture
def two(motion):
    frames = np.arange(FRAMES)
    return poses_of((frames, motion["traffic"] + [-0.9, 0, 0]), (frames, motion["signal"] + [0.9, 0.8, 0]))


def has_colour(panel, place, colour, reach=3):
    """Whether there is that colour within a few px of a place."""
    x, y = np.round(place).astype(int)
    part = panel[y - reach : y + reach + 1, x - reach : x + reach + 1].astype(int)
    return (np.abs(part - colour).max(-1) < 12).any()


def panels_of(renderer, number, rgb=GREY):
    rendered = renderer.render(number, rgb)
    assert rendered.shape == (*renderer.size[::-1], 3) and rendered.dtype == np.uint8
    return np.split(rendered, [renderer.widths[0]], axis=1)


def test_joints_are_drawn_where_they_are_in_the_colour_of_their_side(two):
    renderer = Renderer(two)
    assert renderer.size[1] == 480 and renderer.size[0] % 2 == 0
    for number in (0, 50, 100):
        video, world = panels_of(renderer, number)
        for person in two.people:
            places, _ = renderer.views[number].project(person.world[number].astype(float))
            for joint, colour in ((LEFT_KNEE, _LEFT), (RIGHT_KNEE, _RIGHT)):
                assert has_colour(video, person.keypoints[number, joint, :2] * 480 / 360, colour)
            nearer = min((LEFT_KNEE, RIGHT_KNEE), key=lambda j: person.camera[number, j, 2])
            assert has_colour(world, places[nearer], {LEFT_KNEE: _LEFT, RIGHT_KNEE: _RIGHT}[nearer], 8)


def drawn(renderer, empty, number):
    """Where the 3D panel is not as without people."""
    difference = np.abs(panels_of(renderer, number)[1].astype(int) - empty).max(-1)
    return np.argwhere(difference > 60)


def test_people_fill_the_3d_view_and_stay_within(two):
    renderer = Renderer(two)
    empty = renderer._empty.astype(int)
    places = np.concatenate([drawn(renderer, empty, number) for number in range(0, FRAMES, 10)])
    low, high = places.min(0), places.max(0)
    height, width = empty.shape[:2]
    assert not renderer.views.moving
    assert (high - low)[0] > 0.6 * height and (high - low)[1] > 0.5 * width
    assert low.min() > 0 and high[0] < height - 1 and high[1] < width - 1


def test_the_view_follows_smoothly_who_walks_far(motion):
    frames = np.arange(FRAMES)
    far = np.linspace(0, 25, FRAMES)[:, None, None] * [0.3, 1, 0]
    poses = poses_of((frames, motion["traffic"] + far))
    renderer = Renderer(poses)
    assert renderer.views.moving
    size = np.array([renderer.widths[1], renderer.size[1]])
    heights = []
    for number in frames:
        places, _ = renderer.views[number].project(poses.people[0].world[number].astype(float))
        assert (places > 0).all() and (places < size).all()
        heights.append(np.ptp(places[:, 1]) / size[1])
    assert min(heights) > 0.12 and np.median(heights) > 0.2
    eyes = np.stack([renderer.views[number].eye for number in frames])
    assert np.abs(np.diff(eyes, 2, axis=0)).max() < 0.15  # m a frame, a frame: no jerks
    assert not np.array_equal(panels_of(renderer, 0)[1], panels_of(renderer, 100)[1])


def test_one_misjudged_frame_does_not_shrink_the_view(motion):
    frames = np.arange(FRAMES)
    usual = Renderer(poses_of((frames, motion["signal"])))
    broken = motion["signal"].copy()
    broken[60] += [0, 60, 0]
    renderer = Renderer(poses_of((frames, broken)))
    ratio = usual.views[0].project(np.zeros(3))[1] / renderer.views[0].project(np.zeros(3))[1]
    assert ratio > 0.9
    renderer.render(60, GREY)


def test_who_leaves_is_no_longer_drawn(motion):
    stays, leaves = (np.arange(FRAMES), motion["signal"]), (np.arange(40), motion["traffic"][:40] + [1.2, 0, 0])
    renderer = Renderer(poses_of(stays, leaves))
    empty = renderer._empty.astype(int)
    counts = [len(drawn(renderer, empty, number)) for number in (39, 40)]
    assert 0.3 < counts[1] / counts[0] < 0.7
    assert np.array_equal(renderer.views[39].eye, renderer.views[40].eye)


def test_without_people_there_is_the_video_and_the_ground():
    renderer = Renderer(poses_of())
    video, world = panels_of(renderer, 7)
    assert (video == 128).all() and world.std() > 3


def test_what_is_interpolated_is_dashed_and_faint(motion):
    frames = np.arange(FRAMES)
    bridged = np.isin(frames, [10])
    renderer = Renderer(poses_of((frames, motion["signal"], bridged)))
    sure, guessed = panels_of(renderer, 9), panels_of(renderer, 10)
    for panel, other in zip(sure, guessed):
        colours = [(np.abs(p.astype(int) - _LEFT).max(-1) < 12).sum() for p in (panel, other)]
        assert colours[0] > 100 and colours[1] < 0.1 * colours[0]
    touched = [(panel != 128).any(-1).sum() for panel in (sure[0], guessed[0])]
    assert 0.05 < touched[1] / touched[0] < 0.7


@pytest.mark.parametrize(
    "width, height, expected",
    [(320, 240, (640, 640, 480)), (3840, 2160, (1920, 1920, 1080)), (1080, 1920, (608, 864, 1080))],
)
def test_small_videos_are_blown_up_and_large_ones_limited(motion, width, height, expected):
    poses = poses_of((np.arange(FRAMES), motion["signal"]), width=width, height=height)
    renderer = Renderer(poses)
    assert (*renderer.widths, renderer.size[1]) == expected
    video, _ = panels_of(renderer, 3, np.full((height, width, 3), 128, np.uint8))
    scale = expected[2] / height
    assert has_colour(video, poses.people[0].keypoints[3, LEFT_KNEE, :2] * scale, _LEFT, 4)
    assert Renderer(poses, panel_height=201).size[1] == 200


@pytest.mark.parametrize("axes", [np.diag([1, -1, -1]), np.eye(3)[[0, 1, 2]]])
def test_a_camera_that_looks_straight_down_or_up_is_no_trouble(motion, axes):
    poses = poses_of((np.arange(FRAMES), motion["signal"]))
    object.__setattr__(poses, "rotation", axes.astype(float))
    renderer = Renderer(poses)
    places, _ = renderer.views[0].project(poses.people[0].world[0].astype(float))
    assert np.ptp(places[:, 1]) > 0.5 * renderer.size[1]


def test_arrays_may_be_memory_mapped(tmp_path, two):
    people = []
    for person in two.people:
        arrays = {}
        for key in ("frames", "keypoints", "bridged", "camera", "world"):
            path = tmp_path / f"{person.id}_{key}.npy"
            np.save(path, getattr(person, key))
            arrays[key] = np.load(path, mmap_mode="r")
        people.append(Person(person.id, **arrays))
    mapped = Poses(
        *(getattr(two, key) for key in ("source", "times", "width", "height", "focal", "rotation", "shift")), people
    )
    np.testing.assert_array_equal(Renderer(mapped).render(20, GREY), Renderer(two).render(20, GREY))


def test_rendering_is_quick(two):
    """In units of what it takes to resize and copy the picture, so that a busy machine does not matter."""
    renderer = Renderer(two)
    renderer.render(0, GREY)

    def fastest(call, times=15):
        taken = []
        for number in range(times):
            began = time.perf_counter()
            call(number)
            taken.append(time.perf_counter() - began)
        return min(taken)

    unit = fastest(lambda _: cv2.resize(GREY, renderer.size, interpolation=cv2.INTER_LINEAR).copy())
    assert fastest(lambda number: renderer.render(number, GREY)) < 10 * unit
