"""The optimisers of a training by name: functions (parameters by name, config) -> optimiser."""

from lib.registry import Registry

OPTIMIZERS = Registry(
    "optimizer", {"adamw": "lib.engine.optimizer_kinds:adamw", "muon": "lib.engine.optimizer_kinds:muon"}
)
