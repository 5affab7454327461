"""Views of motion capture for training, and that a video's poses are put back with the same geometry."""

import numpy as np
import pytest
import torch

from lib.body.camera import look_at_rotation
from lib.body.normalize import normalize_person
from lib.body.skeleton import limb_vectors
from lib.config import load_config
from lib.data.datasets import open_dataset
from lib.data.loader import draw_seed
from lib.data.synthetic.random_views import STANDARD_SIZE, Motion, ViewSampler
from lib.errors import UserError
from lib.model.opening import Opened
from lib.task.lifting import Lifting
from lib.video.lift.lifter import Lifter
from lib.video.lift.placement import roots

CONFIG = "configs/pose3d/PoseMamba_wild.yaml"


@pytest.fixture(scope="module")
def reader():
    return open_dataset(load_config(CONFIG, ["data_stride=60"]))


def draw(reader, seed, count=64):
    torch.manual_seed(seed)
    return reader.views(reader.intervals[torch.randint(len(reader.intervals), (count,))])


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


class Known(torch.nn.Module):
    """A network that knows the pose of the one clip (F, 17, 3) that it is asked about, by its normalised keypoints."""

    def __init__(self, keypoints, pose):
        super().__init__()
        self.keypoints, self.pose = keypoints, pose

    def forward(self, x):
        torch.testing.assert_close(x[0], self.keypoints, atol=1e-3, rtol=0)
        return self.pose[None]


def test_a_perfect_network_gives_back_the_places_in_the_image(reader):
    """What lib/video makes of a network that returns its targets projects onto detections that have no errors."""
    detector, width, height = Perfect(), 1920, 1080
    config = load_config(CONFIG, ["flip=False"])
    torch.manual_seed(6)
    views = ViewSampler(reader.views.motion, reader.n_frames, detector)
    x, y = views(reader.intervals[torch.randint(len(reader.intervals), (8,))])
    for places, seen, pose, focal in zip(detector.places, x, y, detector.focal):
        scale = 1000  # px in a unit of the detector's
        keypoints = torch.cat(
            [places * scale + torch.tensor([width / 2, height / 2]), torch.ones(len(places), 17, 1)], -1
        )
        keypoints, focal, camera = keypoints.numpy(), float(focal) * scale, np.empty((len(places), 17, 3), np.float32)
        lifter = Lifter(Opened(Known(seen, pose), config, None), torch.device("cpu"), len(places), "person")
        lifter.lift(keypoints, camera, width, height, focal, fps=30)
        placed = camera + roots(camera, keypoints, width, height, focal)[:, None]
        projected = placed[..., :2] / placed[..., 2:] * focal + (width / 2, height / 2)
        np.testing.assert_allclose(projected, keypoints[..., :2], atol=0.3)


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


def pointing_right():
    """Motion of somebody (17, 3) who stands still and holds both arms out to their right."""
    joints = torch.zeros(17, 3)
    for joint, place in {
        1: (0.1, 0, 0), 2: (0.1, 0, -0.4), 3: (0.1, 0, -0.8), 4: (-0.1, 0, 0), 5: (-0.1, 0, -0.4), 6: (-0.1, 0, -0.8),
        7: (0, 0, 0.25), 8: (0, 0, 0.5), 9: (0, 0.1, 0.6), 10: (0, 0.1, 0.7),
        11: (-0.2, 0, 0.45), 12: (0.1, 0, 0.45), 13: (0.35, 0, 0.45), 14: (0.2, 0, 0.45), 15: (0.45, 0, 0.45), 16: (0.7, 0, 0.45),
    }.items():  # fmt: skip
        joints[joint] = torch.tensor(place, dtype=torch.float32)
    return Motion(joints.repeat(200, 1, 1), [0, 200])


@pytest.mark.parametrize("mirrored, least, most", [(True, 0.4, 0.6), (False, 0, 0)])
def test_half_of_the_clips_are_mirrored_if_asked_for(monkeypatch, mirrored, least, most):
    """A mirror image points to the left; no camera and no turn of the body makes that of somebody who points right."""
    for share in ("_FLEXED", "_OTHERS_LIMBS"):
        monkeypatch.setattr(f"lib.data.synthetic.random_views.{share}", 0.0)
    torch.manual_seed(0)
    _, y = ViewSampler(pointing_right(), 9, flip=mirrored)(torch.tensor([[0, 100]] * 300))
    up, forward = y[:, :, 8] - y[:, :, 0], y[:, :, 9] - y[:, :, 8]
    right = torch.linalg.cross(forward, up)
    for shoulder, wrist in ((14, 16), (11, 13)):
        pointing = ((y[:, :, wrist] - y[:, :, shoulder]) * right).sum(-1)
        left = (pointing < 0).float().mean(1)
        assert set(left.tolist()) <= {0.0, 1.0} and least <= left.mean() <= most


def test_speed_is_that_of_the_motion_played():
    walk = torch.arange(200.0)[:, None, None] * torch.tensor([0.01, 0, 0]) + torch.randn(17, 3)
    joints, seconds = ViewSampler(Motion(walk, [0, 200]), 9)._play(torch.tensor([[0, 40]]), torch.tensor([2.0]))
    assert seconds == 2 / 60
    torch.testing.assert_close(joints.diff(dim=1), torch.tensor([0.02, 0, 0]).expand(1, 8, 17, 3), atol=1e-5, rtol=0)


def training_batch(reader, *overrides):
    torch.manual_seed(9)
    return next(iter(Lifting(load_config(CONFIG, list(overrides)), reader).loaders("train")))


def test_a_training_batch_is_the_views_mirrored_by_the_sampler_alone(reader):
    batch = training_batch(reader, "batch_size=64")
    torch.manual_seed(9)
    draw_seed()
    keypoints, poses = reader.views(reader.intervals[batch["index"]])
    assert torch.equal(batch["keypoints"], keypoints)
    torch.testing.assert_close(batch["pose"], poses, atol=1e-6, rtol=0)


def test_masks_of_the_config_reach_the_network(reader):
    hidden = (training_batch(reader, "batch_size=256")["keypoints"] == 0).all(-1).float()
    joints = (training_batch(reader, "batch_size=256", "mask_ratio=0.4")["keypoints"] == 0).all(-1).float()
    frames = (training_batch(reader, "batch_size=256", "mask_T_ratio=0.3")["keypoints"] == 0).all(-1).float()
    nobody = float(hidden.amin(-1).mean())  # frames without a detection
    assert float(joints.mean()) == pytest.approx(1 - 0.6 * (1 - float(hidden.mean())), abs=0.03)
    assert float(frames.amin(-1).mean()) == pytest.approx(1 - 0.7 * (1 - nobody), abs=0.04)
    assert nobody < 0.1


def test_keys_without_effect_are_refused():
    for override in ("sample_stride=2", "num_workers=4"):
        key = override.partition("=")[0]
        with pytest.raises(UserError, match=f"{key}: has no effect on dataset views; leave it out"):
            load_config(CONFIG, [override])


def test_the_test_split_is_the_same_whatever_was_drawn_before():
    torch.manual_seed(7)
    config = load_config(CONFIG, ["data_stride=200"])
    first = open_dataset(config).read_2d("test")
    torch.manual_seed(8)
    assert np.array_equal(first, open_dataset(config).read_2d("test"))


def test_a_clip_longer_than_all_motion_is_refused():
    with pytest.raises(UserError, match="set clip_len"):
        open_dataset(load_config(CONFIG, ["maxlen=3000", "clip_len=3000"]))
