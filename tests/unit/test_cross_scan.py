"""The fused cross-scan against copies and plain scans, in float64, and as a citizen of PyTorch."""

import pytest
import torch
from conftest import relative_error
from scan_cases import COMPILED, NAMES, arguments, cross_arguments, cross_scan_of, differentiate, doubled
from selective_scan import Direction, cross_scan, cross_scan_unfused
from torch.utils.checkpoint import checkpoint

from lib.model.scan_orders import LIMB_PARTNER, SCAN_ORDERS


def device_of(implementation):
    return "cuda" if implementation == "cuda" else "cpu"


def results(values, order, implementation, exact_limbs=False, function=cross_scan):
    return differentiate(
        lambda **leaves: cross_scan_of(leaves, order, implementation, exact_limbs, function),
        values,
        device_of(implementation),
    )


def assert_equals_copies(values, order, implementation, exact_limbs=False, tolerance=1e-4):
    fused = results(values, order, implementation, exact_limbs)
    exact = results(doubled(values), order, "torch", exact_limbs, cross_scan_unfused)
    for name in exact:
        assert fused[name].dtype == values[name if name in values else "u"].dtype
        assert relative_error(fused[name], exact[name]) < tolerance, name


@pytest.mark.parametrize("implementation", COMPILED)
@pytest.mark.parametrize("exact_limbs", [False, True])
@pytest.mark.parametrize("order", SCAN_ORDERS)
def test_every_order(order, exact_limbs, implementation):
    assert_equals_copies(cross_arguments(2, 9, 24, 3, 16), order, implementation, exact_limbs)


@pytest.mark.parametrize("implementation", COMPILED)
@pytest.mark.parametrize(
    "batch, frames, channels, rank, states",
    [(1, 1, 1, 1, 1), (7, 2, 5, 2, 8), (1, 27, 128, 4, 16), (1, 5, 160, 9, 16), (2, 8, 48, 30, 5), (0, 3, 8, 1, 16)],
)
def test_shapes(batch, frames, channels, rank, states, implementation):
    values = cross_arguments(batch, frames, channels, rank, states)
    assert_equals_copies(values, "v2_plus_poselimbs", implementation)


@pytest.mark.parametrize("implementation", COMPILED)
def test_a_full_clip(implementation):
    assert_equals_copies(cross_arguments(1, 243, 16, 4, 16), "v2_plus_poselimbs", implementation)


@pytest.mark.parametrize("implementation", COMPILED)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_directions_and_other_joints(count, implementation):
    values = cross_arguments(2, 6, 20, 2, 16, directions=count, joints=5)
    directions = SCAN_ORDERS["v2_bs_bt"][1:2] + SCAN_ORDERS["v2"][: count - 1]

    def scan(function, implementation):
        return lambda **leaves: function(**leaves, directions=directions, implementation=implementation)

    fused = differentiate(scan(cross_scan, implementation), values, device_of(implementation))
    exact = differentiate(scan(cross_scan_unfused, "torch"), doubled(values))
    for name in exact:
        assert relative_error(fused[name], exact[name]) < 1e-4, name


@pytest.mark.parametrize("implementation", COMPILED)
def test_one_direction_of_one_clip_reads_no_memory_that_nobody_wrote(implementation):
    values = {n: v.to(device_of(implementation)) for n, v in cross_arguments(1, 4, 8, 2, 4, directions=1).items()}
    exact = cross_scan_unfused(**values, directions=[Direction()], implementation="torch")
    for size in range(8):
        junk = [torch.full_like(values["u"], 1e3 * (size + 1)) for _ in range(20)]
        del junk
        y = cross_scan(**values, directions=[Direction()], implementation=implementation)
        assert relative_error(y.cpu(), exact.cpu()) < 1e-5


@pytest.mark.parametrize("implementation", COMPILED)
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 5e-3)])
def test_half_precision(dtype, tolerance, implementation):
    assert_equals_copies(cross_arguments(2, 9, 24, 3, 16, dtype), "v2_plus_poselimbs", implementation, False, tolerance)


@pytest.mark.parametrize("implementation", COMPILED)
def test_non_contiguous_input(implementation):
    values = cross_arguments(2, 9, 24, 3, 16)
    values["u"] = values["u"].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not values["u"].is_contiguous()
    assert_equals_copies(values, "v2_plus_poselimbs", implementation)


@pytest.mark.parametrize("implementation", COMPILED)
@pytest.mark.parametrize("step", [50.0, -50.0, 1e4])
def test_extreme_steps_give_no_nan(step, implementation):
    values = cross_arguments(1, 9, 8, 1, 16)
    values["dt_projs_bias"] = torch.full_like(values["dt_projs_bias"], step)
    for name, value in results(values, "v2", implementation).items():
        assert value.isfinite().all(), name


@pytest.mark.parametrize("implementation", COMPILED)
def test_the_same_from_run_to_run(implementation):
    values = cross_arguments(2, 27, 64, 4, 16)
    once, again = (results(values, "v2_plus_poselimbs", implementation, True) for _ in range(2))
    for name in once:
        assert torch.equal(once[name], again[name]), name


@pytest.mark.parametrize("implementation", COMPILED)
def test_autocast(implementation):
    """Activations come in half precision, weights in float32."""
    values = cross_arguments(1, 27, 32, 4, 16)
    values["u"] = values["u"].bfloat16()
    with torch.autocast(device_of(implementation), dtype=torch.bfloat16):
        assert_equals_copies(values, "v2_plus_poselimbs", implementation, False, 2e-2)


