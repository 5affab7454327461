"""A training of a tiny network by the real trainer, in this process: 24 clips of the small file in Human3.6M's layout."""

from contextlib import contextmanager

import torch
from conftest import PARITY

from lib.config import Config
from lib.data.datasets import open_dataset
from lib.engine.interrupts import StopRequest
from lib.engine.recorder import Run
from lib.engine.runtime import Runtime
from lib.engine.state import new_state
from lib.engine.trainer import Trainer
from lib.model.registry import build_model
from lib.task import open_tasks

TINY = {
    "dt_root": str(PARITY), "dt_file": "h36m_schema.pkl", "data_root": "nowhere", "maxlen": 9, "clip_len": 9,
    "data_stride": 30, "dim_feat": 16, "depth": 2, "batch_size": 8, "learning_rate": 1e-3, "epochs": 1,
    "no_eval": True, "num_workers": 0,
}  # fmt: skip
PLAIN = {"flip": False, "drop_path": 0.0}  # nothing random but the order of clips


@contextmanager
def training(folder, build=build_model, **keys):
    """A trainer whose training has not begun, of the network that `build` makes of the config, by seed 0."""
    config = Config(**TINY | keys)
    with Runtime(config) as runtime:
        torch.manual_seed(0)
        state = new_state(build(config).to(runtime.device), config, runtime)
        yield Trainer(state, open_tasks(config, open_dataset(config)), config, runtime, folder, StopRequest())


def run(trainer):
    """Train to the end, and return the history."""
    return trainer.train(Run(trainer.folder, "", use_mlflow=False, use_tensorboard=False))


def trained(folder, build=build_model, **keys):
    """The trainer of a finished training."""
    with training(folder, build, **keys) as trainer:
        run(trainer)
    return trainer


def weights(model):
    """All parameters of a model in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
