"""Public functions: they check arguments, choose an implementation and call an operator."""

import functools
import math
import os
import warnings

import torch

from selective_scan import cuda, native, operators
from selective_scan.reference import cross_scan_by_copies, selective_scan_loop

IMPLEMENTATIONS = ("torch", "loop", "cpu", "cuda")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
MAX_ELEMENTS = 2**31  # per sequence: positions are 32-bit numbers
DEFAULT_VARIABLE = "SELECTIVE_SCAN_IMPLEMENTATION"


def selective_scan(u, delta, A, B, C, D=None, delta_bias=None, delta_softplus=False, implementation=None):
    """Return the selective scan of u (Gu and Dao 2023, equations 2a and 2b, discretised as in the published kernels).

    For channel d of group k, with b = B[:, k], c = C[:, k] and h_0 = 0:

        delta_t = softplus(delta_t + delta_bias)            (softplus if `delta_softplus`)
        h_t = exp(delta_t * A) * h_{t-1} + delta_t * b_t * u_t
        y_t = <c_t, h_t> + D * u_t

    The state h and all arithmetic are float32 (float64 where u is), also under autocast; y has the
    dtype of u.

    Args:
        u: (batch, K * channels, L) input sequences; float32, float16, bfloat16 or float64.
        delta: (batch, K * channels, L) step sizes.
        A: (K * channels, N) decay rates, negative.
        B, C: (batch, K, N, L) input and output projections, one per group of channels.
        D: (K * channels,) skip weight, or None.
        delta_bias: (K * channels,) added to delta before the softplus, or None.
        delta_softplus: whether step sizes go through softplus.
        implementation: a key of `IMPLEMENTATIONS`, used as named or not at all. None: the one that the
            environment variable SELECTIVE_SCAN_IMPLEMENTATION names; without it, the compiled form of the device
            of u where it is available and u is not float64, else "torch".

    Returns:
        y: (batch, K * channels, L), differentiable (once) in every tensor argument.

    Raises:
        ValueError: a shape, dtype or device does not fit, or there are more states N than a compiled form
            takes (the message names the argument); `implementation` is unknown or not available (the message says why).
    """
    _check_input(u, "(batch, channels, L)", 3)
    _check_scan_arguments(u, delta, A, B, C, D, delta_bias)
    implementation = _choose(implementation, u, A)
    return _scan(implementation, u, delta, A, B, C, D, delta_bias, delta_softplus)


def cross_scan(
    u,
    x_proj_weight,
    dt_projs_weight,
    dt_projs_bias,
    A,
    D,
    directions,
    limb_partners=(),
    exact_limbs=False,
    implementation=None,
):
    """Return the sum of K selective scans over a (frame, joint) grid, each along its own path (PoseMamba's cross-scan).

    For direction k, x = u + u[limb partner] where `directions[k].limbs`, else u; then

        ranks, B, C = x_proj_weight[k] @ x;   delta = dt_projs_weight[k] @ ranks

    and a selective scan with softplus over x in the order of `directions[k]`. The compiled forms do all of it in
    one pass: nothing is copied, and step sizes are never in memory.

    Args:
        u: (batch, F, J, channels); float32, float16, bfloat16 or float64.
        x_proj_weight: (K, R + 2 * N, channels).
        dt_projs_weight: (K, channels, R), dt_projs_bias: (K, channels): step sizes from their R projections.
        A: (K * channels, N) decay rates, negative. D: (K * channels,) skip weight.
        directions: K `Direction`s, at most 4; k and k + 2 agree on limbs.
        limb_partners: J joint indices, needed by directions with limbs.
        exact_limbs: False treats u + u[limb partner] as if it were u in the backward pass, as the published
            implementation does; True differentiates both terms.
        implementation: see `selective_scan`; "torch" and "loop" copy the activations for each direction.

    Returns:
        (batch, F, J, channels), in the dtype of u, differentiable (once) in every tensor argument.

    Raises:
        ValueError: as of `selective_scan`.
    """
    _check_input(u, "(batch, F, J, channels)", 4)
    directions, limb_partners = tuple(directions), tuple(limb_partners)
    _check_cross_scan_arguments(u, x_proj_weight, dt_projs_weight, dt_projs_bias, A, D, directions, limb_partners)
    implementation = _choose(implementation, u, A)
    if implementation == "cuda" and dt_projs_weight.shape[2] > cuda.MAX_RANK:
        raise ValueError(
            f"dt_projs_weight: has rank {dt_projs_weight.shape[2]}; implementation 'cuda' is compiled for at most "
            f"{cuda.MAX_RANK}; use 'torch'"
        )
    weights = (x_proj_weight, dt_projs_weight, dt_projs_bias, A, D)
    if implementation not in operators.COMPILED:
        return cross_scan_unfused(u, *weights, directions, limb_partners, exact_limbs, implementation)
    codes = [d.encode() for d in directions]
    partners = limb_partners if any(d.limbs for d in directions) else ()
    keep = _needs_gradient(u, *weights)
    return operators.cross_scan(u, *weights, codes, partners, bool(exact_limbs), implementation, keep)[0]


