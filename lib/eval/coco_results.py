"""Keypoints as COCO scores them over whole images: results, and their average precision."""

import io
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from lib.errors import needing

SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000  # of COCO's keypoints
STATS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")

_SURE = 0.2  # confidence above which a keypoint counts in a person's score
_SAME = 0.9  # similarity (OKS) above which two results are one person
_REQUIREMENTS = "requirements-mambapose.txt"


def coco_results(keypoints, images, box_scores, areas):
    """Return COCO's results, a list of {image_id, category_id, keypoints, score}, as ViTPose makes them.

    A person's score is the box's times the mean confidence of the keypoints that are surer than 0.2, and of two results
    of an image that are as good as one, the better remains. Who was not seen (negative confidence) is no result.

    Args:
        keypoints: (n, 17, 3): x, y in COCO's px of the image, confidence.
        images: (n,) numbers of images; box_scores: (n,); areas: (n,) px² of the parts of images that were looked at.
    """
    seen = np.flatnonzero(keypoints[..., 2].min(1) >= 0) if len(keypoints) else np.empty(0, int)
    confidence = keypoints[..., 2]
    sure = confidence > _SURE
    scores = box_scores * (confidence * sure).sum(1) / np.maximum(1, sure.sum(1))
    kept = []
    for rows in np.split(seen[(order := np.argsort(images[seen], kind="stable"))], _starts(images[seen][order])):
        kept += [rows[place] for place in distinct(keypoints[rows], scores[rows], areas[rows])]
    return [
        {
            "image_id": int(images[row]),
            "category_id": 1,
            "keypoints": keypoints[row].ravel().tolist(),
            "score": float(scores[row]),
        }
        for row in sorted(kept)
    ]


def distinct(keypoints, scores, areas, most=_SAME):
    """Return the numbers of the people (n, 17, 3) of an image who remain: none is like a better one by more than `most`.

    The likeness is OKS over all keypoints, with the mean of both areas (n,), px².
    """
    left, kept = list(np.argsort(-scores, kind="stable")), []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [other for other in left if _similarity(keypoints, areas, best, other) <= most]
    return kept


def coco_stats(annotations, results):
    """Return COCO's ten numbers {name of `STATS`: share} of results, over all images of a file of annotations.

    Raises:
        UserError: pycocotools is not installed.
    """
    with needing("COCO's average precision", _REQUIREMENTS):
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

    if not results:
        return dict.fromkeys(STATS, 0.0)
    with redirect_stdout(io.StringIO()):
        if isinstance(annotations, (str, Path)):
            known = COCO(str(annotations))
        else:
            known = COCO()
            known.dataset = annotations
            known.createIndex()
        scorer = COCOeval(known, known.loadRes(results), "keypoints")
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return {name: float(value) for name, value in zip(STATS, scorer.stats)}


def _similarity(keypoints, areas, one, other):
    squared = np.square(keypoints[one, :, :2] - keypoints[other, :, :2]).sum(-1)
    area = max((areas[one] + areas[other]) / 2, np.finfo(float).tiny)
    return np.exp(-squared / (2 * area * np.square(2 * SIGMAS))).mean()


def _starts(numbers):
    """Return the places where sorted numbers change."""
    return np.flatnonzero(np.diff(numbers)) + 1
