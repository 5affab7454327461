"""Readers of COCO's keypoints and of Human3.6M's frames, on small sets in their layouts, and COCO's own scores."""

import json
import pickle
import sys
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
import torch
from conftest import ROOT, Trap
from small_images import CAMERA, COLOURS, SIZE, make_coco, make_h36m, save
from tiny_training import run, trained, training, weights

from lib.body.camera import project
from lib.body.skeleton import limb_vectors
from lib.config import load_config
from lib.data.crop_maps import inverse, mapped, maps_to_crops, shown_part
from lib.data.datasets import DATASETS, open_dataset
from lib.data.datasets.coco import CocoKeypoints
from lib.data.datasets.h36m_images import HumanImages
from lib.data.image_files import UnreadableImage, read_image
from lib.data.loader import Loader
from lib.data.motion_files import read_motion_files
from lib.engine.checkpoint import WITHIN
from lib.engine.interrupts import StopRequest
from lib.errors import UserError
from lib.eval.coco_results import SIGMAS, coco_results, coco_stats, distinct
from lib.eval.keypoints_2d import MISSED, CocoScorer
from lib.model.weights import read_checkpoint

CROP = (96, 128)
BOTH = ["image", "coco"]


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture
def copied(tmp_path):
    """A set that a test may damage."""
    return make_coco(tmp_path / "coco", train=6, test=4)


def fails(match, call, *arguments, **options):
    """The call ends with one line that matches."""
    with pytest.raises(UserError, match=match) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


