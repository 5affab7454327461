"""The compiled CPU scan against the loop that is obviously right, in float64, and how an implementation is chosen."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import relative_error
from scan_cases import NAMES, arguments, outputs_and_gradients
from selective_scan import cpu, default_implementation, selective_scan, why_unavailable

compiled = pytest.mark.skipif(bool(why_unavailable("cpu")), reason=why_unavailable("cpu"))


def assert_equals_the_loop(values, softplus=True, tolerance=1e-4):
    """Outputs and gradients against those of the same values in float64, and the output without a gradient.

    The loop's gradient takes minutes for long sequences: there, the chunked PyTorch form, itself tested against
    the loop, gives the gradients.
    """
    result = outputs_and_gradients(values, "cpu", softplus)
    double = {n: None if v is None else v.double() for n, v in values.items()}
    exact = outputs_and_gradients(double, "loop" if values["u"].shape[2] <= 70 else "torch", softplus)
    with torch.no_grad():
        exact["y"] = selective_scan(**double, delta_softplus=softplus, implementation="loop")
    assert result.keys() == exact.keys()
    for name in exact:
        assert relative_error(result[name], exact[name]) < tolerance, name
    with torch.no_grad():
        y = selective_scan(**values, delta_softplus=softplus, implementation="cpu")
    assert torch.equal(y, result["y"])


@compiled
@pytest.mark.parametrize(
    "batch, groups, channels, length, states",
    [
        (1, 1, 3, 1, 1),
        (7, 4, 3, 2, 5),
        (1, 4, 16, 63, 8),
        (1, 1, 64, 64, 16),
        (7, 1, 20, 65, 8),
        (1, 4, 20, 65, 16),
        (1, 4, 16, 459, 16),
        (2, 1, 64, 459, 8),
        (1, 1, 3, 4131, 16),
        (0, 4, 16, 65, 16),
    ],
)
def test_equals_the_loop(batch, groups, channels, length, states):
    assert_equals_the_loop(arguments(batch, groups, channels, length, states))


@compiled
@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("absent", [(), ("D",), ("delta_bias",), ("D", "delta_bias")])
def test_optional_arguments(absent, softplus):
    values = {**arguments(1, 2, 5, 66, 4), **dict.fromkeys(absent)}
    if not softplus:
        values["delta"] = values["delta"].abs()
    assert_equals_the_loop(values, softplus)


@compiled
def test_non_contiguous_inputs():
    values = arguments(2, 4, 20, 70, 16)
    strided = {n: v.mT.contiguous().mT if v.dim() > 1 else v.repeat_interleave(2)[::2] for n, v in values.items()}
    assert not any(value.is_contiguous() for value in strided.values())
    assert_equals_the_loop(strided)


@compiled
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 5e-3)])
def test_half_precision_keeps_its_dtype(dtype, tolerance):
    values = arguments(2, 4, 4, 300, 16, dtype)
    assert_equals_the_loop(values, tolerance=tolerance)
    assert all(value.dtype == dtype for value in outputs_and_gradients(values, "cpu").values())


@compiled
def test_gradients_have_the_dtypes_of_their_inputs():
    values = arguments(1, 4, 4, 70, 16)
    values["u"], values["delta"] = values["u"].bfloat16(), values["delta"].half()
    result = outputs_and_gradients(values, "cpu")
    assert result["y"].dtype == torch.bfloat16
    for name, value in values.items():
        assert result[name].dtype == value.dtype, name


@compiled
@pytest.mark.parametrize("step", [50.0, -50.0, 1e4, -1e4])
def test_extreme_steps_give_no_nan(step):
    values = arguments(1, 2, 4, 70, 16)
    values["delta"] = torch.full_like(values["delta"], step)
    for name, value in outputs_and_gradients(values, "cpu").items():
        assert value.isfinite().all(), name


@compiled
@pytest.mark.parametrize("name", NAMES)
def test_nan_is_not_hidden(name):
    values = arguments(1, 1, 4, 10, 16)
    values[name].view(-1)[0] = torch.nan
    assert selective_scan(**values, delta_softplus=True, implementation="cpu").isnan().any()


@compiled
def test_small_denormal_numbers_survive_the_library():
    """Libraries linked with -ffast-math make the process flush denormals to zero."""
    assert float(torch.tensor(1e-40) * 1) > 0


@compiled
def test_more_threads_give_the_same_result():
    threads = torch.get_num_threads()
    results = []
    for batch in (1, 3):  # one sequence of one group is cut into parts, three are not
        values = arguments(batch, 1, 64, 130, 16)
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            try:
                results.append(outputs_and_gradients(values, "cpu"))
            finally:
                torch.set_num_threads(threads)
        one, two, again = results[-3:]
        for name in one:
            assert relative_error(two[name], one[name]) < 1e-6, name
            assert torch.equal(two[name], again[name]), name


@compiled
def test_only_required_gradients_and_no_second_derivative():
    values = arguments(1, 1, 4, 10, 4)
    values["B"].requires_grad_()
    y = selective_scan(**values, delta_softplus=True, implementation="cpu")
    (gradient,) = torch.autograd.grad(y.square().sum(), values["B"], create_graph=True)
    assert all(value.grad is None for value in values.values())
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@compiled
def test_float64_goes_through_pytorch():
    values = arguments(1, 2, 2, 5, 3, torch.float64)
    y = selective_scan(**values, delta_softplus=True, implementation="cpu")
    assert torch.equal(y, selective_scan(**values, delta_softplus=True, implementation="torch"))


def chosen(monkeypatch, values, **options):
    """Which implementation a call reaches."""
    calls = []
    for name in ("torch", "loop", "cpu"):
        monkeypatch.setitem(
            sys.modules["selective_scan"].IMPLEMENTATIONS, name, lambda *a, name=name: calls.append(name)
        )
    selective_scan(**values, **options)
    return calls.pop()


def test_default_implementation(monkeypatch):
    monkeypatch.delenv("SELECTIVE_SCAN_IMPLEMENTATION", raising=False)
    values = arguments(1, 1, 2, 3, 2)
    fastest = "cpu" if not why_unavailable("cpu") else "torch"
    assert chosen(monkeypatch, values) == fastest
    assert chosen(monkeypatch, {n: v.bfloat16() for n, v in values.items()}) == fastest
    assert chosen(monkeypatch, {n: v.double() for n, v in values.items()}) == "torch"
    assert default_implementation("cuda") == "torch"
    assert chosen(monkeypatch, values, implementation="loop") == "loop"
    monkeypatch.setenv("SELECTIVE_SCAN_IMPLEMENTATION", "loop")
    assert chosen(monkeypatch, values) == "loop"
    assert chosen(monkeypatch, values, implementation="torch") == "torch"


def test_missing_extension_is_named(monkeypatch):
    monkeypatch.delenv("SELECTIVE_SCAN_IMPLEMENTATION", raising=False)
    monkeypatch.setattr(cpu, "_library", lambda: "no compiler")
    values = arguments(1, 1, 2, 3, 2)
    with pytest.raises(ValueError, match="^implementation: 'cpu' is not available: no compiler"):
        selective_scan(**values, implementation="cpu")
    assert chosen(monkeypatch, values) == "torch"


@compiled
def test_named_implementation_on_another_device():
    values = {n: v.to("meta") for n, v in arguments(1, 1, 2, 3, 2).items()}
    with pytest.raises(ValueError, match="^implementation: 'cpu' is not available: .* not on meta"):
        selective_scan(**values, implementation="cpu")


def test_module_prints_every_implementation():
    environment = {**os.environ, "SELECTIVE_SCAN_IMPLEMENTATION": ""}
    result = subprocess.run(
        [sys.executable, "-m", "selective_scan"], capture_output=True, text=True, check=True, env=environment
    )
    for name in ("torch", "loop", "cpu"):
        assert f"\n{name}: " in result.stdout
