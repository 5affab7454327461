"""Up from the upright lines of an image."""

import cv2
import numpy as np
import pytest
from footage import CAMERAS, FOLDER, SIZE, truth
from scipy.spatial.transform import Rotation

from lib.video.io.source import VideoSource
from lib.video.lift.placement import FOCAL
from lib.video.lift.verticals import lines, refine

WIDTH, HEIGHT, FOCUS = 960, 540, 900.0


def angle(a, b):
    return np.degrees(np.arccos(np.clip(a @ b, -1, 1)))


def street(turn, upright=12):
    """An image of posts, level beams and noise, as seen by a camera whose axes are turned by `turn`."""
    rng = np.random.default_rng(0)
    image = rng.integers(100, 130, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for _ in range(upright):
        foot = np.array([rng.uniform(-4, 4), 1.5, rng.uniform(6, 12)])
        draw(image, turn.apply([foot, foot - [0, 3, 0]]))
        draw(image, turn.apply([foot, foot + [rng.uniform(-2, 2), 0, 0.5]]))
    return image


def draw(image, ends):
    places = ends[:, :2] / ends[:, 2:] * FOCUS + [WIDTH / 2, HEIGHT / 2]
    cv2.line(image, *(tuple(map(int, p)) for p in places), (250, 250, 250), 3, cv2.LINE_AA)


@pytest.mark.parametrize("roll, tilt", [(0, 0), (25, -15), (-10, 20)])
def test_posts_correct_what_people_say(roll, tilt):
    turn = Rotation.from_euler("zx", [roll, tilt], degrees=True)
    up = turn.apply([0.0, -1, 0])
    found = lines(street(turn), FOCUS)
    for off in Rotation.from_euler("zx", [[0, 0], [2, 3], [-3, 2], [1, -4]], degrees=True):
        people = off.apply(up)
        assert angle(refine(people, *found), up) < max(1.0, 0.6 * angle(people, up))


def test_without_lines_people_decide():
    up = np.array([0.1, -0.99, 0.1]) / np.linalg.norm([0.1, -0.99, 0.1])
    for image in (np.full((90, 120, 3), 90, np.uint8), street(Rotation.identity(), upright=0)):
        assert angle(refine(up, *lines(image, FOCUS)), up) < 0.1


@pytest.mark.parametrize("camera", range(4), ids=CAMERAS)
def test_a_real_room_corrects_what_people_say(camera):
    _, _, image = next(iter(VideoSource(FOLDER / f"{CAMERAS[camera]}.mp4")))
    found, up = lines(image, FOCAL * max(SIZE)), truth()["R"][camera][:, 2]
    for tilt in (-5, 5):
        off = Rotation.from_euler("x", tilt, degrees=True).apply(up)
        assert angle(off, up) > 4.4 and angle(refine(off, *found), up) < 4.7