def cross_scan_unfused(
    u,
    x_proj_weight,
    dt_projs_weight,
    dt_projs_bias,
    A,
    D,
    directions,
    limb_partners=(),
    exact_limbs=False,
    implementation="torch",
):
    """Return the output of `cross_scan`, computed by copies of the activations and the plain scan, for comparison."""
    scan = functools.partial(_scan, implementation)
    weights = (x_proj_weight, dt_projs_weight, dt_projs_bias, A, D)
    with operators.no_autocast(u.device):
        return cross_scan_by_copies(scan, u, *weights, directions, limb_partners, exact_limbs)


def default_implementation(device_type="cpu", dtype=torch.float32, device=None):
    """Return the key of `IMPLEMENTATIONS` that is used for u of this device type and dtype, if none is named."""
    if named := os.environ.get(DEFAULT_VARIABLE):
        return named
    if dtype == torch.float64 or device_type not in operators.COMPILED:
        return "torch"
    if reason := why_unavailable(device_type, device_type, device):
        _warn_of_slow_path(device_type, reason)
        return "torch"
    return device_type


def why_unavailable(implementation, device_type=None, device=None):
    """Return why a key of `IMPLEMENTATIONS` cannot run here; "" if it can.

    device_type, device: of the tensors, such as "cuda" and 1, if given.
    """
    if implementation not in operators.COMPILED:
        return ""
    if device_type not in (None, implementation):
        return f"it takes tensors on {implementation}, not on {device_type}"
    return operators.COMPILED[implementation].why_unavailable(device)


def how_to_get(implementation):
    """Return the command that builds a compiled form; "" where it is built."""
    if implementation not in operators.COMPILED or native.is_built(implementation):
        return ""
    need = {
        "cpu": "install a C++ compiler (apt-get install g++)",
        "cuda": f"install the CUDA toolkit {torch.version.cuda or 'and a PyTorch with CUDA'}",
    }
    return f"{need[implementation]}, then: {native.install_command()}"


@functools.cache
def _warn_of_slow_path(device_type, reason):
    fix = how_to_get(device_type)
    warnings.warn(
        f"selective_scan runs its slow PyTorch form on {device_type}: {reason}" + (f"; {fix}" if fix else ""),
        stacklevel=6,
    )


def _scan(implementation, u, delta, A, B, C, D, delta_bias, delta_softplus):
    if implementation == "loop":
        with operators.no_autocast(u.device):
            return selective_scan_loop(u, delta, A, B, C, D, delta_bias, delta_softplus)
    keep = _needs_gradient(u, delta, A, B, C, D, delta_bias)
    return operators.scan(u, delta, A, B, C, D, delta_bias, bool(delta_softplus), implementation, keep)[0]


def _needs_gradient(*tensors):
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _choose(implementation, u, A):
    implementation = _resolve(implementation, u.device.type, u.device.index, u.dtype, A.shape[1])
    elements = math.prod(u.shape[1:])  # not numel(), which fixes the sizes of an export
    if implementation in operators.COMPILED and elements >= MAX_ELEMENTS:
        raise ValueError(
            f"u: has {elements} elements per sequence; implementation {implementation!r} takes less than 2**31; "
            "use 'torch'"
        )
    return implementation


