"""Every form of the plain scan against the loop that is obviously right, in float64."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from conftest import relative_error
from scan_cases import COMPILED, FAST, NAMES, arguments, doubled, outputs_and_gradients
from selective_scan import selective_scan


def scan(values, implementation, **options):
    device = "cuda" if implementation == "cuda" else "cpu"
    values = {n: None if v is None else v.to(device) for n, v in values.items()}
    return selective_scan(**values, delta_softplus=True, implementation=implementation, **options).cpu()


def assert_equals_the_loop(values, implementation, softplus=True, tolerance=1e-4):
    """Outputs and gradients against those of the same values in float64, and the output without a gradient.

    The loop's gradient takes minutes for long sequences: there, the chunked PyTorch form, itself tested against
    the loop, takes its place.
    """
    result = outputs_and_gradients(values, implementation, softplus)
    exact = outputs_and_gradients(doubled(values), "loop" if values["u"].shape[2] <= 200 else "torch", softplus)
    assert result.keys() == exact.keys()
    for name in exact:
        assert result[name].dtype == values[name if name in values else "u"].dtype, name
        assert relative_error(result[name], exact[name]) < tolerance, name
    if softplus:
        with torch.no_grad():
            assert relative_error(scan(values, implementation), result["y"]) < 1e-6


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize(
    "batch, groups, channels, length, states",
    [
        (1, 1, 3, 1, 1),
        (7, 4, 3, 2, 5),
        (3, 4, 8, 31, 8),
        (1, 4, 16, 63, 8),
        (1, 1, 64, 64, 16),
        (7, 1, 20, 65, 8),
        (1, 4, 20, 65, 16),
        (1, 1, 160, 130, 16),
        (7, 4, 4, 153, 16),
        (1, 4, 16, 459, 16),
        (1, 1, 3, 4131, 16),
        (1, 1, 2, 4131, 1),
        (1, 1, 1, 100_003, 8),
        (0, 4, 16, 65, 16),
    ],
)
def test_equals_the_loop(batch, groups, channels, length, states, implementation):
    assert_equals_the_loop(arguments(batch, groups, channels, length, states), implementation)


def test_the_pytorch_form_equals_the_loop_over_many_chunks():
    values = arguments(1, 1, 2, 4131, 4, torch.float64)
    with torch.no_grad():
        assert relative_error(scan(values, "torch"), scan(values, "loop")) < 1e-12


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("absent", [(), ("D",), ("delta_bias",), ("D", "delta_bias")])
def test_optional_arguments(absent, softplus, implementation):
    values = {**arguments(1, 2, 5, 66, 4), **dict.fromkeys(absent)}
    if not softplus:
        values["delta"] = values["delta"].abs()
    assert_equals_the_loop(values, implementation, softplus)


@pytest.mark.parametrize("implementation", FAST)
def test_states_that_grow(implementation):
    values = arguments(2, 2, 5, 40, 4)
    values["A"] = -values["A"] * 0.2
    assert_equals_the_loop(values, implementation)


@pytest.mark.parametrize("implementation", FAST)
def test_non_contiguous_inputs(implementation):
    values = arguments(2, 4, 20, 70, 16)
    strided = {n: v.mT.contiguous().mT if v.dim() > 1 else v.repeat_interleave(2)[::2] for n, v in values.items()}
    assert not any(value.is_contiguous() for value in strided.values())
    assert_equals_the_loop(strided, implementation)


def test_gradients_are_derivatives():
    """In float64, which the compiled forms do not take."""
    values = arguments(1, 2, 2, 5, 3, torch.float64)

    def of_tensors(*tensors):
        return selective_scan(*tensors, delta_softplus=True, implementation="torch")

    assert torch.autograd.gradcheck(of_tensors, tuple(values[name].requires_grad_() for name in NAMES))


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("step", [50.0, -50.0, 1e4, -1e4])
def test_extreme_steps_give_no_nan(step, implementation):
    values = arguments(1, 2, 4, 70, 16)
    values["delta"] = torch.full_like(values["delta"], step)
    for name, value in outputs_and_gradients(values, implementation).items():
        assert value.isfinite().all(), name


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("step", [-torch.inf, -1e30, 1e14])
def test_steps_beyond_all_measure_equal_the_loop(step, implementation):
    """Steps of -inf mask padding."""
    values = arguments(1, 1, 4, 10, 16)
    values["delta"][:, :, 3:6] = step
    values["u"][:, :, 3:6] = 0
    assert relative_error(scan(values, implementation), scan(values, "loop")) < 1e-5


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("name", NAMES)
def test_nan_is_not_hidden(name, implementation):
    values = arguments(1, 1, 4, 10, 16)
    values[name].view(-1)[0] = torch.nan
    assert scan(values, implementation).isnan().any()


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 5e-3)])
def test_half_precision_keeps_its_dtype_and_a_float32_state(dtype, tolerance, implementation):
    assert_equals_the_loop(arguments(2, 4, 4, 300, 16, dtype), implementation, tolerance=tolerance)


@pytest.mark.parametrize("implementation", FAST)
def test_gradients_have_the_dtypes_of_their_inputs(implementation):
    values = arguments(1, 4, 4, 70, 16)
    values["u"], values["delta"] = values["u"].bfloat16(), values["delta"].half()
    assert_equals_the_loop(values, implementation, tolerance=2e-2)


@pytest.mark.parametrize("implementation", FAST)
def test_autocast_does_not_lower_the_precision(implementation):
    values = arguments(1, 4, 4, 100, 16)
    with torch.autocast("cuda" if implementation == "cuda" else "cpu", dtype=torch.bfloat16):
        result = outputs_and_gradients(values, implementation)
    exact = outputs_and_gradients(doubled(values), "loop")
    for name in exact:
        assert result[name].dtype == torch.float32
        assert relative_error(result[name], exact[name]) < 1e-5, name


@pytest.mark.parametrize("implementation", COMPILED)
def test_the_same_from_run_to_run(implementation):
    values = arguments(3, 2, 70, 130, 16)
    once, again = (outputs_and_gradients(values, implementation) for _ in range(2))
    for name in once:
        assert torch.equal(once[name], again[name]), name


@pytest.mark.parametrize("implementation", COMPILED[:1])
def test_more_threads_give_the_same_result(implementation):
    threads = torch.get_num_threads()
    for batch in (1, 3):  # one sequence of one group is cut into parts, three are not
        values = arguments(batch, 1, 64, 130, 16)
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            try:
                results.append(outputs_and_gradients(values, implementation))
            finally:
                torch.set_num_threads(threads)
        for name in results[0]:
            assert relative_error(results[1][name], results[0][name]) < 1e-6, name


@pytest.mark.parametrize("implementation", FAST)
def test_only_required_gradients_and_no_second_derivative(implementation):
    device = "cuda" if implementation == "cuda" else "cpu"
    values = {n: v.to(device) for n, v in arguments(1, 1, 4, 10, 4).items()}
    values["B"].requires_grad_()
    y = selective_scan(**values, delta_softplus=True, implementation=implementation)
    (gradient,) = torch.autograd.grad(y.square().sum(), values["B"], create_graph=True)
    assert all(value.grad is None for value in values.values())
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


@pytest.mark.parametrize("implementation", COMPILED[:1])
def test_small_denormal_numbers_survive_the_library(implementation):
    """Libraries linked with -ffast-math make the process flush denormals to zero."""
    scan(arguments(1, 1, 1, 1, 1), implementation)
    assert float(torch.tensor(1e-40) * 1) > 0


@pytest.mark.parametrize("implementation", ["torch", *COMPILED[:1]])
def test_a_243_frame_s_clip_never_holds_all_states(implementation):
    """One (B, KD, L, N) tensor would be 135 MB; forward and backward together must add less to the process."""
    code = """
        import resource, sys, torch
        from selective_scan import selective_scan
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        def clip(length):
            u = torch.randn(1, 512, length, requires_grad=True)
            delta = torch.rand(1, 512, length, requires_grad=True)
            A = -torch.rand(512, 16)
            B, C = torch.randn(2, 1, 4, 16, length).requires_grad_().unbind(0)
            selective_scan(u, delta, A, B, C, implementation=sys.argv[1]).sum().backward()
        clip(64)
        before = peak()
        clip(243 * 17)
        print(peak() - before)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), implementation],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},  # freed tensors go back at once
    )
    assert float(result.stdout) < 135


