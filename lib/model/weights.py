"""Reading files of trained parameters: checkpoints in the published layout, and safetensors.

The published layout is dict(epoch, lr, optimizer, model_pos, min_loss), parameter names with the prefix `module.`;
`epoch` counts finished epochs, `lr` is the next epoch's. Files of this project also hold `config`, `random_state`,
`history`, `mlflow_run_id`, `state` and, where `model_pos` is a moving average of the weights, `trained`: the weights
that training goes on with. Other readers of the layout pass over them.
"""

import json
import zipfile
from dataclasses import dataclass, field

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lib.errors import UserError, describe
from lib.files import require_file

SUFFIX = ".safetensors"
CONFIG = "config.json"  # beside a safetensors file, of those who write no metadata
_FOLDER = 0x10  # among an entry's attributes


@dataclass
class Checkpoint:
    """Content of a checkpoint file; parameter names without prefix."""

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
    state: dict | None = None  # of a run stopped within an epoch, and of its other processes: `lib.engine.state`
    network: nn.Module | None = None  # of an exported file, which has no parameters: `lib.model.onnx_file`

    def load_into(self, model, without=()):
        """Copy the parameters into a model.

        without: prefixes of parameters that the model has and the file need not have; they stay as they are.

        Raises:
            UserError: names or shapes differ; names the first tensor that does.
        """
        own = model.state_dict()
        for name, tensor in own.items():
            if name not in self.model:
                if name.startswith(tuple(without)):
                    continue
                raise UserError(f"{self.path}: lacks {name!r}, which the model has")
            if self.model[name].shape != tensor.shape:
                raise UserError(
                    f"{self.path}: {name!r} is {tuple(self.model[name].shape)} there and "
                    f"{tuple(tensor.shape)} in the model"
                )
        for name in self.model:
            if name not in own:
                raise UserError(f"{self.path}: has {name!r}, which the model lacks")
        model.load_state_dict(self.model, strict=False)  # all else has been checked


def count_blocks(parameters, prefix):
    """Return how many blocks parameters {name: tensor} have whose names are the prefix, a number from 0 and a dot.

    Raises:
        ValueError: there are none.
    """
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in parameters if name.startswith(prefix))


def read_checkpoint(path):
    """Read a checkpoint: the published layout, dict(model=...), or bare parameters.

    Raises:
        UserError: there is no such file, it is truncated, or holds anything but tensors and plain values.
    """
    path = require_file(path)
    scalar = np.float64(0).__reduce__()[0]  # NumPy's rebuilder of scalars; its module differs in NumPy 1 and 2
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    types: list = [np.dtype, type(np.dtype(np.float32)), type(np.dtype(np.float64))]
    with open(path, "rb") as handle, torch.serialization.safe_globals(types + names):
        try:
            _check_sums(handle)
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
        state=content.get("state"),
    )


def _check_sums(handle):
    """Raise ValueError if an entry of PyTorch's zip archive differs from its stored CRC-32; PyTorch does not look.

    Nor does it say so if an entry is marked as a folder: the tensor is then whatever the memory held.
    """
    if zipfile.is_zipfile(handle):
        handle.seek(0)
        with zipfile.ZipFile(handle) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} does not have its checksum")
            for entry in archive.infolist():
                if entry.external_attr & _FOLDER:
                    raise ValueError(f"{entry.filename} is marked as a folder")
    handle.seek(0)


def read_weights(path):
    """Return the `Checkpoint` of a safetensors file, of an exported ONNX file, or of any that `read_checkpoint` reads.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    path = require_file(path)
    if path.suffix == ".onnx":
        from lib.model.onnx_file import read_onnx

        return read_onnx(path)
    if path.suffix != SUFFIX:
        return read_checkpoint(path)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            metadata = file.metadata() or {}
        beside = path.with_name(CONFIG)
        recorded = metadata.get("config") or (beside.read_text() if beside.exists() else "{}")
        config, epoch = dict(json.loads(recorded)), int(metadata.get("epoch", 0))
    except (SafetensorError, ValueError, TypeError) as error:
        raise UserError(f"{path}: is truncated or not a safetensors file of a model ({describe(error)})") from error
    return Checkpoint(path=str(path), model=tensors, epoch=epoch, config=config)
