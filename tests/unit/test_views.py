"""Views of motion capture for training, and that a video's poses are put back with the same geometry."""

import numpy as np
import pytest
import torch

from lib.body.camera import look_at_rotation
from lib.body.normalize import normalize_person
from lib.body.skeleton import limb_vectors
from lib.config import load_config
from lib.data.datasets import open_dataset
from lib.data.synthetic.random_views import STANDARD_SIZE, Motion, ViewSampler
from lib.errors import UserError
from lib.video.lift.placement import roots

CONFIG = "configs/pose3d/PoseMamba_wild.yaml"


@pytest.fixture(scope="module")
def reader():
    return open_dataset(load_config(CONFIG, ["data_stride=60"]))


def draw(reader, seed, count=64):
    torch.manual_seed(seed)
    shots = reader.shots[torch.randint(len(reader.shots), (count,))]
    return reader.views(shots)


def test_views_are_random_and_follow_from_the_seed(reader):
    (x, y), (again, _), (other, _) = draw(reader, 1), draw(reader, 1), draw(reader, 2)
    assert x.shape == y.shape == (64, reader.n_frames, 17, 3)
    assert torch.equal(x, again) and not torch.equal(x, other)
    assert x.isfinite().all() and y.isfinite().all()


def test_targets_are_root_relative_and_of_standard_size(reader):
    _, y = draw(reader, 3)
    size = limb_vectors(y).norm(dim=-1).sum(-1).mean(1)
    assert y[:, :, 0].abs().max() == 0
    np.testing.assert_allclose(size, STANDARD_SIZE, rtol=1e-4)


def test_a_joint_without_confidence_has_no_place(reader):
    x, _ = draw(reader, 4, 256)
    hidden = x[..., 2] == 0
    assert 0.01 < hidden.float().mean() < 0.4
    assert x[..., :2][hidden].abs().max() == 0


def test_left_stays_left(reader):
    """Right-handed axes all along: a person who faces the camera has their left hip at the image's right."""
    x, y = draw(reader, 5, 512)
    facing = (y[..., 9, 2] - y[..., 8, 2] < -0.08) & (x[..., [1, 4], 2] > 0.6).all(-1)
    assert facing.sum() > 100
    across = (x[..., 4, 0] - x[..., 1, 0])[facing]
    assert ((y[..., 4, 0] - y[..., 1, 0])[facing] > 0).float().mean() > 0.9
    assert (across > 0).float().mean() > 0.85


class Perfect:
    """A detector without errors."""

    def kinds(self, clips):
        return torch.zeros(clips)

    def definitions(self, joints, kinds):
        return joints

    def detect(self, joints, focal, half, seconds, kinds):
        self.focal, self.places = focal, joints[..., :2] / joints[..., 2:] * focal[:, None, None, None]
        return torch.cat([self.places, torch.ones_like(joints[..., :1])], dim=-1)


def test_a_perfect_network_gives_back_the_places_in_the_image(reader):
    """Targets, turned and placed as lib/video does, project onto the detections if those have no errors."""
    detector = Perfect()
    torch.manual_seed(6)
    _, y = ViewSampler(reader.views.motion, reader.n_frames, detector)(
        reader.shots[torch.randint(len(reader.shots), (8,))]
    )
    for places, pose, f in zip(detector.places, y, detector.focal):
        keypoints = torch.cat([places, torch.ones(reader.n_frames, 17, 1)], dim=-1)
        _, centre, _ = normalize_person(keypoints[None])
        camera = (pose @ look_at_rotation(centre, f)[0]).double().numpy()
        root = roots(camera, keypoints.double().numpy(), 0, 0, float(f))
        placed = camera + root[:, None]
        np.testing.assert_allclose(placed[..., :2] / placed[..., 2:] * float(f), places, atol=2e-4)


def test_normalisation_does_not_depend_on_place_and_size():
    torch.manual_seed(0)
    keypoints = torch.cat([torch.randn(2, 40, 17, 2) * 50 + 300, torch.rand(2, 40, 17, 1)], dim=-1)
    moved = keypoints.clone()
    moved[..., :2] = moved[..., :2] * 3 - 200
    (a, centre, size), (b, centre_b, size_b) = normalize_person(keypoints), normalize_person(moved)
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(centre * 3 - 200, centre_b, atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(size * 3, size_b, atol=1e-2, rtol=1e-4)


def test_look_at_rotation_looks_at_the_centre_without_rolling():
    turn = look_at_rotation(torch.tensor([[0.3, -0.2]]), 1.0)[0]
    forward = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, 1.0]), dim=0)
    torch.testing.assert_close(turn @ forward, torch.tensor([0.0, 0, 1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(turn @ turn.T, torch.eye(3), atol=1e-6, rtol=0)
    assert turn[0, 1] == 0 and torch.linalg.det(turn) > 0


def test_intervals_stay_in_their_sequence():
    motion = Motion(torch.zeros(300, 17, 3), [0, 100, 110, 300])
    first, last = motion.intervals(27, 10).unbind(1)
    assert len(first) and ((first < 100) == (last < 100)).all()
    assert not ((first >= 100) & (first < 110)).any()


def test_half_of_the_clips_are_mirrored(reader):
    """Of a person who stands still but for the left hand, the right hand moves in about half of the clips."""
    joints = reader.views.motion.joints[:1].repeat(200, 1, 1)
    joints[:, 13, 2] += 0.3 * torch.linspace(0, 30, 200).sin()
    views = ViewSampler(Motion(joints, [0, 200]), 9)
    torch.manual_seed(0)
    _, y = views(torch.tensor([[0, 40]]).repeat(256, 1))
    _, plain = views(torch.tensor([[0, 40]]).repeat(256, 1), plain=True)
    for target, low, high in ((y, 0.35, 0.65), (plain, 0, 0)):
        length = limb_vectors(target)[:, :, [12, 15]]  # forearms, left and right
        left, right = torch.nn.functional.normalize(length, dim=-1).diff(dim=1).norm(dim=-1).sum(1).unbind(1)
        assert low <= (right > left).float().mean() <= high


def test_the_test_split_is_the_same_whatever_was_drawn_before():
    torch.manual_seed(7)
    config = load_config(CONFIG, ["data_stride=200"])
    first = open_dataset(config).read_2d("test")
    torch.manual_seed(8)
    assert np.array_equal(first, open_dataset(config).read_2d("test"))


def test_a_clip_longer_than_all_motion_is_refused():
    with pytest.raises(UserError, match="set clip_len"):
        open_dataset(load_config(CONFIG, ["maxlen=3000", "clip_len=3000"]))
