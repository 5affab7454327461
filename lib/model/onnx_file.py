"""Networks exported to ONNX (`tools/export_model.py`), run by ONNX Runtime in place of a model's own code."""

import json

import torch
from torch import nn

from lib.errors import UserError, describe, needing
from lib.model.weights import Checkpoint


class OnnxNetwork(nn.Module):
    """A network that ONNX Runtime runs on the CPU, with as many threads as PyTorch has.

    Args:
        session: of ONNX Runtime.
        told: {"size": config keys that the parameters told, "parameters": their number}, of the file's metadata.
    """

    def __init__(self, session, told):
        super().__init__()
        self.size, self.parameter_count = told["size"], told["parameters"]
        self._session = session
        self._names = [given.name for given in session.get_inputs()]

    def forward(self, *inputs):
        """Return what the exported network does for the same inputs.

        Raises:
            ValueError: their shapes are not those that it was exported for.
        """
        try:
            arrays = {name: x.detach().cpu().numpy() for name, x in zip(self._names, inputs, strict=True)}
            return torch.from_numpy(self._session.run(None, arrays)[0]).to(inputs[0].device)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ValueError(f"x: {describe(error)}") from error


def read_onnx(path):
    """Return the `Checkpoint` of an exported file: no parameters, but a `network`.

    Raises:
        UserError: it is damaged, or lacks what `tools/export_model.py` records; onnxruntime is not installed.
    """
    with needing(f"{path}: this", "requirements-export.txt"):
        from lib.onnx_session import open_session
    session = open_session(path, "export it again", threads=torch.get_num_threads())
    try:
        told = json.loads(session.get_modelmeta().custom_metadata_map["posemamba"])
        return Checkpoint(path=str(path), model={}, config=told["config"], epoch=told["epoch"],
                          network=OnnxNetwork(session, told))  # fmt: skip
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: its metadata do not say which network it is; write it by tools/export_model.py"
        ) from error
