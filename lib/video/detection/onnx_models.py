"""Opening of ONNX files, with one thread each, since people are processed concurrently."""

from lib.errors import UserError
from lib.files import require_file
from lib.onnx_session import open_session


def open_model(path, kind, inputs, outputs):
    """Return the ONNX Runtime session of a file, which runs on one thread and may be run from several at once.

    Args:
        kind: what the file should be, for messages.
        inputs, outputs: {name: shape} that are needed; a size of None may be any.

    Raises:
        UserError: the file is missing, damaged or another model.
    """
    path = require_file(path)
    session = open_session(path, "fetch it again", threads=1)
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
    """Return whether a shape has the needed sizes; sizes that a model leaves open are names."""
    if shape is None or len(shape) != len(needed):
        return False
    return all(size is None or size == given or isinstance(given, str) for size, given in zip(needed, shape))
