"""Augmentation of crops: images, flow, keypoints and poses go along with each other."""

import pytest
import torch

from lib.body.layouts import LAYOUTS
from lib.body.skeleton import mirrored_order
from lib.data.image_transforms import Warp, as_numbers, change_colours, degrade_cues, erase, input_transforms

HEIGHT, WIDTH, COUNT = 96, 80, 64
MIDDLE = torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])


@pytest.fixture
def batch():
    """Crops whose image has one bright spot, at keypoint 0, which lies in the middle of the body and has no side."""
    torch.manual_seed(0)
    pose = torch.randn(COUNT, 17, 3) * 0.3
    keypoints = torch.cat([MIDDLE + 20 * pose[..., :2], torch.full((COUNT, 17, 1), 2.0)], -1)
    rows, columns = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)
    x, y = keypoints[:, 0, :2].split(1, -1)
    spot = (-((columns - x[..., None]) ** 2 + (rows - y[..., None]) ** 2) / 18).exp()
    flow = torch.zeros(COUNT, 2, HEIGHT, WIDTH)
    flow[:, 0] = 3.0
    return {"image": spot[:, None].repeat(1, 3, 1, 1), "flow": flow, "depth": spot[:, None].clone(),
            "keypoints": keypoints, "pose": pose}  # fmt: skip


def test_the_warped_image_shows_the_keypoint_where_it_is_said_to_be(batch):
    warped = Warp("h36m17")(batch)
    inside = warped["keypoints"][:, 0, 2] > 0
    near = (warped["keypoints"][:, 0, :2] - MIDDLE).abs().amax(-1) < 25  # the whole spot is in the image
    assert (inside & near).sum() > COUNT // 2
    for key in ("image", "depth"):
        spot = warped[key][:, 0]
        share = spot / spot.sum((1, 2), keepdim=True)
        seen = torch.stack(
            [share.sum(1) @ torch.arange(WIDTH).float(), share.sum(2) @ torch.arange(HEIGHT).float()], -1
        )
        torch.testing.assert_close(seen[near], warped["keypoints"][near, 0, :2], atol=0.15, rtol=0)


def test_keypoints_poses_and_flow_are_turned_and_mirrored_alike(batch):
    warped = Warp("h36m17")(batch)
    seen, pose = warped["keypoints"][..., :2] - warped["keypoints"][:, :1, :2], warped["pose"][..., :2]
    pose = pose - pose[:, :1]
    scale = seen.norm(dim=-1).sum(1) / pose.norm(dim=-1).sum(1)
    torch.testing.assert_close(seen, pose * scale[:, None, None], atol=1e-3, rtol=1e-4)
    assert 20 / 1.26 < scale.min() < 17 and 23 < scale.max() < 20 * 1.26
    speed = warped["flow"].flatten(2).mean(-1)
    torch.testing.assert_close(speed.norm(dim=-1), 3 * scale / 20, atol=1e-3, rtol=1e-3)
    assert 0.3 < (speed[:, 0] < 0).float().mean() < 0.7  # the mirrored ones
    left, right = LAYOUTS["h36m17"].index("left knee"), LAYOUTS["h36m17"].index("right knee")
    mirrored = speed[:, 0] < 0
    z = batch["pose"][..., 2]
    assert torch.equal(warped["pose"][mirrored][:, left, 2], z[mirrored][:, right])
    assert torch.equal(warped["pose"][~mirrored][:, left, 2], z[~mirrored][:, left])


def test_a_keypoint_that_leaves_the_crop_is_not_learned(batch):
    batch["keypoints"][:, 5, :2] = torch.tensor([0.0, HEIGHT - 1.0])
    warped = Warp("h36m17")(batch)["keypoints"][:, [5, 2]]  # whichever side it is on
    places, seen = warped[..., :2], warped[..., 2]
    outside = ((places < -0.5) | (places > torch.tensor([WIDTH, HEIGHT]) - 0.5)).any(-1)
    assert 0.2 < outside.float().mean() < 0.8
    assert torch.equal(seen > 0, ~outside)


def test_colours_and_rectangles_keep_the_range(batch):
    torch.manual_seed(1)
    batch["image"] = torch.rand(COUNT, 3, HEIGHT, WIDTH)
    changed = change_colours(batch)["image"]
    assert changed.min() >= 0 and changed.max() <= 1 and (changed.mean((1, 2, 3)) - 0.5).abs().max() > 0.15
    erased = (erase(batch)["image"] != batch["image"]).all(1).float().mean((1, 2))
    assert 0.2 < (erased > 0).float().mean() < 0.6 and erased.max() <= 0.17


def test_stored_crops_become_numbers_that_networks_read():
    stored = {"image": torch.full((1, 3, 4, 4), 255, dtype=torch.uint8), "depth": torch.full((1, 1, 4, 4), 4.0),
              "coco": torch.full((1, 17, 3), 2.0)}  # fmt: skip
    batch = dict(stored)
    for transform in input_transforms("coco17"):
        batch = transform(batch)
    assert batch["image"].max() == 1 and batch["depth"].min() == 0.25
    assert batch["keypoints"][0, 0].tolist() == [1.5, 1.5, 2]
    assert stored["coco"].min() == 2
    assert "depth" not in as_numbers({"image": stored["image"]})


def test_cues_are_degraded_where_they_are(batch):
    changed = degrade_cues(batch)
    assert not torch.equal(changed["flow"], batch["flow"]) and torch.equal(changed["image"], batch["image"])
    assert degrade_cues({"image": batch["image"]}).keys() == {"image"}


def test_the_mirror_image_of_a_layout():
    assert mirrored_order(LAYOUTS["coco17"]) == (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
