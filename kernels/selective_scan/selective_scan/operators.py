"""The scans as PyTorch operators, `torch.ops.selective_scan.*`: shapes, gradients, dispatch to an implementation.

As registered operators they are one call to `torch.compile`, `torch.export` and activation checkpointing. They take
checked arguments only: :mod:`selective_scan.api` is in front.
"""

import contextlib
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from selective_scan import chunked, cpu, cuda, native
from selective_scan.directions import Direction

COMPILED = {"cpu": cpu, "cuda": cuda}
_LIBRARY = torch.library.Library("selective_scan", "FRAGMENT")
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)


def no_autocast(device):
    """Return a context in which autocast is off."""
    if not torch.amp.is_autocast_available(device.type):  # such as "meta"
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def _operator(function):
    """Return the operator that a function with annotated arguments becomes, under its name; it runs without autocast.

    `torch.library.custom_op` does the same but loads the compiler at the first call, two seconds of every command.
    """

    def in_full_precision(first, *arguments):
        with no_autocast(first.device):
            return function(first, *arguments)

    name = function.__name__
    _LIBRARY.define(name + torch.library.infer_schema(function, mutates_args=()), tags=_TAGS)
    _LIBRARY.impl(name, in_full_precision, "CompositeExplicitAutograd")
    return getattr(torch.ops.selective_scan, name).default


def _refuse_second_derivative(ctx, *_):
    raise RuntimeError("selective_scan: there is no autograd formula for gradients of gradients")


# ---- The plain scan: (batch, K * channels, L), channels first ----


def _new_saved_states(like, implementation, keep, *sizes):
    """Return a tensor for the states that the forward pass saves for the backward pass; empty unless `keep`."""
    shape = COMPILED.get(implementation, chunked).saved_states_shape(*sizes) if keep else (0,)
    return like.new_empty(shape, dtype=torch.promote_types(like.dtype, torch.float32))


def _scan_sizes(u, A, B):
    return u.shape[0], u.shape[2], B.shape[1], u.shape[1] // B.shape[1], A.shape[1]


@_operator
def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    implementation: str,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    saved_states = _new_saved_states(u, implementation, keep, *_scan_sizes(u, A, B))
    kept = saved_states if keep else None
    if implementation in COMPILED:
        problem = _scan_problem(u, delta, A, B, C, D, delta_bias, delta_softplus)
        y = COMPILED[implementation].forward(problem, kept).mT.contiguous().to(u.dtype)
    else:
        y = chunked.forward(u, delta, A, B, C, D, delta_bias, delta_softplus, kept)
    return y, saved_states


@torch.library.register_fake(scan)
def _(u, delta, A, B, C, D, delta_bias, delta_softplus, implementation, keep):
    return u.new_empty(u.shape), _new_saved_states(u, implementation, keep, *_scan_sizes(u, A, B))


@_operator
def scan_backward(
    dy: Tensor,
    saved_states: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    implementation: str,
) -> list[Tensor]:
    tensors = (u, delta, A, B, C, D, delta_bias)
    if implementation in COMPILED:
        problem = _scan_problem(*tensors, delta_softplus)
        found = COMPILED[implementation].backward(problem, saved_states, _channels_last(dy, problem.u.dtype))
        dB, dC = _total(found["projections"]).permute(1, 0, 3, 2).split(A.shape[1], dim=2)
        gradients = (
            found["u"].mT,
            found["step_sizes"].mT,
            found["A"].sum(0),
            dB,
            dC,
            found["D"].sum(0),
            found["bias"].sum(0),
        )
    else:
        gradients = chunked.backward(*tensors, delta_softplus, saved_states, dy)
    # Clones, since what an operator returns must not overlap.
    return [
        torch.clone(g.to(t.dtype), memory_format=torch.contiguous_format)
        for g, t in zip(gradients, tensors)
        if t is not None
    ]


@torch.library.register_fake(scan_backward)
def _(dy, saved_states, u, delta, A, B, C, D, delta_bias, delta_softplus, implementation):
    return [t.new_empty(t.shape) for t in (u, delta, A, B, C, D, delta_bias) if t is not None]


def _keep_arguments(ctx, inputs, output):
    tensors, ctx.options = inputs[:7], inputs[7:9]
    ctx.present = [t is not None for t in tensors]
    ctx.save_for_backward(output[1], *tensors)


def _differentiate_scan(ctx, dy, _):
    saved_states, *tensors = ctx.saved_tensors
    if not saved_states.numel():  # recorded where no gradient was wanted, as by an export under no_grad
        saved_states = scan(*tensors, *ctx.options, True)[1]
    gradients = iter(scan_backward(dy, saved_states, *tensors, *ctx.options))
    return *(next(gradients) if present else None for present in ctx.present), None, None, None


torch.library.register_autograd(scan_backward, _refuse_second_derivative)
torch.library.register_autograd(scan, _differentiate_scan, setup_context=_keep_arguments)


def _total(pieces):
    """Return the sum over the first dimension, without a copy if that is 1."""
    return pieces[0] if len(pieces) == 1 else pieces.sum(0)


def _channels_last(t, dtype):
    """Return (batch, channels, L) as (batch, L, channels), contiguous."""
    return t.to(dtype).mT.contiguous()


def _scan_problem(u, delta, A, B, C, D, delta_bias, delta_softplus):
    dtype = _element_type(u, delta, B, C)
    return native.Problem(
        u=_channels_last(u, dtype),
        step_sizes=_channels_last(delta, dtype),
        projections=torch.cat([B, C], dim=2).to(dtype).permute(0, 3, 1, 2).contiguous(),
        A=_weight(A),
        D=_weight(D),
        bias=_weight(delta_bias),
        softplus=delta_softplus,
    )


