"""Opening ONNX files: one thread each, since people are looked at side by side."""

import onnxruntime

from lib.errors import UserError, describe
from lib.files import require_file


def open_model(path, kind, inputs, outputs):
    """Return the ONNX Runtime session of a file, which runs on one thread and may be run from several at once.

    Args:
        kind: what the file should be, for messages.
        inputs, outputs: {name: shape} that are needed; a size of None may be any.

    Raises:
        UserError: the file is missing, damaged or another model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # its warnings mean nothing to a user
    path = require_file(path)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise UserError(f"{path}: is no ONNX model or is damaged ({describe(error)}); fetch it again") from error
    for what, needed, given in (
        ("input", inputs, session.get_inputs()),
        ("output", outputs, session.get_outputs()),
    ):
        shapes = {tensor.name: tensor.shape for tensor in given}
        for name, shape in needed.items():
            if not _fits(shape, shapes.get(name)):
                has = ", ".join(_named(name, shape) for name, shape in shapes.items())
                raise UserError(
                    f"{path}: is another model than {kind}: the {what} {_named(name, shape)} is needed, it has {has}"
                )
    return session


def _named(name, shape):
    """Return an input or output as messages show it; sizes that may be any as "?"."""
    return f"{name} ({' x '.join(str(size) if isinstance(size, int) else '?' for size in shape)})"


def _fits(needed, shape):
    """Whether a shape has the needed sizes; those that a model leaves open are names."""
    if shape is None or len(shape) != len(needed):
        return False
    return all(size is None or size == given or isinstance(given, str) for size, given in zip(needed, shape))