@pytest.mark.parametrize(
    "name, change",
    [
        ("u", lambda v: v[0]),
        ("u", lambda v: v[:, :, :0]),
        ("u", lambda v: v.long()),
        ("u", lambda v: v.to(torch.float8_e4m3fn)),
        ("delta", lambda v: v[:, :, 1:]),
        ("A", lambda v: v[1:]),
        ("A", lambda v: v[:, :0]),
        ("B", lambda v: v[:, :, :, 1:]),
        ("B", lambda v: v[:, :3]),
        ("C", lambda v: v[:, :, 1:]),
        ("D", lambda v: v[1:]),
        ("delta_bias", lambda v: v[None]),
        ("C", lambda v: v.to("meta")),
        ("D", lambda v: v.long()),
    ],
)
@pytest.mark.parametrize("implementation", FAST)
def test_wrong_arguments_are_named(name, change, implementation):
    device = "cuda" if implementation == "cuda" else "cpu"
    values = {n: v.to(device) for n, v in arguments(2, 4, 2, 9, 4).items()}
    values[name] = change(values[name])
    with pytest.raises(ValueError, match=f"^{name}: "):
        selective_scan(**values, implementation=implementation)


@pytest.mark.parametrize("implementation", COMPILED)
def test_limits_of_a_compiled_form_are_named(implementation):
    with pytest.raises(ValueError, match="^A: has 17 states .* at most 16; use 'torch'"):
        scan(arguments(1, 1, 2, 3, 17), implementation)
    with pytest.raises(ValueError, match="^u: .* not float64; use 'torch'"):
        scan(arguments(1, 1, 2, 3, 4, torch.float64), implementation)
    values = arguments(1, 1, 1, 1, 1)
    values |= {n: values[n].expand(1, 1, 1 << 31) for n in ("u", "delta")}
    values |= {n: values[n].expand(1, 1, 1, 1 << 31) for n in "BC"}
    with pytest.raises(ValueError, match="^u: has 2147483648 elements per sequence; .* less than 2..31; use 'torch'"):
        scan(values, implementation)
    assert scan(arguments(1, 1, 2, 3, 17), "torch").shape == (1, 2, 3)


@pytest.mark.parametrize("implementation", COMPILED)
def test_out_of_memory_is_pytorchs_own_error(implementation):
    device = "cuda" if implementation == "cuda" else "cpu"
    huge = {n: v.to(device) for n, v in arguments(1, 1, 1, 1, 16).items()}
    huge = {n: v.expand(1 << 14, 1, 1 << 30) if n in ("u", "delta") else v for n, v in huge.items()}
    huge |= {n: huge[n].expand(1 << 14, 1, 16, 1 << 30) for n in "BC"}
    with pytest.raises(RuntimeError, match="memory"):
        selective_scan(**huge, implementation=implementation)
    values = arguments(1, 1, 4, 10, 16)
    assert relative_error(scan(values, implementation), scan(values, "loop")) < 1e-5
