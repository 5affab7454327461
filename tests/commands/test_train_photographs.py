"""train.py on small sets in the layouts of COCO and of Human3.6M's frames, as a user trains and scores on them."""

import json
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
from conftest import ROOT
from small_images import make_coco, make_h36m
from test_train import environment, work  # noqa: F401

from lib.data.motion_files import read_motion_files
from lib.engine.checkpoint import LATEST
from lib.model.weights import read_checkpoint

CONFIGS = ROOT / "configs" / "mambapose"
QUIET = ["--no-mlflow", "--no-tensorboard"]
SMALL = ["size=nano", "crop=[48, 64]", "batch_size=4", "accumulate=1", "epochs=2", "warmup_steps=2"]
SMALL += ["num_workers=2", "learning_rate=1e-3"]


@pytest.fixture(scope="module")
def coco(work):  # noqa: F811
    """A set of which one image in training, and one to be scored, is truncated."""
    folder = make_coco(work / "coco", train=13, test=4)
    for path in (folder / "train2017" / "000000000005.jpg", folder / "val2017" / "000000000002.jpg"):
        path.write_bytes(path.read_bytes()[:900])
    return folder


def test_coco_is_learned_and_scored_beside_damaged_images(forks, work, coco):  # noqa: F811
    folder = work / "runs" / "coco"
    config = CONFIGS / "MambaPose_small_coco.yaml"
    printed = forks.train(work, "--config", config, "-c", folder, f"dt_root={coco}", *SMALL, *QUIET)
    for text in (
        f"17 crops of {coco}", "epoch 2/2", "pck_0.05", "oks_ap", "AP75", "by AP on the test split",
        "1 image cannot be read (000000000005.jpg: truncated or no image): others of the set took their place in training",
        "1 image cannot be read (000000000002.jpg: truncated or no image): they count as misses in the scores",
    ):  # fmt: skip
        assert text in printed, text
    first, last = (entry["train/loss"] for entry in read_checkpoint(folder / LATEST).history)
    assert last < first
    evaluate_on_detections(forks, work, coco, folder)


def evaluate_on_detections(forks, work, coco, folder):  # noqa: F811
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = coco / "annotations" / "person_keypoints_val2017.json"
    boxes = [
        {"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 0.7}
        for a in json.loads(annotations.read_text())["annotations"]
    ]
    (coco / "found.json").write_text(json.dumps(boxes))
    printed = forks.train(work, "-e", folder / LATEST, "detections=found.json", *QUIET)
    assert "they count as misses" in printed and "pck" not in printed
    scores = json.loads((folder / "evaluation" / "scores.json").read_text())
    results = folder / "evaluation" / "coco_results.json"
    assert len(json.loads(results.read_text())) <= len(boxes) - 2 and set(scores) == {"MambaPose"}
    with redirect_stdout(StringIO()):
        known = COCO(str(annotations))
        direct = COCOeval(known, known.loadRes(str(results)), "keypoints")
        direct.evaluate()
        direct.accumulate()
        direct.summarize()
    assert scores["MambaPose"]["oks_ap"] == direct.stats[0] and scores["MambaPose"]["AR"] == direct.stats[5]


def test_joints_are_learned_from_frames_of_human36m(forks, work):  # noqa: F811
    joints = read_motion_files([ROOT / "data" / "cmu17_large.npz"])["joints"][::20_000][:9]
    folder, run = work / "h36m", work / "runs" / "frames"
    make_h36m(folder, (joints - joints[:, :1])[..., [0, 2, 1]] * np.array([1, -1, 1]))
    (folder / "images" / "S1" / "S1_Directions_1.54138969" / "S1_Directions_1.54138969_000003.jpg").unlink()
    config = CONFIGS / "MambaPose_small_h36m_images.yaml"
    fps50 = "dt_file=annotation_body3d/fps50"
    printed = forks.train(work, "--config", config, "-c", run, f"dt_root={folder}", fps50, *SMALL, *QUIET)
    for text in ("6 crops of", "epoch 2/2", "P1 ", "mean pose", "1 image cannot be read (S1/", "no such file"):
        assert text in printed, text


def test_what_photographs_have_not_is_one_line(forks, work, coco):  # noqa: F811
    start = ["--config", CONFIGS / "MambaPose_small_coco.yaml", "-c", "runs/no", f"dt_root={coco}", *SMALL, *QUIET]
    line = forks.refusal(work, *start, "streams=rgb+flow")
    assert "streams: coco has single images without flow; set streams: rgb" in line
