"""Drawn people: that the truth is where the image shows it."""

import numpy as np
import pytest

from lib.body.camera import project
from lib.body.skeleton import LEFT, LIMBS, RIGHT
from lib.data.motion_files import read_motion_files
from lib.data.synthetic.body import COEFFICIENTS, NOTHING, SEGMENTS, Body
from lib.data.synthetic.render import render
from lib.data.synthetic.sequences import Stage
from lib.data.synthetic.visibility import HIDDEN, OUTSIDE, SEEN
from lib.errors import UserError

SIZE, FOCAL = (200, 260), 300.0


@pytest.fixture(scope="module")
def body():
    return Body()


@pytest.fixture(scope="module")
def motion():
    return read_motion_files(["data/accad17.npz"])


@pytest.fixture(scope="module")
def sequence(body, motion):
    return Stage(body, motion["joints"], motion["start"], []).draw(6, seed=3)


def facing(body, joints):
    """The body of one frame before a camera that looks along y: vertices, normals, joints in camera axes."""
    posed = body.pose(np.zeros(COEFFICIENTS), joints[None])
    turn = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32)
    offset = np.array([0, 0, 4.0], np.float32) - turn @ posed.joints[0, 0]
    return posed.vertices[0] @ turn.T + offset, posed.normals[0] @ turn.T, posed.joints[0] @ turn.T + offset


def test_limbs_take_the_directions_of_the_motion_and_keep_their_lengths(body, motion):
    joints = motion["joints"][::500]
    posed = body.pose(np.zeros(COEFFICIENTS), joints).joints
    for parent, child in LIMBS:
        ours, theirs = posed[:, child] - posed[:, parent], joints[:, child] - joints[:, parent]
        length = np.linalg.norm(ours, axis=-1)
        if child in (2, 3, 5, 6, 12, 13, 15, 16):
            cosine = (ours * theirs).sum(-1) / length / np.linalg.norm(theirs, axis=-1)
            assert cosine.min() > 0.999
            np.testing.assert_allclose(length, length[0], rtol=1e-4)


def test_sides_and_outside(body):
    """The person's left is the body's left; normals point away from the body."""
    joints = np.zeros((17, 3))
    joints[[4, 5, 6], 0], joints[[1, 2, 3], 0] = 0.1, -0.1
    joints[[11, 12, 13], 0], joints[[14, 15, 16], 0] = 0.2, -0.2
    joints[:, 2] = [0.9, 0.9, 0.5, 0.1, 0.9, 0.5, 0.1, 1.2, 1.45, 1.5, 1.7, 1.4, 1.1, 0.85, 1.4, 1.1, 0.85]
    posed = body.pose(np.zeros(COEFFICIENTS), joints[None])
    assert (posed.joints[0, list(LEFT), 0] > 0.05).all() and (posed.joints[0, list(RIGHT), 0] < -0.05).all()
    assert posed.joints[0, 9, 1] < -0.05  # the nose is in front: faces -y
    chest = body.segment == SEGMENTS.index("chest")
    centre = posed.vertices[0, chest].mean(0)
    assert ((posed.vertices[0, chest] - centre) * posed.normals[0, chest]).sum(1).mean() > 0.05


def test_what_is_drawn_is_where_the_joints_are(body, motion):
    vertices, normals, joints = facing(body, motion["joints"][200])
    background = np.full((SIZE[1], SIZE[0], 3), 0.25, np.float32)
    colours, light = np.ones((len(vertices), 3)), np.float32([0, 0, -1])
    drawn = render(vertices, normals, body.faces, colours, body.segment, FOCAL, light, background)
    assert (background == 0.25).all()  # it is not drawn into
    person = drawn.segments != NOTHING
    assert np.array_equal(person, drawn.depth < 50) and (drawn.image[~person] == 0.25).all()
    places = project(vertices, FOCAL, np.array(SIZE) / 2)
    lines, columns = np.nonzero(person)
    np.testing.assert_allclose(places.min(0), [columns.min(), lines.min()], atol=1.5)
    np.testing.assert_allclose(places.max(0), [columns.max() + 1, lines.max() + 1], atol=1.5)
    for joint in (1, 2, 4, 5, 7, 8, 9):
        x, y = project(joints[joint], FOCAL, np.array(SIZE) / 2).astype(int)
        assert person[y, x] and -0.3 < drawn.depth[y, x] - joints[joint, 2] < 0.05


def test_sequences_follow_from_the_seed_and_move_little_from_frame_to_frame(sequence, body, motion):
    again = Stage(body, motion["joints"], motion["start"], []).draw(6, seed=3)
    assert np.array_equal(sequence.keypoints, again.keypoints)
    assert all(np.array_equal(a, b) for a, b in zip(sequence.images, again.images))
    height, width = sequence.images[0].shape[:2]
    np.testing.assert_allclose(
        project(sequence.joints, sequence.focal, np.array([width, height]) / 2), sequence.keypoints, atol=1e-3
    )
    inside = ((sequence.keypoints >= 0) & (sequence.keypoints < [width, height])).all(-1)
    assert np.array_equal(sequence.visible == OUTSIDE, ~inside)
    assert set(np.unique(sequence.visible)) <= {SEEN, HIDDEN, OUTSIDE} and (sequence.visible == SEEN).mean() > 0.3


def test_a_frame_shows_nothing_of_the_one_before(body, motion):
    """Beside where a person is in any frame, only noise differs."""
    sequence = Stage(body, motion["joints"], motion["start"], []).draw(10, seed=11)
    first, last = (sequence.images[n].astype(float) for n in (0, -1))
    joints, size = sequence.keypoints, np.ptp(sequence.keypoints, axis=(0, 1)).max()
    y, x = np.mgrid[: first.shape[0], : first.shape[1]]
    away = np.ones(x.shape, bool)
    for frame in (0, -1):
        low, high = joints[frame].min(0) - 0.2 * size, joints[frame].max(0) + 0.2 * size
        away &= ~((x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1]))
    assert away.any() and np.abs(first - last)[away].mean() < 12


def test_a_damaged_body_is_refused(tmp_path):
    path = tmp_path / "body.npz"
    path.write_bytes(b"PK\x03\x04 no body")
    with pytest.raises(UserError, match="body.npz: is truncated or not an .npz file .*; restore it with: git checkout"):
        Body(path)
