"""Rendered people: that labels agree with each other, and that a set on disk is the same however it was made."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT

from lib.body.layouts import LAYOUTS
from lib.body.skeleton import JOINTS, limb_vectors
from lib.data.datasets.rendered import RenderedPeople
from lib.data.motion_files import read_motion_files
from lib.data.store import check_store, open_store, unfinished_of
from lib.data.synthetic.body import NOTHING, SEGMENTS, SOMEONE
from lib.data.synthetic.crop_cameras import CropCamera
from lib.data.synthetic.crops import BLOCK, SHAPES, Crops
from lib.data.synthetic.pose_pairs import PosePairs
from lib.data.synthetic.random_views import STANDARD_SIZE
from lib.data.synthetic.render import FARTHEST
from lib.data.synthetic.rendered_set import HELD_BACK, MOTION, render_set
from lib.errors import UserError

SIZE = (48, 64)
CROPS, TEST_CROPS = 140, 20
COMMAND = ("--crops", CROPS, "--test-crops", TEST_CROPS, "--size", "48x64", "--seed", 3)


def render(folder, *arguments, code=0):
    command = [sys.executable, "tools/render_people.py", "--out", folder, *COMMAND, *arguments]
    result = subprocess.run(list(map(str, command)), text=True, capture_output=True, cwd=ROOT)
    assert result.returncode == code, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A set, rendered by two processes, and the sheet of it."""
    folder = tmp_path_factory.mktemp("rendered") / "people.store"
    render(folder, "--workers", 2, "--look", folder.with_name("look.png"))
    return folder


@pytest.fixture(scope="module")
def pairs():
    return PosePairs.of_split(read_motion_files(["data/accad17.npz"]), False, ["accad_male1"], 0.5)


@pytest.fixture(scope="module")
def crops(pairs):
    return Crops(pairs, (96, 128), (0, 0))


@pytest.fixture(scope="module")
def block(crops):
    return crops.draw(5)


@pytest.fixture(scope="module")
def scenes(crops):
    return [(scene, measured) for scene, measured, *_ in crops.scenes(5)]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def camera_joints(crops):
    """Joints (n, 17, 3) m in camera axes, from the labels of crops."""
    return crops["root"][:, None] + crops["pose"] * (crops["body_size"] / STANDARD_SIZE)[:, None, None]


def at(images, keypoints):
    """Values (n, 17, ...) of images (n, C, H, W) in the pixels of keypoints (n, 17, 3)."""
    x, y = np.moveaxis(np.floor(keypoints[..., :2]).astype(int), 2, 0)
    height, width = images.shape[2:]
    return images[np.arange(len(images))[:, None], :, y.clip(0, height - 1), x.clip(0, width - 1)].astype(np.float32)


def one_frame_later(scene):
    """The same scene at the next frame."""
    camera = scene.camera
    turn, step = camera.motion
    moved = CropCamera(turn @ camera.rotation, turn @ camera.offset + step, camera.motion, camera.focal, camera.size)
    return scene._replace(camera=moved, people=[person._replace(now=person.later) for person in scene.people])


def test_keypoints_are_projected_joints_of_a_body_of_standard_size(block):
    joints = camera_joints(block)
    projected = joints[..., :2] / joints[..., 2:] * block["focal"][:, None, None] + np.array([48, 64])
    np.testing.assert_allclose(projected, block["h36m"][..., :2], atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(limb_vectors(block["pose"]), axis=-1).sum(-1), STANDARD_SIZE, rtol=1e-5)
    assert (block["pose"][:, 0] == 0).all() and (block["body_size"] > 2.5).all()
    for ours, theirs in (
        ("left wrist", "left wrist"),
        ("right knee", "right knee"),
        ("left shoulder", "left shoulder"),
    ):
        off = block["coco"][:, LAYOUTS["coco17"].index(ours), :2] - block["h36m"][:, JOINTS.index(theirs), :2]
        height = np.ptp(block["h36m"][..., 1], axis=1)
        assert (np.linalg.norm(off, axis=-1) < 0.08 * np.maximum(height, 40)).all()


@pytest.mark.parametrize("key", ["coco", "h36m"])
def test_visibility_says_where_a_keypoint_is(block, key):
    keypoints, visible = block[key], block[key][..., 2]
    inside = ((keypoints[..., :2] >= 0) & (keypoints[..., :2] < [96, 128])).all(-1)
    assert np.array_equal(visible > 0, inside)
    assert set(np.unique(visible)) == {0, 1, 2} and (visible == 2).mean() > 0.3
    # Others than the person at a visible joint's place are behind it.
    if key == "h36m":
        others = at(block["segments"][:, None], keypoints)[..., 0] >= SOMEONE
        surface = at(block["depth"], keypoints)[..., 0]
        assert (surface[others & (visible == 2)] > camera_joints(block)[..., 2][others & (visible == 2)] - 0.01).all()


