"""Opening of ONNX files by ONNX Runtime, which has to be installed to import this."""

import onnxruntime

from lib.errors import UserError, describe


def open_session(path, remedy, threads):
    """Return the session of a file, on the CPU.

    Args:
        remedy: what a user can do about a file that is damaged.
        threads: of an operator.

    Raises:
        UserError: the file is damaged or no ONNX model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # its warnings mean nothing to a user
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise UserError(f"{path}: is no ONNX model or is damaged ({describe(error)}); {remedy}") from error
