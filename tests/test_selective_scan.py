"""The PyTorch form of the selective scan against the loop that is obviously right."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from conftest import relative_error
from scan_cases import NAMES, arguments, outputs_and_gradients
from selective_scan import selective_scan


@pytest.mark.parametrize(
    "shape",
    [
        (2, 4, 3, 1, 16),
        (1, 1, 5, 2, 1),
        (3, 4, 8, 31, 8),
        (2, 2, 8, 32, 16),
        (2, 4, 8, 33, 16),
        (7, 4, 4, 153, 16),
    ],
)
def test_chunked_form_equals_the_loop(shape):
    values = arguments(*shape)
    fast = outputs_and_gradients(values, "torch")
    slow = outputs_and_gradients(values, "loop")
    for name in slow:
        assert relative_error(fast[name], slow[name]) < 1e-5, name


def test_optional_arguments_and_raw_steps():
    values = arguments(2, 2, 3, 40, 4)
    values = {**values, "D": None, "delta_bias": None, "delta": values["delta"].abs()}
    fast = outputs_and_gradients(values, "torch", softplus=False)
    slow = outputs_and_gradients(values, "loop", softplus=False)
    for name in slow:
        assert relative_error(fast[name], slow[name]) < 1e-5, name


def test_gradients_are_derivatives():
    values = arguments(1, 2, 2, 5, 3, torch.float64)

    def scan(*tensors):
        return selective_scan(*tensors, delta_softplus=True, implementation="torch")

    assert torch.autograd.gradcheck(scan, tuple(values[name].requires_grad_() for name in NAMES))


@pytest.mark.parametrize("step", [50.0, -50.0, 1e4])
def test_extreme_steps_give_no_nan(step):
    values = arguments(1, 2, 4, 70, 16)
    values["delta"] = torch.full_like(values["delta"], step)
    results = outputs_and_gradients(values, "torch")
    for name, value in results.items():
        assert value.isfinite().all(), name


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 5e-3)])
def test_half_precision_keeps_its_dtype_and_a_float32_state(dtype, tolerance):
    values = arguments(2, 4, 4, 300, 16, dtype)
    results = outputs_and_gradients(values, "torch")
    exact = outputs_and_gradients({n: v.double() for n, v in values.items()}, "loop")
    assert all(value.dtype == dtype for value in results.values())
    for name in exact:
        assert relative_error(results[name], exact[name]) < tolerance, name


def test_autocast_does_not_lower_the_precision():
    values = arguments(1, 4, 4, 100, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = selective_scan(**values, delta_softplus=True, implementation="torch")
    assert y.dtype == torch.float32
    exact = selective_scan(**values, delta_softplus=True, implementation="loop")
    assert relative_error(y, exact) < 1e-5


def test_empty_batch_and_non_contiguous_input():
    values = arguments(0, 4, 4, 10, 16)
    assert selective_scan(**values, delta_softplus=True, implementation="torch").shape == (0, 16, 10)
    values = arguments(2, 4, 4, 50, 16)
    strided = {n: v.mT.contiguous().mT if v.dim() > 1 else v for n, v in values.items()}
    y = selective_scan(**strided, delta_softplus=True, implementation="torch")
    expected = selective_scan(**values, delta_softplus=True, implementation="torch")
    assert relative_error(y, expected) < 1e-6


def test_a_243_frame_s_clip_never_holds_all_states():
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
        [sys.executable, "-c", textwrap.dedent(code), "torch"],
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
        ("delta", lambda v: v[:, :, 1:]),
        ("A", lambda v: v[1:]),
        ("B", lambda v: v[:, :, :, 1:]),
        ("B", lambda v: v[:, :3]),
        ("C", lambda v: v[:, :, 1:]),
        ("D", lambda v: v[1:]),
        ("delta_bias", lambda v: v[None]),
        ("C", lambda v: v.to("meta")),
        ("D", lambda v: v.long()),
    ],
)
def test_wrong_arguments_are_named(name, change):
    values = arguments(2, 4, 2, 9, 4)
    values[name] = change(values[name])
    with pytest.raises(ValueError, match=f"^{name}: "):
        selective_scan(**values)


def test_unknown_implementation_is_named():
    with pytest.raises(ValueError, match="^implementation: 'fpga' is unknown; there are torch, loop"):
        selective_scan(**arguments(1, 1, 1, 1, 1), implementation="fpga")