def test_visible_joints_lie_just_below_the_surface(block):
    below = camera_joints(block)[..., 2] - at(block["depth"], block["h36m"])[..., 0]
    on_person = at(block["segments"][:, None], block["h36m"])[..., 0] < SOMEONE
    seen = on_person & (block["h36m"][..., 2] == 2)
    assert seen.sum() > 50
    assert below[seen].max() < 0.26 and below[seen].min() > -0.15 and 0.01 < np.median(below[seen]) < 0.12


def test_the_mask_is_the_person_and_depth_is_of_what_is_nearest(block):
    joints = camera_joints(block)
    for segments, depth, joint, keypoints in zip(block["segments"], block["depth"][:, 0], joints, block["h36m"]):
        person = segments < SOMEONE
        assert set(np.unique(segments[person])) <= set(range(len(SEGMENTS)))
        assert person.mean() > 0.01
        near, far = joint[:, 2].min() - 0.35, joint[:, 2].max() + 0.35
        assert near < depth[person].min() and depth[person].max() < far
        lines, columns = np.nonzero(person)
        margin = 0.35 * np.ptp(keypoints[:, :2], axis=0).max() + 3
        low, high = keypoints[:, :2].min(0) - margin, keypoints[:, :2].max(0) + margin
        assert low[0] < columns.min() and columns.max() < high[0] and low[1] < lines.min() and lines.max() < high[1]
    assert block["depth"].min() > 0.2 and block["depth"].max() <= FARTHEST


def test_images_show_the_person_and_differ(block):
    images = block["image"].astype(np.float32)
    assert (images.std((1, 2, 3)) > 8).all() and 60 < images.mean() < 190
    apart = []
    for image, segments in zip(images, block["segments"]):
        person = segments < SOMEONE
        around = cv2.dilate(person.astype(np.uint8), np.ones((9, 9))).astype(bool) & ~person
        apart.append(np.abs(image[:, person].mean(1) - image[:, around].mean(1)).max())
    assert np.median(apart) > 15
    assert np.abs(images[0] - images[1]).mean() > 10


def test_flow_is_the_motion_of_the_point_of_a_triangle_that_a_pixel_shows(crops, scenes):
    """Against the rays' intersections with triangles, and the same points of these triangles one frame later."""
    errors, motions = [], []
    for scene, measured in scenes:
        camera, person, faces = scene.camera, scene.people[0], crops.body.faces
        later = one_frame_later(scene).camera
        now, then = camera.see(person.now)[faces], later.see(person.later)[faces]
        x, y = np.floor(camera.project(now.mean(1))).astype(int).T  # the pixel at the middle of each triangle
        inside = np.flatnonzero((x >= 0) & (y >= 0) & (x < 96) & (y < 128))
        x, y = x[inside], y[inside]
        corners, rays = now[inside].transpose(0, 2, 1).astype(float), camera.rays[:, y, x].T.astype(float)
        shares = np.linalg.solve(corners + 1e-9 * np.eye(3), rays[..., None])[..., 0]
        depth = 1 / shares.sum(1)
        shares *= depth[:, None]
        shown = (
            (shares > 0).all(1) & (np.abs(measured.depth[y, x] - depth) < 1e-4) & (measured.segments[y, x] < SOMEONE)
        )
        places = (shares[..., None] * then[inside]).sum(1)[shown].astype(np.float32)
        moved = later.project(places) - camera.pixels[:, y[shown], x[shown]].T
        errors.append(np.linalg.norm(measured.motion[:, y[shown], x[shown]].T - moved, axis=1))
        motions.append(np.linalg.norm(moved, axis=1))
    errors, motions = np.concatenate(errors), np.concatenate(motions)
    assert len(errors) > 5000 and np.mean(motions) > 0.5
    assert np.mean(errors) < 0.003 and np.percentile(errors, 99) < 0.02  # where limbs touch, the other may be shown


def test_flow_leads_to_the_same_surface_in_the_next_frame(crops, scenes):
    """What a pixel shows has, one frame later, the part and the depth that the next frame shows where flow leads."""
    same, without, still = [], [], []
    for scene, measured in scenes:
        camera, after = scene.camera, one_frame_later(scene)
        depth, flow = measured.complete(camera, crops.see(scene)[1])
        segments, depth_after, _ = crops.measure(after)
        depth_after = np.where(segments == NOTHING, crops.see(after)[1], depth_after)
        x, y = np.floor(camera.pixels + flow).astype(int)
        inside = (x >= 0) & (y >= 0) & (x < 96) & (y < 128)
        x, y = x.clip(0, 95), y.clip(0, 127)
        person = inside & (measured.segments < SOMEONE)
        same.append((segments[y, x] == measured.segments)[person])
        without.append((segments == measured.segments)[person])
        expected = camera.later(np.moveaxis(camera.rays * depth, 0, 2))[..., 2]
        error = np.abs(depth_after[y, x] / expected - 1)
        still.append(error[inside & (measured.segments == NOTHING) & (depth < FARTHEST)])
    same, without, still = map(np.concatenate, (same, without, still))
    assert same.mean() > 0.9 and 1 - same.mean() < 0.7 * (1 - without.mean())
    assert np.median(still) < 0.003 and np.percentile(still, 90) < 0.05


