"""Checkpoint files in the published layout: what is in them, and reading and writing them safely.

dict(epoch, lr, optimizer, model_pos, min_loss), parameter names with the prefix `module.`; `epoch` counts
finished epochs, `lr` is the next epoch's. Files of this project also hold `config`, `random_state`,
`history`, `mlflow_run_id` and, where `model_pos` is a moving average of the weights, `trained`: the weights that
training goes on with. Other readers of the layout pass over them.
"""

import random
from dataclasses import dataclass, field

import numpy as np
import torch

from lib.errors import UserError, describe
from lib.files import atomic_path, require_file

LATEST = "latest_epoch.bin"
BEST = "best_epoch.bin"


def numbered(epoch):
    """Name of the checkpoint kept after `epoch` finished epochs."""
    return f"epoch_{epoch}.bin"


@dataclass
class Checkpoint:
    """What a file holds; parameter names without prefix."""

    path: str
    model: dict
    epoch: int = 0
    lr: float | None = None
    optimizer: dict | None = None
    min_loss: float | None = None
    config: dict = field(default_factory=dict)
    random_state: dict | None = None
    history: list = field(default_factory=list)
    mlflow_run_id: str | None = None
    trained: dict | None = None  # weights that training goes on with, where `model` is their average

    def size(self):
        """The config keys that a PoseMamba's tensors tell.

        Raises:
            UserError: the tensors are not a PoseMamba's; names the first that is missing.
        """
        try:
            embedding = self.model["Spatial_patch_to_embedding.weight"]
            return {
                "dim_feat": embedding.shape[0],
                "depth": 1 + max(
                    int(name.split(".")[1]) for name in self.model if name.startswith("STEblocks.")
                ),
                "mlp_ratio": self.model["STEblocks.0.mlp.fc1.weight"].shape[0] / embedding.shape[0],
                "maxlen": self.model["Temporal_pos_embed"].shape[1],
                "num_joints": self.model["Spatial_pos_embed"].shape[1],
                "no_conf": embedding.shape[1] == 2,
            }  # fmt: skip
        except (KeyError, ValueError, IndexError) as error:
            missing = error.args[0] if isinstance(error, KeyError) else "STEblocks.0.norm.weight"
            raise UserError(f"{self.path}: is not a PoseMamba checkpoint (it lacks {missing!r})") from error

    def load_into(self, model):
        """Copies the parameters into a model.

        Raises:
            UserError: names or shapes differ; names the first tensor that does.
        """
        own = model.state_dict()
        for name, tensor in own.items():
            if name not in self.model:
                raise UserError(f"{self.path}: lacks {name!r}, which the model has")
            if self.model[name].shape != tensor.shape:
                raise UserError(
                    f"{self.path}: {name!r} is {tuple(self.model[name].shape)} there and "
                    f"{tuple(tensor.shape)} in the model"
                )
        for name in self.model:
            if name not in own:
                raise UserError(f"{self.path}: has {name!r}, which the model lacks")
        model.load_state_dict(self.model)


def read_checkpoint(path):
    """Reads a checkpoint: the published layout, dict(model=...), or bare parameters.

    Raises:
        UserError: there is no such file, it is truncated, or holds anything but tensors and plain values.
    """
    path = require_file(path)
    scalar = np.float64(0).__reduce__()[0]  # NumPy's rebuilder of scalars; its module differs in NumPy 1 and 2
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    types = [np.dtype, type(np.dtype(np.float32)), type(np.dtype(np.float64))]
    with open(path, "rb") as handle, torch.serialization.safe_globals([*types, *names]):
        try:
            content = torch.load(handle, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file raises whatever its readers meet, OSError too; PyTorch's advice
            # is how to run the code in a file that is no checkpoint
            raise UserError(
                f"{path}: is truncated or not a checkpoint; a file that PyTorch wrote is needed, of tensors and "
                "plain values only"
            ) from error
    parameters = content if isinstance(content, dict) else {}
    for key in ("model_pos", "model"):
        if isinstance(parameters.get(key), dict):
            parameters = parameters[key]
            break
    parameters = {
        name.removeprefix("module."): value for name, value in parameters.items() if isinstance(value, torch.Tensor)
    }
    if not parameters:
        raise UserError(f"{path}: holds no parameters under 'model_pos' or 'model'")
    if parameters.keys() == content.keys():
        content = {}
    min_loss = content.get("min_loss")
    return Checkpoint(
        path=str(path),
        model=parameters,
        epoch=int(content.get("epoch", 0)),
        lr=content.get("lr"),
        optimizer=content.get("optimizer"),
        min_loss=None if min_loss is None else float(min_loss),
        config=content.get("config", {}),
        random_state=content.get("random_state"),
        history=content.get("history", []),
        mlflow_run_id=content.get("mlflow_run_id"),
        trained=content.get("trained"),
    )


def write_checkpoint(paths, model, optimizer, epoch, lr, min_loss, **extras):
    """Writes one state to all of `paths`, each file atomically.

    Raises:
        UserError: a file cannot be written.
    """
    content = {
        "epoch": epoch,
        "lr": lr,
        "optimizer": optimizer.state_dict(),
        "model_pos": {f"module.{name}": value for name, value in model.state_dict().items()},
        "min_loss": min_loss,
        **extras,
    }
    for path in paths:
        try:
            with atomic_path(path) as temporary, open(temporary, "wb") as handle:
                torch.save(content, handle)
        except RuntimeError as error:  # torch's own writer, when the disk is full
            raise UserError(f"{path}: cannot be written ({describe(error)}); is the disk full?") from error


def random_state():
    """The state of every generator that training draws from, as tensors and plain values."""
    version, words, gauss = random.getstate()
    name, key, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(key.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state):
    """Puts every generator where `random_state` found it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, key, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, key.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
