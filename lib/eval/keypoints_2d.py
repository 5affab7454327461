"""Scores of keypoints in the image: PCK, and COCO's average precision over object keypoint similarity (OKS)."""

import json
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lib.body.layouts import LAYOUTS
from lib.eval.coco_results import coco_results, coco_stats
from lib.eval.scores import Scores, as_text
from lib.files import atomic_path

SHARES = (0.05, 0.1, 0.2)  # of a person's size, within which a keypoint is right
MISSED = (0.0, 0.0, -1.0)  # a keypoint of an image that could not be read: it is wrong wherever it is
RESULTS = "coco_results.json"
_FINEST = SHARES[0]


class _KeypointScores(NamedTuple):
    pck: dict
    per_joint: dict
    ap: float | None
    coco: dict = {}


class KeypointScores(Scores, _KeypointScores):
    """Scores of 2D keypoints, all shares from 0 to 1.

    pck: {share of the size: of all labelled keypoints, those that are right}, empty where no keypoint is labelled;
    per_joint: {joint: the same at the first of `SHARES`}; ap: COCO's AP, None where joints are not COCO's; coco: its
    other numbers, where people are scored over whole images, of which AP is then the one that counts.
    """

    @property
    def headline(self):
        return 1 - (self.ap if self.coco else self.pck[_FINEST])

    @property
    def values(self):
        ap = {} if self.ap is None else {"oks_ap": self.ap}
        return {**{f"pck_{share}": value for share, value in self.pck.items()}, **ap, **self.coco}

    @property
    def details(self):
        return {f"pck_{_FINEST} {joint}": value for joint, value in self.per_joint.items()}

    def summary(self):
        return "  ".join(f"{name} {value:.3f}" for name, value in self.values.items() if name not in self.coco)

    def as_dict(self):
        return {**self.values, "per_joint": self.per_joint}

    def table(self, name, others):
        from rich.table import Table

        columns = {name: self, **{other.replace("_", " "): scores for other, scores in others.items()}}
        view = Table(title=f"PCK: share of keypoints within a share of the person's size; per joint: {_FINEST}")
        view.add_column("", no_wrap=True)
        for title in columns:
            view.add_column(title, justify="right")
        for part in ("per_joint", "values"):
            for key in getattr(self, part):
                view.add_row(key, *(f"{getattr(scores, part).get(key, np.nan):.3f}" for scores in columns.values()))
            view.add_section()
        return as_text(view)


class CropScorer:
    """Scorer of people who are each alone in their crop: PCK of the crop's height, and AP with the areas of masks.

    Args:
        dataset: what the crops are of; for COCO's joints its crops have a "mask".
        joints: their layout.
    """

    chosen_by = "PCK at 5 %"

    def __init__(self, dataset, joints):
        self.dataset, self.joints = dataset, joints

    @cached_property
    def area(self):
        """Area of the persons of the test split, (n,) px², for AP; None where joints are not COCO's."""
        if self.joints != "coco17":
            return None
        return self.dataset.crops("test", ["mask"])[:]["mask"].sum((1, 2)).numpy()

    def score(self, found, truth):
        """Return the `KeypointScores` of keypoints (n, J, 3) of the test split, px of the crops."""
        return evaluate_keypoints(found, truth, _heights(found, self.dataset), LAYOUTS[self.joints], self.area)

    def write(self, found, folder):
        """Write nothing; return the files' paths."""
        return []


class CocoScorer:
    """Scorer of people in whole images of COCO by its own rules, and by PCK where their keypoints are known.

    Args:
        dataset: `lib.data.datasets.coco.CocoKeypoints`.
        joints: COCO's layout.
    """

    chosen_by = "AP"

    def __init__(self, dataset, joints):
        self.dataset, self.joints = dataset, joints

    def score(self, found, truth):
        """Return the `KeypointScores` of keypoints (n, J, 3) of the test split, px of the crops."""
        scores = evaluate_keypoints(found, truth, _heights(found, self.dataset), LAYOUTS[self.joints])
        stats = coco_stats(self.dataset.annotations("test"), self._results(found))
        return scores._replace(ap=stats.pop("AP"), coco=stats)

    def write(self, found, folder):
        """Write the results in COCO's format; return the files' paths."""
        path = folder / RESULTS
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self._results(found)))
        return [path]

    def _results(self, found):
        people = self.dataset.tested
        return coco_results(self.dataset.in_images(found), people.image, people.score, people.area)


def evaluate_keypoints(found, truth, size, joints, area=None):
    """Return the `KeypointScores` of predicted keypoints, one person each.

    Args:
        found: (n, J, 3): x and y in px, confidence; negative where there is no prediction, which is wrong.
        truth: (n, J, 3): x and y in px, and 0 where a keypoint is not labelled.
        size: (n,) px, what PCK's shares are of, such as the height of the person's box.
        joints: names of the J joints.
        area: (n,) px², of the persons' masks; None: no AP, which is for COCO's 17 joints.

    Raises:
        UserError: AP is asked for, and pycocotools is not installed.
    """
    ap = None if area is None else average_precision(found, truth, area)
    labelled = truth[..., 2] > 0
    if not labelled.any():
        return KeypointScores({}, {}, ap)
    distance = np.linalg.norm(found[..., :2] - truth[..., :2], axis=-1) / size[:, None]
    right = {share: (distance <= share) & (found[..., 2] >= 0) for share in SHARES}
    return KeypointScores(
        {share: _share(within, labelled) for share, within in right.items()},
        {joint: _share(right[_FINEST][:, j], labelled[:, j]) for j, joint in enumerate(joints)},
        ap,
    )


def average_precision(found, truth, area):
    """Return COCO's AP (OKS 0.50:0.95) by pycocotools of persons who are each alone in their image.

    A person's score is the mean confidence of their keypoints; who has no labelled keypoint does not count, and who was
    not seen (negative confidence) is missed.

    Args:
        found, truth: as of `evaluate_keypoints`.
        area: (n,) px², of the persons' masks.

    Raises:
        UserError: pycocotools is not installed.
    """
    persons = np.flatnonzero((truth[..., 2] > 0).any(1))
    annotations = {
        "info": {},
        "images": [{"id": int(n)} for n in persons],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [_annotation(n, truth[n], area[n]) for n in persons],
    }
    return coco_stats(annotations, [_detection(n, found[n]) for n in persons if found[n, :, 2].min() >= 0])["AP"]


def _heights(found, dataset):
    return np.full(len(found), dataset.size[1])


def _annotation(number, keypoints, area):
    labelled = keypoints[..., 2] > 0
    places = keypoints[labelled, :2]
    low, high = places.min(0), places.max(0)
    return {
        "id": int(number) + 1, "image_id": int(number), "category_id": 1, "iscrowd": 0, "area": float(area),
        "bbox": [*map(float, low), *map(float, high - low)], "num_keypoints": int(labelled.sum()),
        "keypoints": np.where(labelled[:, None], keypoints, 0).ravel().tolist(),
    }  # fmt: skip


def _detection(number, keypoints):
    return {
        "image_id": int(number),
        "category_id": 1,
        "keypoints": keypoints.ravel().tolist(),
        "score": float(keypoints[:, 2].mean()),
    }


def _share(right, of):
    """Return the share of `right` among the entries that are `of` the count; 0 where there is none."""
    return float((right & of).sum() / max(1, of.sum()))