def test_flow_at_keypoints_is_near_the_motion_of_joints(crops, scenes):
    """A joint's motion is that of the surface around it, up to the body's thickness."""
    errors, motions = [], []
    for scene, measured in scenes:
        camera, person = scene.camera, scene.people[0]
        _, flow = measured.complete(camera, np.full(measured.depth.shape, FARTHEST, np.float32))
        for segment, joint in (
            ("head", 9),
            ("left forearm", 13),
            ("right forearm", 16),
            ("left shin", 6),
            ("right shin", 3),
        ):
            # The motion of all vertices of the segment near the joint is the best estimate of the joint's.
            near = np.linalg.norm(person.now - person.joints[joint], axis=1) < 0.09
            near &= crops.body.segment == SEGMENTS.index(segment)
            if not near.any():
                continue
            place = camera.project(camera.see(person.joints[joint, None]))[0]
            x, y = np.floor(place).astype(int)
            if not (0 <= x < 96 and 0 <= y < 128) or measured.segments[y, x] != SEGMENTS.index(segment):
                continue
            step = np.mean(person.later[near] - person.now[near], axis=0)
            moved = camera.project(camera.later(camera.see(person.joints[joint, None] + step)))[0] - place
            errors.append(np.linalg.norm(flow[:, y, x] - moved))
            motions.append(np.linalg.norm(moved))
    assert len(errors) > 10 and np.median(motions) > 0.3
    assert np.median(errors) < 0.15 * np.median(motions)


def test_a_camera_that_turns_and_moves_is_seen_in_the_flow_of_still_things(crops, scenes):
    scene, measured = scenes[0]
    for turn, step in ((np.eye(3), [0.1, 0, 0]), (cv2.Rodrigues(np.array([0, 0.02, 0]))[0], [0, 0, 0])):
        camera = replace(scene.camera, motion=(turn, np.array(step)))
        depth = np.full((128, 96), 5.0, np.float32)
        flow = camera.motion_of_still(depth)
        expected = camera.focal * (0.1 / 5 if step[0] else np.tan(0.02))
        np.testing.assert_allclose(flow[0, 64, 48], expected, rtol=0.02)
        assert np.abs(flow[1, 64, 48]) < 0.02


def test_a_block_follows_from_its_number_and_from_nothing_drawn_before(crops, block):
    other, again = crops.draw(6), crops.draw(5)
    assert all(np.array_equal(again[key], block[key]) for key in SHAPES)
    assert not np.array_equal(other["image"], block["image"])


def test_train_and_test_have_no_clip_and_no_subject_in_common(made):
    motion = read_motion_files(MOTION)
    clips = {split: np.unique(RenderedPeople(made, split, ["clip"])[:]["clip"]) for split in ("train", "test")}
    of_test = (motion["split"] == "test") | np.isin(motion["subject"], HELD_BACK)
    assert not of_test[clips["train"]].any() and of_test[clips["test"]].all()
    first = {split: RenderedPeople(made, split, ["image"])[[0]]["image"] for split in clips}
    assert not torch.equal(first["train"], first["test"])