def change(path, edit):
    """Change the content of a JSON file."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def spots(images, keypoints, colours, reach=5):
    """Distances, px, from keypoints to the middle of what has their colour about them, of those well within a crop."""
    found = []
    for image, places in zip(images.permute(0, 2, 3, 1).numpy().astype(float), keypoints.numpy()):
        for (x, y, seen), colour in zip(places, colours[:, ::-1].astype(float)):
            left, top = int(x) - reach, int(y) - reach
            if not seen or min(left, top) < 0 or max(left - CROP[0], top - CROP[1]) > -2 * reach - 1:
                continue
            part = image[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
            weight = np.clip(1 - np.abs(part - colour).max(-1) / 60, 0, None)
            if weight.sum() > 3:
                rows, columns = np.indices(weight.shape)
                middle = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum() + (left, top) + 0.5
                found.append(np.linalg.norm(middle - (x, y)))
    return np.array(found)


# Maps


def test_a_map_puts_the_box_into_the_middle_and_comes_back():
    boxes = np.array([[10.0, 20, 60, 160], [0, 0, 200, 50]])
    centre, width = shown_part(boxes, CROP)
    np.testing.assert_allclose(centre, [[40, 100], [100, 25]])
    np.testing.assert_allclose(width, [1.25 * 160 * 96 / 128, 1.25 * 200])
    maps = maps_to_crops(centre, width, CROP)
    corners = mapped(maps, np.stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
    np.testing.assert_allclose(corners.mean(1), [[48, 64]] * 2, atol=1e-9)
    np.testing.assert_allclose(corners[0, :, 1], [128 * 0.1, 128 * 0.9])  # 1.25 of its height
    np.testing.assert_allclose(corners[1, :, 0], [96 * 0.1, 96 * 0.9])
    turned = maps_to_crops(centre, width, CROP, np.array([0.3, -2]), np.array([-1.0, 1]))
    places = np.random.default_rng(0).uniform(0, 200, (2, 5, 2))
    np.testing.assert_allclose(mapped(inverse(turned), mapped(turned, places)), places)
    assert np.linalg.det(turned[..., :2]).tolist() == pytest.approx([-((96 / 150) ** 2), (96 / 250) ** 2])


# COCO


def test_people_with_keypoints_are_read_and_shown_where_they_are(coco):
    crops = CocoKeypoints(coco, CROP).crops("test", BOTH)
    assert len(crops) == 6 and crops.size == CROP  # 5 images, one of them with two people
    batch = crops[:]
    assert batch["image"].shape == (6, 3, 128, 96) and batch["image"].dtype == torch.uint8
    assert batch["coco"].shape == (6, 17, 3) and not batch["unread"].any()
    assert {0, 1, 2} == set(batch["coco"][..., 2].flatten().tolist())
    apart = spots(batch["image"], batch["coco"], COLOURS)
    assert len(apart) > 50 and np.median(apart) < 0.2 and np.quantile(apart, 0.8) < 0.3


def test_random_parts_keep_keypoints_and_their_sides_on_the_people(coco):
    crops = CocoKeypoints(coco, CROP).crops("train", BOTH)
    views = [crops.of_epoch(seed)[[3, 0, 7]] for seed in range(12)]
    again = crops.of_epoch(4)[[0, 7]]
    for key in BOTH:
        assert torch.equal(views[4][key][1:], again[key]), "a crop follows from the epoch's seed and its number alone"
    images, keypoints = (torch.cat([view[key] for view in views]) for key in BOTH)
    right_side = COLOURS[[0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]]
    plain, mirrored = (spots(images, keypoints, colours) for colours in (COLOURS, right_side))
    assert len(plain) > 100 and np.median(plain) < 0.5
    assert len(mirrored) > 100 and np.median(mirrored) < 0.5  # spots change sides with the mirror, labels as well
    outside = ((keypoints[..., :2] < 0) | (keypoints[..., :2] >= torch.tensor(CROP))).any(-1)
    assert outside.any() and not keypoints[outside][:, 2].any()
    spread = [keypoints[n][keypoints[n, :, 2] > 0][:, 1] for n in range(len(keypoints))]
    heights = np.array([float(y.max() - y.min()) for y in spread if len(y) > 8])
    assert heights.max() > 1.8 * heights.min()


def test_keypoints_come_back_to_the_image_and_perfect_ones_score_1(coco):
    dataset = CocoKeypoints(coco, CROP)
    truth = dataset.crops("test", ["coco"])[:]["coco"].numpy()
    found = truth - [0.5, 0.5, 0]
    back = dataset.in_images(found)
    content = json.loads(dataset.annotations("test").read_text())
    told = np.array([a["keypoints"] for a in content["annotations"] if a["num_keypoints"]]).reshape(-1, 17, 3)
    labelled = told[..., 2] > 0
    np.testing.assert_allclose(back[labelled], told[labelled], atol=1e-4)
    scores = CocoScorer(dataset, "coco17").score(found, found)
    assert scores.ap == 1 and scores.coco["AR"] == 1 and scores.headline == 0 and scores.pck[0.05] == 1
    assert scores.values["oks_ap"] == 1 and "AP50" in scores.values


def test_scores_are_those_of_pycocotools_on_the_written_file(coco, tmp_path):
    coco_module = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    dataset = CocoKeypoints(coco, CROP)
    rng = np.random.default_rng(0)
    found = dataset.crops("test", ["coco"])[:]["coco"].numpy() - [0.5, 0.5, 0]
    found[..., :2] += rng.normal(0, 2.5, found[..., :2].shape)
    found[..., 2] = rng.uniform(0, 1, found.shape[:2])
    scorer = CocoScorer(dataset, "coco17")
    scores = scorer.score(found, found)
    (path,) = scorer.write(found, tmp_path)
    with redirect_stdout(StringIO()):
        known = coco_module.COCO(str(dataset.annotations("test")))
        direct = COCOeval(known, known.loadRes(str(path)), "keypoints")
        direct.evaluate()
        direct.accumulate()
        direct.summarize()
    assert 0.1 < scores.ap < 0.95
    assert [scores.ap, *scores.coco.values()] == pytest.approx(list(direct.stats), abs=1e-12)


def test_detected_boxes_are_scored_over_all_images(coco, tmp_path, caplog):
    annotated = CocoKeypoints(coco, CROP)
    content = json.loads(annotated.annotations("test").read_text())
    boxes = [
        {"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 0.9}
        for a in content["annotations"]
        if a["num_keypoints"]
    ]
    truth = np.array([a["keypoints"] for a in content["annotations"] if a["num_keypoints"]]).reshape(-1, 17, 3)
    others = [
        {"image_id": 1, "category_id": 17, "bbox": [1, 1, 40, 40], "score": 1.0},  # a cat
        {"image_id": 2, "category_id": 1, "bbox": [400, 1, 40, 40], "score": 0.8},
        {"image_id": 2, "category_id": 1, "bbox": [200, 60, 40, 90], "score": 0.5},  # nobody is there
    ]
    path = tmp_path / "detections.json"
    path.write_text(json.dumps([*boxes, *others, *boxes[:2]]))
    dataset = CocoKeypoints(coco, CROP, path)
    assert len(dataset.tested.image) == len(boxes) + 1 + 2
    assert "1 of 10 boxes are empty or lie outside of their images, first that of entry 7: left out" in caplog.text
    back = np.concatenate([truth, truth[:1] + [3, 0, 0], truth[:2] + [0.4, 0, 0]]).astype(float)
    back[..., 2] = 1
    people = dataset.tested.people
    found = mapped(maps_to_crops(people.centre, people.width, CROP), back[..., :2] + 0.5) - 0.5
    found = np.concatenate([found, back[..., 2:]], -1)
    np.testing.assert_allclose(dataset.in_images(found), back, atol=1e-6)
    scorer = CocoScorer(dataset, "coco17")
    scores = scorer.score(found, dataset.crops("test", ["coco"])[:]["coco"].numpy())
    assert scores.pck == {} and scores.ap == 1  # who is there twice counts once; the wrong one is less sure
    assert len(scorer._results(found)) == len(boxes) + 1
    missing = found.copy()
    missing[:2] = missing[-2:] = MISSED
    assert scorer.score(missing, found).coco["AR"] == pytest.approx((len(boxes) - 2) / len(boxes))


def test_a_persons_score_is_the_boxs_times_that_of_sure_keypoints():
    keypoints = np.zeros((3, 17, 3))
    keypoints[0, :, 2] = [0.1] * 7 + [0.5] * 5 + [0.9] * 5
    keypoints[1, :, 2] = 0.2
    keypoints[2, :, 2], keypoints[2, :, 0] = 0.6, 500
    found = coco_results(keypoints, np.array([4, 9, 4]), np.array([0.5, 0.9, 1]), np.full(3, 1e4))
    assert [(entry["image_id"], entry["score"]) for entry in found] == [
        (4, pytest.approx(0.5 * 0.7)), (9, 0), (4, pytest.approx(0.6)),
    ]  # fmt: skip
    assert coco_results(keypoints[:0], np.zeros(0, int), np.zeros(0), np.zeros(0)) == []


@pytest.mark.parametrize("similarity, kept", [(0.95, [1]), (0.85, [1, 0])])
def test_people_who_are_all_but_the_same_are_one(similarity, kept):
    people = np.zeros((2, 17, 3))
    people[1, :, 0] = np.sqrt(-2 * np.log(similarity) * 5000) * 2 * SIGMAS
    assert distinct(people, np.array([0.3, 0.4]), np.array([4000.0, 6000.0])) == kept


def test_no_result_scores_0(coco):
    assert set(coco_stats(CocoKeypoints(coco, CROP).annotations("test"), []).values()) == {0.0}


@pytest.mark.parametrize(
    "keys, message",
    [
        (["flow"], "streams: coco has single images without flow; set streams: rgb"),
        (["image", "depth"], "streams: coco has single images without depth; set streams: rgb"),
        (["h36m"], "joints: h36m17: coco has coco17; set joints: coco17"),
        (["coco", "pose"], "head: 3d: coco has no joints in space; set head: 2d"),
    ],
)
def test_what_photographs_have_not_is_one_line(coco, keys, message):
    fails(message, CocoKeypoints(coco, CROP).crops, "train", keys)


def test_files_that_are_not_cocos_are_one_line(copied, tmp_path):
    path = copied / "annotations" / "person_keypoints_val2017.json"
    good = path.read_text()

    def refused(match, edit):
        path.write_text(good)
        change(path, edit)
        fails(match, lambda: CocoKeypoints(copied, CROP).tested)

    refused(
        "other keypoints .nose, tail. than COCO's 17", lambda c: c["categories"][0].update(keypoints=["nose", "tail"])
    )
    refused(
        r"annotations 0: keypoints has 42 values, 51 finite", lambda c: c["annotations"][0].update(keypoints=[1] * 42)
    )
    refused("annotations 2: bbox is missing", lambda c: c["annotations"][2].pop("bbox"))
    refused("annotations 2: bbox has 3 values, 4 ", lambda c: c["annotations"][2].update(bbox=[1, None, 3]))
    refused("annotations 0: image_id 77 is not among", lambda c: c["annotations"][0].update(image_id=77))
    refused("images 1: width is 'wide', expected int", lambda c: c["images"][1].update(width="wide"))
    refused("has no list 'annotations'", lambda c: c.update(annotations={}))
    path.write_text(good[:-40])
    fails("val2017.json: is truncated or no JSON", lambda: CocoKeypoints(copied, CROP).tested)
    path.write_text("[]")
    fails("val2017.json: is a list, a dict is needed", lambda: CocoKeypoints(copied, CROP).tested)
    path.unlink()
    fails("val2017.json: no such file .*set dt_root", lambda: CocoKeypoints(copied, CROP).tested)
    fails("nowhere: no such folder; set dt_root", CocoKeypoints, tmp_path / "nowhere", CROP)


# Images that cannot be read


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


DAMAGE = {
    "truncated": (truncate, "truncated or no image"),
    "text": (lambda path: path.write_text("not found"), "truncated or no image"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "missing": (lambda path: path.unlink(), "no such file or directory"),
    "another": (lambda path: save(np.zeros((9, 9, 3), np.uint8), path), "9 x 9 px, 320 x 240 are annotated"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_image_gives_its_place_to_the_next_crop_and_is_counted(copied, damage):
    hurt, reason = DAMAGE[damage]
    hurt(copied / "train2017" / "000000000002.jpg")
    whole = CocoKeypoints(copied, CROP).crops("train", BOTH)
    number = whole.people.images.tolist().index("000000000002.jpg")
    batch = whole.of_epoch(5)[[number, number + 1, 0]]
    for key in BOTH:
        assert torch.equal(batch[key][0], batch[key][1]) and not torch.equal(batch[key][0], batch[key][2])
    assert whole.unread == {"000000000002.jpg": reason} and not batch["unread"].any()
    with pytest.raises(UnreadableImage, match=reason):
        read_image(copied / "train2017" / "000000000002.jpg", SIZE)


def test_a_damaged_image_is_a_miss_when_scored(copied):
    truncate(copied / "val2017" / "000000000003.jpg")
    crops = CocoKeypoints(copied, CROP).crops("test", BOTH)
    batch = crops[:]
    assert batch["unread"].tolist() == [False, False, True, True, False]
    assert not batch["image"][2:4].any() and batch["image"][[0, 1, 4]].flatten(1).any(1).all()
    assert list(crops.unread) == ["000000000003.jpg"] and (batch["coco"][2:4, :, 2] > 0).any()
    dataset = CocoKeypoints(copied, CROP)
    found = batch["coco"].numpy() - [0.5, 0.5, 0]
    found[2:4] = MISSED
    scores = CocoScorer(dataset, "coco17").score(found, batch["coco"].numpy() - [0.5, 0.5, 0])
    assert scores.coco["AR"] == pytest.approx(3 / 5) and 0.5 < scores.pck[0.2] < 0.7


def test_a_set_without_a_readable_image_ends_training(copied):
    for path in (copied / "train2017").iterdir():
        path.unlink()
    fails(
        "crops in a row cannot be read, such as .*no such file",
        CocoKeypoints(copied, CROP).crops("train", BOTH).__getitem__,
        [0],
    )


def test_batches_are_the_same_whoever_reads_ahead(copied):
    truncate(copied / "train2017" / "000000000004.jpg")
    crops = CocoKeypoints(copied, CROP).crops("train", BOTH)
    alone, ahead = (list(Loader(crops, 3, workers=workers).epoch(9)) for workers in (0, 2))
    later = list(Loader(crops, 3, workers=2).epoch(9, first=1))
    for one, other in zip([*alone, *alone[1:]], [*ahead, *later]):
        assert torch.equal(one["image"], other["image"]) and torch.equal(one["coco"], other["coco"])


class StopAfter(StopRequest):
    """A stop that is asked for after some steps."""

    def __init__(self, trainer, steps):
        self.trainer, self.steps = trainer, steps

    @property
    def requested(self):
        return self.trainer.state.step >= self.steps


def test_a_run_that_stopped_within_an_epoch_goes_on_as_if_it_had_not_beside_a_damaged_image(copied, tmp_path, caplog):
    truncate(copied / "train2017" / "000000000002.jpg")
    keys = {
        "backbone": "MambaPose", "size": "nano", "streams": "rgb", "dataset": "coco", "dt_root": str(copied),
        "crop": [32, 48], "batch_size": 2, "num_workers": 2, "epochs": 2,
    }  # fmt: skip
    for folder in ("whole", "parted"):
        (tmp_path / folder).mkdir()
    with caplog.at_level("WARNING"):
        whole = trained(tmp_path / "whole", **keys)
    assert "1 image cannot be read (000000000002.jpg: truncated or no image): others of the set took" in caplog.text
    with training(tmp_path / "parted", **keys) as trainer, pytest.raises(KeyboardInterrupt):
        trainer.stop = StopAfter(trainer, 6)  # in the second epoch of 4 steps
        run(trainer)
    with training(tmp_path / "parted", **keys) as trainer:
        checkpoint = read_checkpoint(tmp_path / "parted" / WITHIN)
        checkpoint.load_into(trainer.state.model)
        trainer.state.resume(checkpoint, trainer.runtime, trainer.config)
        assert trainer.state.position.batch == 2
        run(trainer)
    assert torch.equal(weights(whole.state.model), weights(trainer.state.model))
    losses = [[entry["train/loss"] for entry in part.state.history] for part in (whole, trainer)]
    assert losses[0] == losses[1]


# Human3.6M's frames


@pytest.fixture(scope="module")
def poses():
    """Poses (6, 17, 3) of motion capture, m, y down."""
    joints = read_motion_files([ROOT / "data" / "cmu17_large.npz"])["joints"][::30_000][:6]
    joints = joints - joints[:, :1]
    return joints[..., [0, 2, 1]] * [1, -1, 1]


@pytest.fixture(scope="module")
def h36m(tmp_path_factory, poses):
    folder = tmp_path_factory.mktemp("h36m")
    return folder, make_h36m(folder, poses)


FPS50 = "annotation_body3d/fps50"


def test_frames_are_read_with_keypoints_and_poses_of_the_crops_camera(h36m):
    folder, joints = h36m
    dataset = HumanImages(folder, FPS50, CROP)
    assert [len(dataset.crops(split, ["pose"])) for split in ("train", "test")] == [4, 2]
    batch = dataset.crops("train", ["image", "h36m", "pose"])[:]
    apart = spots(batch["image"], batch["h36m"], COLOURS)
    assert len(apart) > 40 and np.median(apart) < 0.4
    pose, known = batch["pose"].numpy(), joints["train"]
    np.testing.assert_allclose(np.linalg.norm(limb_vectors(pose), axis=-1).sum(1), 3.98, rtol=1e-4)
    assert not pose[:, 0].any()
    scale = (np.linalg.norm(limb_vectors(known), axis=-1).sum(1) / 3.98)[:, None, None]
    away = np.linalg.norm(known[:, :1], axis=-1, keepdims=True)
    focal = (CAMERA["f"][:, 0] * CROP[0] / dataset._people("train").width[:, None])[:, None]
    places, middle = batch["h36m"].numpy()[..., :2], np.array(CROP) / 2
    ray = np.concatenate([(places[:, :1] - middle) / focal, np.ones((4, 1, 1))], -1)
    root = ray / np.linalg.norm(ray, axis=-1, keepdims=True) * away
    apart = [  # a camera turned to the middle of the crop sees the pose where it is; the frame's own axes are others
        np.abs(project(poses * scale + root, focal, middle) - places).mean() for poses in (pose, unturned(known))
    ]
    assert apart[0] < 0.5 and apart[1] > 2 * apart[0], apart


def unturned(joints):
    pose = joints - joints[:, :1]
    return pose * 3.98 / np.linalg.norm(limb_vectors(pose), axis=-1).sum(1)[:, None, None]


def test_strides_and_other_joints_of_frames(h36m):
    folder, _ = h36m
    assert len(HumanImages(folder, FPS50, CROP, stride=3).crops("train", ["pose"])) == 2
    dataset = HumanImages(folder, FPS50, CROP)
    fails("joints: coco17: h36m_images has h36m17; set joints: h36m17", dataset.crops, "test", ["coco"])
    fails("streams: h36m_images has single images without flow", dataset.crops, "test", ["flow"])
    fails(
        "fps9: no such folder; set dt_file: annotation_body3d/fps50",
        HumanImages,
        folder,
        "annotation_body3d/fps9",
        CROP,
    )


def test_files_that_are_not_human36ms_are_one_line(tmp_path, poses):
    make_h36m(tmp_path, poses[:3])
    path, cameras = tmp_path / FPS50 / "h36m_test.npz", tmp_path / "annotation_body3d" / "cameras.pkl"
    arrays = dict(np.load(path))

    def refused(match, **changes):
        np.savez(path, **(arrays | changes))
        fails(match, HumanImages(tmp_path, FPS50, CROP).crops, "test", ["pose"])

    refused("part has the shape .1, 16, 3., .1, 17, 3. is needed", part=arrays["part"][:, 1:])
    refused("part of S9/.* is not finite", part=arrays["part"] * np.nan)
    refused("is all in one point", S=np.ones((1, 17, 4)))
    refused("imgname 'a.jpg' is not like", imgname=np.array(["a.jpg"]))
    np.savez(path, **{key: value for key, value in arrays.items() if key != "S"})
    fails("lacks array 'S'", HumanImages(tmp_path, FPS50, CROP).crops, "test", ["pose"])
    np.savez(path, **arrays)
    cameras.write_bytes(pickle.dumps({("S1", "54138969"): CAMERA}))
    fails(
        "cameras.pkl: has no f and c, .* of camera .'S9', '54138969'.",
        HumanImages(tmp_path, FPS50, CROP).crops,
        "test",
        ["pose"],
    )
    cameras.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    fails("cameras.pkl: refused: only NumPy arrays", HumanImages(tmp_path, FPS50, CROP).crops, "test", ["pose"])
    assert not (tmp_path / "sprung").exists()


def test_a_crop_outside_of_its_frame_is_not_read(tmp_path, poses):
    make_h36m(tmp_path, poses[:3])
    path = tmp_path / FPS50 / "h36m_test.npz"
    arrays = dict(np.load(path))
    np.savez(path, **(arrays | {"part": arrays["part"] + [5000, 0, 0]}))
    crops = HumanImages(tmp_path, FPS50, CROP).crops("test", ["image", "h36m"])
    assert crops[:]["unread"].all()
    assert list(crops.unread.values()) == ["the person's box is outside of its 1000 x 1002 px"]


# Configs


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["crop=[48]"], r"crop: \[48\]: list should have at least 2 items"),
        (["crop=[48, 60]"], r"crop: \[48, 60\]: input should be a multiple of 16"),
        (["dt_root=nowhere"], "nowhere: no such folder; set dt_root"),
        (["detections=none.json"], "none.json: no such file"),
        (["train_2d=True"], "train_2d: has no effect on dataset coco"),
    ],
)
def test_keys_that_do_not_fit_are_one_line(coco, overrides, message):
    config = ROOT / "configs" / "mambapose" / "MambaPose_small_coco.yaml"
    values = [f"dt_root={coco}", "crop=[96, 128]", *overrides]
    fails(message, lambda: open_dataset(load_config(config, values)))


def test_the_learning_rate_drops_after_the_epochs_that_are_named(copied, tmp_path):
    keys = {"backbone": "MambaPose", "size": "nano", "streams": "rgb", "dataset": "coco", "dt_root": str(copied)}
    more = {
        "crop": [32, 48],
        "batch_size": 7,
        "epochs": 4,
        "learning_rate": 1e-3,
        "lr_decay": 1.0,
        "lr_drops": [1, 3],
    }
    history = trained(tmp_path, **keys, **more).state.history
    assert [entry["lr"] for entry in history] == pytest.approx([1e-3, 1e-4, 1e-4, 1e-5])


def test_without_opencv_the_package_to_install_is_named(monkeypatch, coco):
    for name in ("lib.data.datasets.coco", "lib.data.image_crops", "lib.data.image_files", "lib.data.crop_maps"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cv2", None)
    message = "needs the package cv2, which is not installed: pip install -r requirements-mambapose.txt"
    fails(message, DATASETS["coco"].load)
