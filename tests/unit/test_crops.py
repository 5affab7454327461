"""Crops of people in frames: what a network sees in a video is what it learned from, and its results go back exactly."""

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT

from lib.body.camera import look_at_rotation
from lib.body.skeleton import root_relative
from lib.data.motion_files import read_motion_files
from lib.data.synthetic.body import SOMEONE
from lib.data.synthetic.crop_cameras import CropCamera, draw_crop
from lib.data.synthetic.crops import Crops
from lib.data.synthetic.pose_pairs import PosePairs
from lib.data.synthetic.render import FARTHEST, rasterise
from lib.task.heatmaps import decode, heatmap_targets
from lib.video.detection.crops import Crop
from lib.video.detection.mambapose import in_frame

FRAME, FOCAL, SIZE = (960, 720), 900.0, (96, 128)
STILL = np.eye(3), np.zeros(3)


class Unmoved(np.random.Generator):
    """Draws the middle of every range, so that a crop is exactly about its box."""

    def random(self, *_):
        return 1.0

    def uniform(self, low, high, size=None):
        return np.zeros(size) if size else 0.0


@pytest.fixture(scope="module")
def crops():
    pairs = PosePairs.of_split(read_motion_files([ROOT / "data/accad17.npz"]), False, ["accad_male1"], 0.5)
    return Crops(pairs, SIZE, (0, 0))


@pytest.fixture(scope="module")
def cases(crops):
    """People in a frame (scene, camera of the frame), off its middle, and the crop and camera of the training."""
    made = []
    for number, (scene, *_) in enumerate(crops.scenes(5)):
        middle = np.array([[250, -120], [-280, 60], [0, 0], [120, 150]][number % 4])
        aim = scene.camera
        turned = look_at_rotation(middle.astype(float), FOCAL).T
        frame = CropCamera(turned @ aim.rotation, turned @ aim.offset, STILL, FOCAL, FRAME)
        person = scene.people[0]
        points = np.concatenate([person.joints, person.points])
        drawn = draw_crop(points, frame.rotation, frame.offset, SIZE, Unmoved(np.random.PCG64()), 1 / 30)
        camera = CropCamera(drawn.rotation, drawn.offset, STILL, drawn.focal, SIZE)
        places = frame.project(frame.see(points))
        crop = Crop(np.concatenate([places.min(0), places.max(0)]), FRAME, FOCAL, SIZE)
        if ((places > 0) & (places < FRAME)).all():
            made.append((scene, frame, crop, camera))
    assert len(made) >= 6
    return made


def drawn(scene, camera, faces):
    """The person of a scene before a pattern of the world that is infinitely far, as finely as people are rendered."""
    fine = CropCamera(camera.rotation, camera.offset, STILL, 2 * camera.focal, (2 * camera.size[0], 2 * camera.size[1]))
    rays = np.tensordot(camera.rotation.T, fine.rays, 1)
    image = np.ascontiguousarray(
        np.moveaxis(0.5 + 0.3 * np.sin(25 * rays / np.linalg.norm(rays, axis=0)), 0, 2), np.float32
    )
    depth = np.full(image.shape[:2], FARTHEST, np.float32)
    person = scene.people[0]
    rasterise(fine.see(person.now), faces, np.clip(person.colours, 0, 1), image, depth, fine.field)
    return (255 * cv2.resize(image, camera.size, interpolation=cv2.INTER_AREA)).astype(np.uint8)


def test_the_camera_of_a_crop_is_that_of_training(cases):
    for _, frame, crop, camera in cases:
        np.testing.assert_allclose(crop.rotation @ frame.rotation, camera.rotation, atol=1e-6)
        points = camera.place + (camera.rotation.T @ np.array([[0.1, -0.3, 3], [-0.2, 0.4, 4]]).T).T
        seen = camera.project(camera.see(points))
        np.testing.assert_allclose(crop.back(seen), frame.project(frame.see(points)), atol=0.02)


def test_a_crop_shows_what_training_shows_to_the_pixel(crops, cases):
    for scene, frame, crop, camera in cases[:6]:
        expected = drawn(scene, camera, crops.body.faces).astype(float)
        image = crop.cut(drawn(scene, frame, crops.body.faces))
        error = np.abs(image - expected).mean()
        assert error < 5  # what is finer than a pixel is not drawn alike
        for x, y in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)):
            shifted = cv2.warpAffine(
                expected, np.array([[1.0, 0, x], [0, 1, y]]), SIZE, borderMode=cv2.BORDER_REPLICATE
            )
            assert np.abs(image - shifted).mean() > 1.4 * error


def test_heatmaps_of_a_crop_lead_to_the_joints_in_the_frame(cases):
    for scene, frame, crop, camera in cases:
        joints = scene.people[0].joints
        learned = torch.from_numpy(camera.project(camera.see(joints))[None] - 0.5)  # `ChooseKeypoints`
        found = decode(heatmap_targets(learned, SIZE[::-1]).clamp(min=1e-12).log())[0].numpy()
        expected = frame.project(frame.see(joints))
        assert np.abs(in_frame(found, crop)[:, :2] - expected).max() < 0.1 * FOCAL / camera.focal
        assert found[:, 2].min() > 0.9


def test_poses_are_turned_back(cases):
    for scene, frame, crop, camera in cases:
        joints = scene.people[0].joints
        pose = root_relative(camera.see(joints))
        np.testing.assert_allclose(crop.turned_back(pose), root_relative(frame.see(joints)), atol=1e-5)
        assert np.abs(pose - root_relative(frame.see(joints))).max() > 1e-3


def test_flow_of_a_frame_is_that_of_the_crop(crops, cases):
    errors, sizes = [], []
    for scene, frame, crop, camera in cases:
        alone = scene._replace(people=scene.people[:1], things=None)
        of_frame, of_crop = (crops.measure(alone._replace(camera=c)) for c in (frame, camera))
        inside = cv2.erode((of_crop.segments < SOMEONE).astype(np.uint8), np.ones((3, 3))) > 0
        found = crop.cut_flow(of_frame.motion)
        errors.append(np.linalg.norm(found - of_crop.motion, axis=0)[inside])
        sizes.append(np.linalg.norm(of_crop.motion, axis=0)[inside])
    errors, sizes = np.concatenate(errors), np.concatenate(sizes)
    assert np.mean(sizes) > 0.3 and np.median(errors) < 0.02 * np.median(sizes)


def test_beyond_the_frame():
    image = np.full((720, 960, 3), 7, np.uint8)
    image[:, :4] = 200
    partly = Crop([-60, 200, 60, 360], FRAME, FOCAL, SIZE)
    assert partly.shows_frame
    cut = partly.cut(image)
    assert (cut[:, :40] == 200).all() and (cut[:, 56:] == 7).all()
    depth = partly.cut_depth(np.ones((720, 960), np.float32))
    assert np.isnan(depth[:, :46]).all() and (depth[:, 50:] == 1).all()
    assert (partly.cut_flow(np.ones((2, 720, 960), np.float32))[:, :, :46] == 0).all()
    assert not Crop([-300, 200, -200, 400], FRAME, FOCAL, SIZE).shows_frame
    point = Crop([480, 360, 480, 360], FRAME, FOCAL, SIZE)  # someone of whom one place is known
    assert point.shows_frame and np.isfinite(point.pixels).all()