def _element_type(*tensors):
    """Return the dtype in which the compiled scan reads activations: theirs if they agree; float32 on the CPU."""
    if tensors[0].device.type == "cpu":
        return torch.float32
    dtypes = {t.dtype for t in tensors}
    return tensors[0].dtype if len(dtypes) == 1 else torch.float32


def _weight(t):
    return None if t is None else t.float().contiguous()


@functools.lru_cache(64)  # copying to a GPU waits for it
def _on_device(numbers, device):
    return torch.tensor(numbers, dtype=torch.int32, device=device)


# ---- The cross-scan: (batch, frames, joints, channels), channels last; compiled forms only ----


@_operator
def cross_scan(
    u: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A: Tensor,
    D: Tensor,
    directions: Sequence[int],
    limb_partners: Sequence[int],
    exact_limbs: bool,
    implementation: str,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    problem, _ = _cross_problem(u, x_proj_weight, dt_projs_weight, dt_projs_bias, A, D, directions, limb_partners)
    saved_states = _new_saved_states(u, implementation, keep, *problem.sizes)
    y = COMPILED[implementation].forward(problem, saved_states if keep else None)
    return y.view(u.shape).to(u.dtype), saved_states


@torch.library.register_fake(cross_scan)
def _(
    u, x_proj_weight, dt_projs_weight, dt_projs_bias, A, D, directions, limb_partners, exact_limbs, implementation, keep
):
    batch, frames, joints, channels = u.shape
    sizes = batch, frames * joints, len(directions), channels, A.shape[1]
    return u.new_empty(u.shape), _new_saved_states(u, implementation, keep, *sizes)


@_operator
def cross_scan_backward(
    dy: Tensor,
    saved_states: Tensor,
    u: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A: Tensor,
    D: Tensor,
    directions: Sequence[int],
    limb_partners: Sequence[int],
    exact_limbs: bool,
    implementation: str,
) -> list[Tensor]:
    weights = (x_proj_weight, dt_projs_weight, dt_projs_bias, A, D)
    problem, weight = _cross_problem(u, *weights, directions, limb_partners)
    dy = dy.to(problem.u.dtype).contiguous().view(problem.u.shape)
    found = COMPILED[implementation].backward(problem, saved_states, dy)

    # The input of each half of the directions is u, or u + u[limb partner]; its gradient comes through the scan and
    # through the projections, which are weight @ input.
    channels = u.shape[-1]
    dprojections = _total(found["projections"]).flatten(1, 2)
    dinputs = found["u"].view(2, -1, channels)
    dweight = torch.empty_like(weight, dtype=torch.float32)
    for half in range(min(2, len(directions))):
        inputs = problem.u.view(u.shape)
        if problem.limbs[half]:
            inputs = inputs + inputs.index_select(2, problem.partners)
        inputs = inputs.view(-1, channels).float()
        for k in range(half, len(directions), 2):
            dinputs[half].addmm_(dprojections[k], weight[k].float())
            torch.mm(dprojections[k].T, inputs, out=dweight[k])
    du = _total(dinputs[: len(directions)]).view(u.shape)
    if exact_limbs and any(problem.limbs):
        through_partners = sum(dinputs[half] for half in range(min(2, len(directions))) if problem.limbs[half]).view(
            u.shape
        )
        joints = torch.arange(u.shape[2], device=u.device)
        du += torch.matmul((problem.partners == joints[:, None]).to(du.dtype), through_partners)
    gradients = (
        du,
        dweight,
        found["step_weight"].sum(0).view_as(dt_projs_weight),
        found["bias"].sum(0).view_as(dt_projs_bias),
        found["A"].sum(0),
        found["D"].sum(0),
    )
    return [g.to(t.dtype) for g, t in zip(gradients, (u, *weights))]


@torch.library.register_fake(cross_scan_backward)
def _(dy, saved_states, u, x_proj_weight, dt_projs_weight, dt_projs_bias, A, D, *_):
    return [t.new_empty(t.shape) for t in (u, x_proj_weight, dt_projs_weight, dt_projs_bias, A, D)]


def _keep_cross_arguments(ctx, inputs, output):
    ctx.options = inputs[6:10]
    ctx.save_for_backward(output[1], *inputs[:6])


def _differentiate_cross_scan(ctx, dy, _):
    saved_states, *tensors = ctx.saved_tensors
    if not saved_states.numel():
        saved_states = cross_scan(*tensors, *ctx.options, True)[1]
    return *cross_scan_backward(dy, saved_states, *tensors, *ctx.options), None, None, None, None, None


torch.library.register_autograd(cross_scan_backward, _refuse_second_derivative)
torch.library.register_autograd(cross_scan, _differentiate_cross_scan, setup_context=_keep_cross_arguments)


def _cross_problem(u, x_proj_weight, dt_projs_weight, dt_projs_bias, A, D, directions, limb_partners):
    """Return the `Problem`, and x_proj_weight in the dtype of its activations."""
    batch, frames, joints, channels = u.shape
    dtype = _element_type(u)
    activations = u.to(dtype).contiguous().view(batch, frames * joints, channels)
    weight = x_proj_weight.to(dtype)
    directions = [Direction.decode(code) for code in directions]
    projections = torch.mm(activations.view(-1, channels), weight.flatten(0, 1).T)
    problem = native.Problem(
        u=activations,
        projections=projections.view(batch, frames * joints, *weight.shape[:2]),
        A=_weight(A),
        D=_weight(D),
        bias=_weight(dt_projs_bias),
        softplus=True,
        step_weight=_weight(dt_projs_weight),
        paths=tuple(d.path(frames, joints) for d in directions),
        limbs=tuple(int(d.limbs) for d in directions),
        partners=_on_device(tuple(limb_partners), u.device) if limb_partners else None,
    )
    return problem, weight
