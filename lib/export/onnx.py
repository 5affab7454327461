"""A model as an ONNX file, with what readers need to know of it among its metadata."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lib.errors import needing
from lib.export.program import program_arguments, quietly
from lib.files import atomic_path
from lib.model.facts import parameters_of
from lib.model.opening import size_of

REQUIREMENTS = "requirements-export.txt"
OPSET = 18
THIN = 3  # coordinates of a joint


def write_onnx(path, opened, int8=False):
    """Write an `Opened` model as ONNX: float32, or with weights in 8 bits and activations that are rounded as they come.

    Raises:
        UserError: a package is not installed, or the file cannot be written.
    """
    with needing("an ONNX file", REQUIREMENTS):
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.shape_inference import quant_pre_process

        from lib.export.onnx_scan import PROJECTION, cross_scan
    inputs, free = program_arguments(opened)
    with torch.no_grad(), quietly():
        program = torch.onnx.export(
            opened.model,
            inputs,
            dynamo=True,
            dynamic_shapes=free,
            opset_version=OPSET,
            output_names=["poses"],
            custom_translation_table={torch.ops.selective_scan.cross_scan.default: cross_scan},
            verbose=False,
        )
    model = program.model_proto
    if int8:
        with TemporaryDirectory() as folder, quietly():
            full, folded, small = (str(Path(folder, f"{name}.onnx")) for name in ("full", "folded", "small"))
            onnx.save(model, full)
            # First what can be computed now: weights that are cut in parts would stay as they are.
            quant_pre_process(full, folded, skip_symbolic_shape=True)
            quantize_dynamic(
                folded, small, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True,
                weight_type=QuantType.QInt8, nodes_to_exclude=_sensitive(onnx.load(folded).graph, PROJECTION),
            )  # fmt: skip
            model = onnx.load(small)
    told = {
        "config": opened.model.recorded,
        "size": size_of(opened.checkpoint, opened.config.backbone),
        "parameters": parameters_of(opened.model),
        "epoch": opened.checkpoint.epoch,
    }
    onnx.helper.set_model_props(model, {"posemamba": json.dumps(told)})
    with atomic_path(path) as temporary:
        onnx.save(model, temporary)


def _sensitive(graph, mark):
    """Return the names of layers whose products 8 bits are too few for: the projections of scans, the first and the last."""
    thin = {weight.name for weight in graph.initializer if min(weight.dims, default=0) <= THIN}
    return [node.name for node in graph.node if node.name.startswith(mark) or thin.intersection(node.input)]
