"""Scores of keypoints in the image: PCK, and COCO's average precision over object keypoint similarity (OKS)."""

import io
from contextlib import redirect_stdout
from typing import NamedTuple

import numpy as np

from lib.errors import needing
from lib.eval.scores import Scores, as_text

SHARES = (0.05, 0.1, 0.2)  # of a person's size, within which a keypoint is right
_HEADLINE = SHARES[0]
_REQUIREMENTS = "requirements-mambapose.txt"


class _KeypointScores(NamedTuple):
    pck: dict
    per_joint: dict
    ap: float | None


class KeypointScores(Scores, _KeypointScores):
    """Scores of 2D keypoints, all shares from 0 to 1.

    pck: {share of the size: of all labelled keypoints, those that are right}; per_joint: {joint: the same at the first
    of `SHARES`}; ap: COCO's AP, None where joints are not COCO's.
    """

    @property
    def headline(self):
        return 1 - self.pck[_HEADLINE]

    @property
    def values(self):
        ap = {} if self.ap is None else {"oks_ap": self.ap}
        return {**{f"pck_{share}": value for share, value in self.pck.items()}, **ap}

    @property
    def details(self):
        return {f"pck_{_HEADLINE} {joint}": value for joint, value in self.per_joint.items()}

    def summary(self):
        return "  ".join(f"{name} {value:.3f}" for name, value in self.values.items())

    def as_dict(self):
        return {**self.values, "per_joint": self.per_joint}

    def table(self, name, others):
        from rich.table import Table

        columns = {name: self, **{other.replace("_", " "): scores for other, scores in others.items()}}
        view = Table(title=f"PCK: share of keypoints within a share of the person's size; per joint: {_HEADLINE}")
        view.add_column("", no_wrap=True)
        for title in columns:
            view.add_column(title, justify="right")
        for part in ("per_joint", "values"):
            for key in getattr(self, part):
                view.add_row(key, *(f"{getattr(scores, part).get(key, np.nan):.3f}" for scores in columns.values()))
            view.add_section()
        return as_text(view)


def evaluate_keypoints(found, truth, size, joints, area=None):
    """Return the `KeypointScores` of predicted keypoints, one person each.

    Args:
        found: (n, J, 3): x and y in px, confidence.
        truth: (n, J, 3): x and y in px, and 0 where a keypoint is not labelled.
        size: (n,) px, what PCK's shares are of, such as the height of the person's box.
        joints: names of the J joints.
        area: (n,) px², of the persons' masks; None: no AP, which is for COCO's 17 joints.

    Raises:
        UserError: AP is asked for, and pycocotools is not installed.
    """
    labelled = truth[..., 2] > 0
    distance = np.linalg.norm(found[..., :2] - truth[..., :2], axis=-1) / size[:, None]
    right = {share: distance <= share for share in SHARES}
    return KeypointScores(
        {share: _share(within, labelled) for share, within in right.items()},
        {joint: _share(right[_HEADLINE][:, j], labelled[:, j]) for j, joint in enumerate(joints)},
        None if area is None else average_precision(found, truth, area),
    )


def average_precision(found, truth, area):
    """Return COCO's AP (OKS 0.50:0.95) by pycocotools of persons who are each alone in their image.

    Arguments as of `evaluate_keypoints`; a person's score is the mean confidence of their keypoints, and who has no
    labelled keypoint does not count.
    """
    with needing("COCO's average precision", _REQUIREMENTS):
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

    persons = np.flatnonzero((truth[..., 2] > 0).any(1))
    with redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            "info": {},
            "images": [{"id": int(n)} for n in persons],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [_annotation(n, truth[n], area[n]) for n in persons],
        }
        known.createIndex()
        scorer = COCOeval(known, known.loadRes([_detection(n, found[n]) for n in persons]), "keypoints")
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return float(scorer.stats[0])


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
