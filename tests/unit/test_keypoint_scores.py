"""Scores of keypoints in the image, against numbers worked out by hand."""

import numpy as np
import pytest

from lib.body.layouts import LAYOUTS
from lib.eval.keypoints_2d import average_precision, evaluate_keypoints

COCO = LAYOUTS["coco17"]


@pytest.fixture
def people():
    rng = np.random.default_rng(0)
    truth = rng.uniform(10, 90, (40, 17, 3))
    truth[..., 2] = rng.choice([0, 1, 2], (40, 17))
    return truth


def scores(found, truth, **area):
    return evaluate_keypoints(found, truth, np.full(len(truth), 100.0), COCO, **area)


def moved(truth, pixels):
    found = truth.copy()
    found[..., 0] += pixels
    found[..., 2] = 1
    return found


def test_pck_counts_labelled_keypoints_within_a_share_of_the_size(people):
    found = moved(people, 0)
    found[:20, :, 0] += 7
    kept = (people[20:, :, 2] > 0).sum() / (people[..., 2] > 0).sum()
    found[people[..., 2] == 0] = -1000  # not labelled: does not matter
    result = scores(found, people)
    assert result.pck == {0.05: pytest.approx(kept), 0.1: 1, 0.2: 1}
    assert result.headline == pytest.approx(1 - kept)
    assert result.per_joint.keys() == set(COCO)
    nose = people[:, 0, 2] > 0
    assert result.per_joint["nose"] == pytest.approx(nose[20:].sum() / nose.sum())
    assert "oks_ap" not in result.values and "pck_0.05" in result.summary()


@pytest.mark.parametrize("similarity, expected", [(1.0, 1.0), (0.87, 0.8), (0.52, 0.1), (0.49, 0.0)])
def test_ap_is_the_share_of_thresholds_below_the_similarity(similarity, expected):
    """OKS of one keypoint is exp(-d² / (2 area k²)), k twice COCO's sigma: 0.025 * 2 of an eye."""
    truth = np.zeros((3, 17, 3))
    truth[:, 1] = (50, 50, 2)
    area, k = 4000.0, 0.05
    distance = np.sqrt(-2 * np.log(similarity) * area * k**2)
    found = moved(truth, distance)
    assert average_precision(found, truth, np.full(3, area)) == pytest.approx(expected, abs=1e-6)


def test_who_has_no_label_does_not_count(people):
    people[:5, :, 2] = 0
    result = scores(moved(people, 0), people, area=np.full(40, 2000.0))
    assert result.ap == pytest.approx(1) and result.pck[0.05] == 1


def test_the_table_shows_all_beside_others(people):
    result = scores(moved(people, 3), people, area=np.full(40, 2000.0))
    text = result.table("MambaPose", {"mean_pose": scores(moved(people, 30), people)})
    for word in ("MambaPose", "mean pose", "left ankle", "pck_0.05", "oks_ap", "1.000"):
        assert word in text
    assert result.as_dict()["per_joint"]["left ankle"] == 1