class Layer(torch.nn.Module):
    """A cross-scan between two other layers, with its weights as parameters."""

    def __init__(self, implementation):
        super().__init__()
        values = cross_arguments(2, 9, 24, 3, 16)
        self.u = values.pop("u").to(device_of(implementation))
        self.weights = torch.nn.ParameterDict({n: torch.nn.Parameter(v) for n, v in values.items()})
        self.implementation = implementation
        self.to(device_of(implementation))

    def forward(self, u):
        return cross_scan_of({"u": u.sin(), **self.weights}, "v2_plus_poselimbs", self.implementation).cos()

    def gradients(self, function):
        self.zero_grad()
        y = function(self.u)
        y.square().sum().backward()
        return [y, *(p.grad for p in self.parameters())]


REGISTERED = [
    pytest.param(name, *param.values, marks=param.marks) for param in COMPILED for name in ("scan", "cross_scan")
]


def assert_same(left, right):
    for a, b in zip(left, right):
        assert relative_error(a.cpu(), b.cpu()) < 1e-5


@pytest.mark.parametrize("implementation", COMPILED)
def test_torch_compile_sees_one_operator(implementation):
    layer = Layer(implementation)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_same(layer.gradients(compiled), layer.gradients(layer))


@pytest.mark.parametrize("implementation", COMPILED)
def test_torch_export(implementation):
    layer = Layer(implementation).eval()
    program = torch.export.export(layer, (layer.u,))
    assert any("cross_scan" in str(node.target) for node in program.graph.nodes)
    assert_same([program.module()(layer.u)], [layer(layer.u)])


@pytest.mark.parametrize("implementation", COMPILED)
def test_an_export_without_gradients_still_has_them(implementation):
    layer = Layer(implementation)
    with torch.no_grad():
        program = torch.export.export(layer, (layer.u,))
    u, expected = layer.u.clone().requires_grad_(), layer.u.clone().requires_grad_()
    program.module()(u).square().sum().backward()
    layer(expected).square().sum().backward()
    assert_same([u.grad], [expected.grad])


@pytest.mark.parametrize("implementation", COMPILED)
def test_checkpointed_activations(implementation):
    layer = Layer(implementation)
    assert_same(layer.gradients(lambda u: checkpoint(layer, u, use_reentrant=False)), layer.gradients(layer))


@pytest.mark.parametrize("name, implementation", [("scan", "torch"), *REGISTERED])
def test_registration(name, implementation):
    """Schema, shape inference and gradient registration, as PyTorch's own checker sees them."""
    device = device_of(implementation)
    if name == "scan":
        values = arguments(2, 2, 3, 70, 4)
        tensors = [values[n].to(device).requires_grad_() for n in NAMES]
        call = (torch.ops.selective_scan.scan.default, (*tensors, True, implementation, True))
    else:
        tensors = [v.to(device).requires_grad_() for v in cross_arguments(2, 5, 8, 2, 16).values()]
        codes = [d.encode() for d in SCAN_ORDERS["v2_plus_poselimbs"]]
        call = (
            torch.ops.selective_scan.cross_scan.default,
            (*tensors, codes, LIMB_PARTNER, False, implementation, True),
        )
    torch.library.opcheck(*call, test_utils=("test_schema", "test_autograd_registration", "test_faketensor"))


@pytest.mark.parametrize("order", SCAN_ORDERS)
def test_walks_visit_positions_in_the_order_of_flatten(order):
    frames, joints = 3, 17
    grid = torch.arange(frames * joints).view(frames, joints)
    for direction in SCAN_ORDERS[order]:
        start, inner, outer_step, inner_step = direction.path(frames, joints)
        walked = [start + t // inner * outer_step + t % inner * inner_step for t in range(frames * joints)]
        assert walked == direction.flatten(grid).tolist()
        assert torch.equal(direction.unflatten(direction.flatten(grid), frames, joints), grid)
        assert Direction.decode(direction.encode()) == direction


@pytest.mark.parametrize(
    "name, change",
    [
        ("u", lambda v: v[0]),
        ("u", lambda v: v[:, :0]),
        ("u", lambda v: v.int()),
        ("x_proj_weight", lambda v: v[:, 1:]),
        ("dt_projs_weight", lambda v: v[1:]),
        ("dt_projs_weight", lambda v: v[..., :0]),
        ("dt_projs_bias", lambda v: v.flatten()),
        ("A", lambda v: v[1:]),
        ("D", lambda v: v[1:]),
        ("D", lambda v: v.to("meta")),
    ],
)
def test_wrong_arguments_are_named(name, change):
    values = cross_arguments(1, 3, 8, 2, 4)
    values[name] = change(values[name])
    with pytest.raises(ValueError, match=f"^{name}: "):
        cross_scan_of(values, "v2", None)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"limb_partners": LIMB_PARTNER[:5]}, "^limb_partners: expected 17, one per joint of u, got 5"),
        ({"limb_partners": (17,) * 17}, "^limb_partners: expected joints from 0 to 16"),
        ({"directions": ()}, "^directions: expected 1 to 4, got 0"),
        ({"directions": (Direction(), Direction(), Direction(limbs=True))}, "^directions: k and k . 2 must agree"),
        ({"implementation": "fpga"}, "^implementation: 'fpga' is unknown; there are torch, loop, cpu, cuda"),
    ],
)
def test_wrong_options_are_named(change, message):
    options = {"directions": SCAN_ORDERS["v2_plus_poselimbs"], "limb_partners": LIMB_PARTNER} | change
    with pytest.raises(ValueError, match=message):
        cross_scan(**cross_arguments(1, 3, 8, 2, 4), **options)