def test_batches_have_the_keys_shapes_and_types_that_are_promised(made):
    people = RenderedPeople(made, "train")
    assert len(people) == CROPS and people.size == SIZE
    batch = people[[7, 0, 139]]
    expected = {
        "image": ((3, 3, 64, 48), torch.uint8),
        "flow": ((3, 2, 64, 48), torch.float32),
        "depth": ((3, 1, 64, 48), torch.float32),
        "mask": ((3, 64, 48), torch.bool),
        "coco": ((3, 17, 3), torch.float32),
        "h36m": ((3, 17, 3), torch.float32),
        "pose": ((3, 17, 3), torch.float32),
    }
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == expected
    some = RenderedPeople(made, "train", ["mask", "segments", "person"])[[7]]
    assert torch.equal(some["mask"], batch["mask"][:1]) and torch.equal(some["mask"], some["segments"] < SOMEONE)
    assert some["person"].tolist() == [7 // BLOCK]
    assert torch.equal(people[[0]]["image"][0], batch["image"][1])


def test_the_sheet_shows_images_skeletons_depth_flow_and_parts(made):
    sheet = cv2.imread(str(made.with_name("look.png"))).astype(float)
    width, gap = 256 * 48 // 64, 6
    assert sheet.shape[1] == 3 * (5 * width + gap)
    parts = [sheet[:256, n * width : (n + 1) * width] for n in range(5)]
    assert all(part.std() > 5 for part in parts)
    drawn = np.abs(parts[1] - parts[0]).max(-1) > 60
    assert 0.001 < drawn.mean() < 0.3


def test_a_set_that_is_there_is_not_rendered_again(made):
    before = (made / "index.json").stat().st_mtime_ns
    assert not render_set(made, {"train": CROPS, "test": TEST_CROPS}, SIZE, 3, 1, None)
    assert (made / "index.json").stat().st_mtime_ns == before
    check_store(made)


@pytest.mark.weekly
def test_an_interrupted_rendering_is_told_and_goes_on_to_the_same_set(made, tmp_path):
    """By one process in place of two, interrupted in between."""
    folder = tmp_path / "people.store"
    command = [sys.executable, "tools/render_people.py", "--out", folder, *COMMAND, "--workers", 1]
    with open(tmp_path / "output", "w+") as output:
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=output, stderr=output)
        images = unfinished_of(folder) / "train.image.npy"
        while process.poll() is None and not (images.exists() and images.stat().st_size > 20 * 3 * 48 * 64):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        output.seek(0)
        said = output.read()
    assert f"{folder}: not complete; the same command goes on\ninterrupted" in said and "Traceback" not in said
    with pytest.raises(UserError, match="people.store: is not rendered to its end; the command that began it goes on"):
        RenderedPeople(folder, "train")
    said = render(folder, "--workers", 1).stderr
    assert f"of {CROPS} crops are there, going on" in said
    assert content(folder) == content(made)
    assert set(os.listdir(tmp_path)) == {"output", "people.store"}


@pytest.fixture
def copied(made, tmp_path):
    return shutil.copytree(made, tmp_path / "people.store")


def test_damage_is_told(copied):
    path = copied / "test.flow.npy"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"test.flow.npy: is truncated .*; remove it and render it again: python tools"):
        RenderedPeople(copied, "train")


def test_a_damaged_header_is_told_when_it_is_read(copied):
    path = copied / "test.flow.npy"
    path.write_bytes(b"x" * 20 + path.read_bytes()[20:])
    people = RenderedPeople(copied, "test")
    with pytest.raises(UserError, match="test.flow.npy: is truncated or not a .npy file"):
        people[[0]]


def test_another_index_is_told(copied):
    index = json.loads((copied / "index.json").read_text())
    index["provenance"]["made_by"] = "tools/convert_h36m.py"
    (copied / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="holds other data, made by tools/convert_h36m.py"):
        RenderedPeople(copied, "train")
    with pytest.raises(UserError, match="is a store of other data"):
        render_set(copied, {"train": 1, "test": 1}, SIZE, 3, 1, None)
    (copied / "index.json").write_text("{")
    with pytest.raises(UserError, match="is not the index of a store .*; remove it and render it again"):
        RenderedPeople(copied, "train")


def test_missing_sets_splits_and_keys_are_told(made, tmp_path):
    with pytest.raises(
        UserError, match="nowhere: no such set of rendered people; make one: python tools/render_people.py"
    ):
        RenderedPeople(tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match="split 'tets' is unknown .did you mean 'test'"):
        RenderedPeople(made, "tets")
    with pytest.raises(UserError, match="has no 'flwo' .did you mean 'flow'"):
        RenderedPeople(made, "train", ["flwo"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--size", "96"), "argument --size: expected WIDTHxHEIGHT such as 96x128"),
        (("--size", "8x128"), "sides of 32 to 1024 px"),
        (("--crops", "0"), "argument --crops: expected a whole number of at least 1"),
        (("--seed", "-1"), "argument --seed: expected"),
        (("--loook", "x"), "--loook: unknown option (did you mean '--look'?)"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, arguments, message):
    said = render(tmp_path / "x", *arguments, code=2).stderr
    assert message in said and said.count("\n") == 1


def test_an_older_opencv_is_told(crops, monkeypatch):
    monkeypatch.delattr(cv2, "triangleRasterize")
    with pytest.raises(UserError, match="cannot draw meshes: pip install 'opencv-python>=5'"):
        crops.draw(0)


def test_what_is_no_set_is_not_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already and is no store"):
        render_set(tmp_path, {"train": 1, "test": 1}, SIZE, 3, 1, None)
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_provenance_names_what_the_set_is_made_of(made):
    provenance = open_store(made).provenance
    assert provenance["crops"] == {"train": CROPS, "test": TEST_CROPS} and provenance["seed"] == 3
    assert set(provenance["sha256"]) == {"cmu17_large.npz", "accad17.npz", "body.npz"}
