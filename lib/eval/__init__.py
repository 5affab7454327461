"""Scores: one protocol for each kind of data, a function (predictions, data set, rootrel) -> `lib.eval.scores.Scores`."""

from lib.registry import Registry

PROTOCOLS = Registry(
    "protocol",
    {"h36m": "lib.eval.h36m:evaluate_h36m", "mpi_inf_3dhp": "lib.eval.mpi_inf_3dhp:evaluate_clips_3dhp"},
)
