"""Scores: one protocol for each kind of data, a function (predictions, data set, rootrel) -> `lib.eval.scores.Scores`."""

from lib.registry import Registry

PROTOCOLS = Registry(
    "protocol",
    {"h36m": "lib.eval.h36m:evaluate_h36m", "mpi_inf_3dhp": "lib.eval.mpi_inf_3dhp:evaluate_clips_3dhp"},
)

KEYPOINT_SCORERS = Registry(  # classes (data set, joints) with `score`, `write` and `chosen_by`
    "protocol", {"crops": "lib.eval.keypoints_2d:CropScorer", "coco": "lib.eval.keypoints_2d:CocoScorer"}
)