def _resolve(implementation, device_type, device, dtype, states):
    if implementation is None:
        implementation = default_implementation(device_type, dtype, device)
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation: {implementation!r} is unknown; there are {', '.join(IMPLEMENTATIONS)}")
    if reason := why_unavailable(implementation, device_type, device):
        raise ValueError(f"implementation: {implementation!r} is not available: {reason}")
    if implementation in operators.COMPILED:
        if dtype == torch.float64:
            raise ValueError(
                f"u: implementation {implementation!r} takes float32, float16 and bfloat16, not float64; use 'torch'"
            )
        if states > native.MAX_STATES:
            raise ValueError(
                f"A: has {states} states per channel; implementation {implementation!r} is compiled for at most "
                f"{native.MAX_STATES}; use 'torch'"
            )
    return implementation


# Or torch.compile would trace how libraries are found. `torch.compiler.assume_constant_result` sets the same mark, but
# loads the whole compiler, which takes as long as PyTorch itself, also where nothing is ever compiled.
setattr(_resolve, "_dynamo_marked_constant", True)  # noqa: B010


def _check_input(u, form, dimensions):
    if u.dim() != dimensions or 0 in u.shape[1:]:
        raise ValueError(f"u: expected {form}, none but batch empty, got {tuple(u.shape)}")
    if u.dtype not in DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise ValueError(f"u: expected one of {names}, got {u.dtype}")


def _check_scan_arguments(u, delta, A, B, C, D, delta_bias):
    batch, channels, length = u.shape
    if A.dim() != 2 or A.shape[0] != channels or A.shape[1] == 0:
        raise ValueError(f"A: expected ({channels}, N) to go with u, got {tuple(A.shape)}")
    if B.dim() != 4 or B.shape[1] == 0 or channels % B.shape[1]:
        raise ValueError(f"B: expected (batch, K, N, L) with K dividing {channels}, got {tuple(B.shape)}")
    per_group = (batch, B.shape[1], A.shape[1], length)
    _check_shapes(
        u,
        delta=(delta, (batch, channels, length)),
        B=(B, per_group),
        C=(C, per_group),
        D=(D, (channels,)),
        delta_bias=(delta_bias, (channels,)),
        A=(A, tuple(A.shape)),
    )


def _check_cross_scan_arguments(u, x_proj_weight, dt_projs_weight, dt_projs_bias, A, D, directions, limb_partners):
    joints, channels, count = u.shape[2], u.shape[3], len(directions)
    if not 1 <= count <= native.MAX_PATHS:
        raise ValueError(f"directions: expected 1 to {native.MAX_PATHS}, got {count}")
    if any(d.limbs != directions[k % 2].limbs for k, d in enumerate(directions)):
        raise ValueError("directions: k and k + 2 must agree on limbs")
    if any(d.limbs for d in directions):
        if len(limb_partners) != joints:
            raise ValueError(f"limb_partners: expected {joints}, one per joint of u, got {len(limb_partners)}")
        if not all(0 <= partner < joints for partner in limb_partners):
            raise ValueError(f"limb_partners: expected joints from 0 to {joints - 1}, got {limb_partners}")
    if A.dim() != 2 or A.shape[0] != count * channels or A.shape[1] == 0:
        raise ValueError(f"A: expected ({count * channels}, N) to go with u and directions, got {tuple(A.shape)}")
    if dt_projs_weight.dim() != 3 or dt_projs_weight.shape[:2] != (count, channels) or dt_projs_weight.shape[2] == 0:
        raise ValueError(f"dt_projs_weight: expected ({count}, {channels}, R), got {tuple(dt_projs_weight.shape)}")
    _check_shapes(
        u,
        x_proj_weight=(x_proj_weight, (count, dt_projs_weight.shape[2] + 2 * A.shape[1], channels)),
        dt_projs_weight=(dt_projs_weight, tuple(dt_projs_weight.shape)),
        dt_projs_bias=(dt_projs_bias, (count, channels)),
        A=(A, tuple(A.shape)),
        D=(D, (count * channels,)),
    )


def _check_shapes(u, **expected):
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: expected {shape}, got {tuple(tensor.shape)}")
        if tensor.device != u.device:
            raise ValueError(f"{name}: is on {tensor.device} but u is on {u.device}")
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{name}: expected a floating-point tensor, got {tensor.dtype}")
