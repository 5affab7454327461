"""Lifting keypoints that are there already, and what becomes of joints that cannot be right."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

from lib.body.layouts import LAYOUTS, to_h36m
from lib.body.skeleton import JOINTS, root_relative
from lib.errors import UserError
from lib.eval.h36m import p_mpjpe
from lib.video import lift_keypoints, lift_video
from lib.video.lift.placement import FOCAL
from lib.video.lift.strays import unsee_strays
from tools.bench.scoring.footage import FOLDER, read_views

SIZE = 1088, 1920
SAMPLE = ROOT / "demo" / "video" / "sample_video.mp4"


@pytest.fixture(scope="module")
def woman():
    """Keypoints (40, 17, 3) of the woman of the footage, and where her joints are (40, 17, 3), m."""
    view = read_views(frames=40)[3]
    keypoints = np.concatenate([view.keypoints[1], np.full((40, 17, 1), 0.9)], axis=-1)
    return keypoints.astype(np.float32), view.poses[1]


@pytest.fixture(scope="module")
def lifted(woman):
    return lift_keypoints(woman[0], SIZE, fps=60)


def test_it_is_what_the_pipeline_computes(woman, lifted, tmp_path):
    film, file = FOLDER / "cam04.mp4", tmp_path / "woman.npz"
    np.savez(file, keypoints=woman[0], frame=np.arange(40), person=np.zeros(40, int), layout="h36m17")
    (person,) = lift_video(film, keypoints=file).people
    assert lifted.dtype == np.float32 and lifted.shape == (40, 17, 3) and (lifted[:, 0] == 0).all()
    np.testing.assert_allclose(lifted, root_relative(person.camera), atol=1e-5)
    assert p_mpjpe(lifted.astype(float), woman[1]).mean() < 0.06


def test_array_likes(woman, lifted):
    keypoints = woman[0]
    for same in (
        keypoints.tolist(),
        keypoints.astype(np.float64),
        torch.tensor(keypoints, requires_grad=True),
        torch.tensor(keypoints, dtype=torch.float64),
    ):
        np.testing.assert_array_equal(lift_keypoints(same, SIZE, 60), lifted)
    for size, fps, focal in (
        (np.array(SIZE), np.int64(60), np.float64(FOCAL * 1920)),
        (torch.tensor(SIZE), torch.tensor(60.0), np.float32(FOCAL * 1920)),
        (tuple(map(np.float64, SIZE)), np.float32(60), torch.tensor(FOCAL * 1920)),
    ):
        np.testing.assert_allclose(lift_keypoints(keypoints, size, fps, focal), lifted, atol=1e-5)


def test_without_confidence_all_that_is_finite_is_seen(woman):
    keypoints = woman[0].copy()
    keypoints[..., 2] = 1
    np.testing.assert_array_equal(lift_keypoints(keypoints[..., :2], SIZE, 60), lift_keypoints(keypoints, SIZE, 60))
    keypoints[5:9, 3, 0], keypoints[:, 16] = np.nan, np.nan
    unseen = np.where(np.isnan(keypoints).any(-1, keepdims=True), 0, keypoints)
    poses = lift_keypoints(keypoints[..., :2], SIZE, 60)
    np.testing.assert_array_equal(poses, lift_keypoints(unseen, SIZE, 60))
    assert np.isfinite(poses).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts(layout):
    points = np.random.default_rng(0).uniform(200, 900, (3, len(LAYOUTS[layout]), 3)) * (1, 1, 0.001)
    poses = lift_keypoints(points, SIZE, joints=layout)
    np.testing.assert_allclose(poses, lift_keypoints(to_h36m(points, layout), SIZE), atol=1e-6)


def test_strays_and_frames_without_people(woman, lifted, caplog):
    keypoints = woman[0].copy()
    keypoints[10, 13, :2] = 1e30, -1e30  # the left wrist
    keypoints[20:23] = np.nan
    keypoints[22, 9] = 500, 500, 1  # a nose alone
    keypoints[:2, :, 2] = 0
    poses = lift_keypoints(keypoints, SIZE, 60)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "far outside of the image in 1 of 40 frames" in caplog.text
    assert "fewer than 3 joints in 5 of 40 frames" in caplog.text
    assert np.linalg.norm(poses - lifted, axis=-1).max() < 0.25
    assert np.linalg.norm(poses - lifted, axis=-1)[20:23].mean() < 0.05


def test_a_joint_just_outside_is_kept():
    points = np.ones((17, 3)) * (50, 50, 1)
    points[3], points[4], points[5], points[6] = (-99, 50, 1), (-101, 50, 1), (50, 101, 1), (1000, 50, 0)
    kept, strays = unsee_strays(points, 100, 50)
    assert strays and (kept[:, 2] == 0).nonzero()[0].tolist() == [4, 5, 6]
    assert kept[3].tolist() == [-99, 50, 1] and kept[4, 0] == kept[6, 0] == np.mean([50] * 13 + [-99])


def refused(message, keypoints, size=SIZE, **options):
    with pytest.raises(UserError) as error:
        lift_keypoints(keypoints, size, **options)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_bad_arguments(woman, tmp_path):
    keypoints = woman[0]
    refused("keypoints: have the shape (17, 3); h36m17 needs (frames, 17, 3)", keypoints[0])
    refused("keypoints: have the shape (40, 16, 3)", keypoints[:, :16])
    refused("keypoints: have the shape (0, 17, 3)", keypoints[:0])
    refused("keypoints: have the shape (40, 17, 1)", keypoints[..., :1])
    refused("keypoints: are no array of numbers", [[[1, 2, 3]], [[1, 2]]])
    refused("keypoints: are no array of numbers", [["a"]])
    refused("keypoints: no frame has 3 joints", np.full((4, 17, 2), np.nan))
    refused("keypoints: no frame has 3 joints", keypoints * (1, 1, 0))
    refused("keypoints: no frame has 3 joints", keypoints + (0, 1e5, 0))
    refused("joints: unknown 'coco' (did you mean 'coco17'?); there are coco17", keypoints, joints="coco")
    refused("joints: unknown ['coco17']", keypoints, joints=["coco17"])
    refused("size: 640: expected the width and height", keypoints, 640)
    refused("joints: unknown 'COCO17' (did you mean 'coco17'?); there are coco17, halpe26", keypoints, joints="COCO17")
    refused("size: 0: expected a number of 1 to 1e+06", keypoints, (0, 0))
    numbers = 0, -1, 1e-9, 1e12, np.nan, np.inf, True, np.True_, 30 + 0j
    for wrong in (*numbers, "wide", "30", None, [1, 2], torch.ones(2)):
        refused(f"size: {wrong!r}: expected a number of 1 to", keypoints, (wrong, 1920))
        refused(f"fps: {wrong!r}: expected a number of 0.1 to 10000", keypoints, fps=wrong)
        if wrong is not None:
            refused(f"focal: {wrong!r}: expected a number of 1 to", keypoints, focal=wrong)
    refused(f"{tmp_path / 'none.bin'}: no such file", keypoints, weights=tmp_path / "none.bin")
    (tmp_path / "text.safetensors").write_text("text")
    refused(f"{tmp_path / 'text.safetensors'}: is truncated or not", keypoints, weights=tmp_path / "text.safetensors")


def test_keypoints_that_are_no_pixels_or_no_numbers(woman):
    keypoints = woman[0]
    normalised = keypoints / (*SIZE, 1)
    refused("keypoints: all coordinates are within 0.", normalised)
    refused("keypoints: all coordinates are within 0.", normalised[..., :2])
    refused("keypoints: all coordinates are within 1,", normalised * (2, 2, 1) * 0 - (1, 0.5, -1))
    normalised[0, 5, :2] = 500, 900
    assert np.isfinite(lift_keypoints(normalised, SIZE)).all()
    refused("keypoints: a confidence is 95; 0 to 1 is needed", np.where([False, False, True], 95, keypoints))
    refused("keypoints: are no array of numbers, frames x 17 joints x 3 (their type is bool)", keypoints > 0)
    for wrong in (keypoints + 0j, keypoints.astype(str), torch.tensor(keypoints + 0j).conj(), torch.ones(1, 17, 3) > 0):
        refused("keypoints: are no array of numbers", wrong)


def test_someone_on_their_side_is_told(woman, caplog):
    x, y, confidence = np.moveaxis(woman[0], -1, 0)
    lift_keypoints(np.stack([1920 - y, x, confidence], -1), SIZE[::-1], 60)
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "points to the right of the image: if that is turned, turn it 270 degrees clockwise"
    )


def test_what_is_masked_is_not_seen(woman):
    keypoints = woman[0].copy()
    masked = np.ma.masked_array(keypoints.copy(), np.zeros(keypoints.shape, bool))
    masked[7:9, 4, 0] = np.ma.masked
    masked.data[7:9, 4] = 1e4
    keypoints[7:9, 4, 2] = 0
    np.testing.assert_array_equal(lift_keypoints(masked, SIZE, 60), lift_keypoints(keypoints, SIZE, 60))


def test_strays_in_a_file_of_keypoints(tmp_path, caplog):
    """The sample's size is 640 x 360; someone stands there, others are far outside or one joint only."""
    frames = 20
    keypoints = np.ones((3, frames, 17, 3), np.float32)
    standing = np.random.default_rng(0).uniform(100, 300, (17, 2))
    keypoints[..., :2] = standing
    keypoints[0, 7, 13, :2] = 5000
    keypoints[0, 12] = [[4000, 0, 1]] * 17
    keypoints[1, ..., :2] += 9000
    keypoints[2, :, 1:, 2] = 0
    np.savez(
        tmp_path / "people.npz", keypoints=keypoints.reshape(-1, 17, 3), frame=np.tile(np.arange(frames), 3),
        person=np.repeat(np.arange(3), frames), layout="h36m17",
    )  # fmt: skip
    poses = lift_video(SAMPLE, keypoints=tmp_path / "people.npz")
    assert f"joints of {frames + 2} of {3 * frames} people are far outside" in caplog.text
    assert f"{2 * frames + 1} of {3 * frames} people have fewer than 3 joints: left out" in caplog.text
    (person,) = poses.people
    assert person.bridged.tolist() == [number == 12 for number in range(frames)]
    assert person.keypoints[..., :2].max() < 301 and person.keypoints[7, 13, 2] == 0
    assert np.ptp(person.camera, axis=1).max() < 3

    np.savez(tmp_path / "nose.npz", keypoints=keypoints[2], frame=np.arange(frames), layout="h36m17")
    with pytest.raises(UserError, match="nose.npz: holds no person of 3 joints or more"):
        lift_video(SAMPLE, keypoints=tmp_path / "nose.npz")


UNNEEDED = {
    "lib.eval.report", "lib.engine.trainer", "lib.engine.experiment", "lib.eval.h36m", "lib.eval.mpi_inf_3dhp",
    "mlflow", "tensorboardX", "matplotlib", "torchvision", "timm", "scipy.signal",
}  # fmt: skip


def modules_after(program):
    program += "; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_inference_loads_neither_trainer_nor_scoring_nor_compiler():
    assert not modules_after("import lib.video") & {"torch", "cv2", "av", "scipy", *UNNEEDED}
    points = [[[x * 10, x * 7, 1] for x in range(len(JOINTS))]]
    loaded = modules_after(f"from lib.video import lift_keypoints; lift_keypoints({points}, (640, 360))")
    assert "lib.video.lift.lifter" in loaded
    assert not loaded & {"lib.video.pipeline", "supervision", "cv2", "av", *UNNEEDED}
    loaded = modules_after("import lib.video.demo")  # before the first frame: PyTorch loads its compiler when it lifts
    assert "lib.video.pipeline" in loaded and not loaded & {"torch._dynamo", *UNNEEDED}
