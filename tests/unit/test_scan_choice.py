"""Which form of the scan a call reaches, and what is said where one is missing."""

import os
import subprocess
import sys

import pytest
import torch
from scan_cases import arguments, compiled
from selective_scan import cpu, cuda, default_implementation, selective_scan, why_unavailable

from lib.model import mambablocks


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("SELECTIVE_SCAN_IMPLEMENTATION", raising=False)


@pytest.mark.skipif(bool(why_unavailable("cpu")), reason=why_unavailable("cpu"))
def test_default_is_the_compiled_form_except_for_float64():
    assert default_implementation("cpu") == "cpu"
    assert default_implementation("cpu", torch.bfloat16) == "cpu"
    assert default_implementation("cpu", torch.float64) == "torch"
    values = arguments(1, 1, 2, 3, 2)
    fast = selective_scan(**values)
    assert torch.equal(fast, selective_scan(**values, implementation="cpu"))
    double = {n: v.double() for n, v in values.items()}
    assert torch.equal(selective_scan(**double), selective_scan(**double, implementation="torch"))


def test_the_environment_variable_names_the_default(monkeypatch):
    monkeypatch.setenv("SELECTIVE_SCAN_IMPLEMENTATION", "loop")
    values = arguments(1, 1, 2, 3, 2)
    assert torch.equal(selective_scan(**values), selective_scan(**values, implementation="loop"))
    monkeypatch.setenv("SELECTIVE_SCAN_IMPLEMENTATION", "fpga")
    with pytest.raises(ValueError, match="^implementation: 'fpga' is unknown; there are torch, loop"):
        selective_scan(**values)


def test_a_missing_form_is_named_and_the_default_goes_on_without_it(monkeypatch):
    monkeypatch.setattr(cpu, "why_unavailable", lambda device=None: "no compiler")
    values = arguments(1, 1, 2, 3, 2)
    with pytest.raises(ValueError, match="^implementation: 'cpu' is not available: no compiler"):
        selective_scan(**values, implementation="cpu")
    with pytest.warns(UserWarning, match="runs its slow PyTorch form on cpu: no compiler"):
        y = selective_scan(**values)
    assert torch.equal(y, selective_scan(**values, implementation="torch"))


def test_a_device_without_its_form_is_warned_of_once(monkeypatch, recwarn):
    monkeypatch.setattr(cuda, "why_unavailable", lambda device=None: "no nvcc when it was installed")
    for _ in range(3):
        assert default_implementation("cuda") == "torch"
    assert ["PyTorch form on cuda: no nvcc when" in str(w.message) for w in recwarn] == [True]


@pytest.mark.parametrize("implementation", [compiled("cpu"), compiled("cuda", pytest.mark.cuda)])
def test_a_form_refuses_tensors_elsewhere(implementation):
    values = {n: v.to("meta") for n, v in arguments(1, 1, 2, 3, 2).items()}
    with pytest.raises(ValueError, match=f"^implementation: '{implementation}' is not available: .* not on meta"):
        selective_scan(**values, implementation=implementation)


def test_the_published_name_tells_whether_the_cuda_form_runs_here():
    assert mambablocks.selective_scan_cuda_oflex_available is (why_unavailable("cuda") == "")
    if not torch.cuda.is_available():
        assert not mambablocks.selective_scan_cuda_oflex_available


def test_module_prints_every_implementation():
    result = subprocess.run(
        [sys.executable, "-m", "selective_scan"], capture_output=True, text=True, check=True, env=os.environ.copy()
    )
    for name in ("torch", "loop", "cpu", "cuda"):
        reason = why_unavailable(name)
        line = f"{name}: not available: {reason}" if reason else f"{name}: available"
        assert line in result.stdout.splitlines()
