"""Facts of a model: its parameters and the multiply-accumulates of one pass."""

import selective_scan.operators  # noqa: F401  registers the scans as operators
import torch
from torch.utils.flop_counter import FlopCounterMode

from lib.model.scan_layer import STATE_SIZE

_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which PyTorch's counter leaves out
_PRODUCTS = (_ATTENTION, torch.ops.aten.bmm)
_SCANS = (torch.ops.selective_scan.cross_scan, torch.ops.selective_scan.scan)


def parameters_of(model):
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs_of(model, inputs):
    """Return the multiply-accumulates of model(*inputs): of layers, and of scans and of products of activations.

    A scan of a channel costs 3 for every state and step, and 1 for the skip weight; a cross-scan also its projections.
    """
    counts = {_SCANS[0]: _cross_scan_flops, _SCANS[1]: _scan_flops, _ATTENTION: _attention_flops}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=counts) as counter:
        model(*inputs)
    flops = counter.get_flop_counts()["Global"]
    between = sum(flops.get(operator, 0) for operator in (*_SCANS, *_PRODUCTS))
    return (sum(flops.values()) - between) // 2, between // 2


def _attention_flops(q, k, v, *_, **__):
    batch, heads, length, channels = q
    return 2 * batch * heads * length * k[-2] * (channels + v[-1])


def _cross_scan_flops(u, x_proj_weight, dt_projs_weight, *_, **__):
    batch, rows, columns, channels = u
    directions, _, rank = dt_projs_weight
    per_step = 2 * rank + 2 * STATE_SIZE + 3 * STATE_SIZE + 1
    return 2 * batch * rows * columns * directions * channels * per_step


def _scan_flops(u, *_, **__):
    batch, channels, length = u
    return 2 * batch * channels * length * (3 * STATE_SIZE + 1)
