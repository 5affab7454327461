"""The CUDA kernels run on the CPU, one thread at a time: their indices, sums and gradients, where there is no GPU.

`csrc/scan_cuda.cu` itself is compiled, with `cuda_emulator/cuda_emulator.h` in place of CUDA. What it cannot show
(registers, shared memory, speed) is for `pytest -m cuda` on a GPU.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import selective_scan
import torch
from conftest import relative_error
from scan_cases import NAMES, arguments, cross_arguments, cross_scan_of, differentiate, doubled
from selective_scan import cross_scan_unfused, cuda, native, operators

from lib.model.scan_orders import LIMB_PARTNER, SCAN_ORDERS

COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    target = tmp_path_factory.mktemp("emulator") / "emulated.so"
    source = Path(selective_scan.__file__).parent / "csrc/scan_cuda.cu"
    include = Path(__file__).parent / "cuda_emulator"
    flags = ("-x", "c++", "-std=c++17", "-O2", "-w", "-fPIC", "-shared", f"-I{include}")
    subprocess.run([COMPILER, *flags, str(source), "-o", str(target)], check=True)
    loaded = ctypes.CDLL(str(target))
    for function, types in cuda._FUNCTIONS:
        getattr(loaded, function).argtypes = types
        getattr(loaded, function).restype = ctypes.c_int64
    return loaded


@pytest.fixture(autouse=True)
def emulated(library, monkeypatch):
    def call(name, problem, structures, tensors):
        arguments = (*structures, cuda._TYPES[problem.u.dtype], 0, None, *map(native.address, tensors))
        assert getattr(library, f"selective_scan_{name}")(problem.structure(), *arguments) == 0

    monkeypatch.setattr(cuda, "_library", lambda: library)
    monkeypatch.setattr(cuda, "_call", call)


def assert_close(results, exact, tolerance=1e-5):
    for name in exact:
        assert relative_error(results[name], exact[name]) < tolerance, name


def plain(values, softplus=True):
    leaves = {**dict.fromkeys(NAMES), **values}
    return operators.scan(*(leaves[name] for name in NAMES), softplus, "cuda", True)[0]


@pytest.mark.parametrize(
    "batch, groups, channels, length, states",
    [(1, 1, 1, 1, 1), (2, 2, 3, 2, 5), (1, 1, 33, 64, 16), (1, 2, 20, 65, 8), (1, 1, 2, 200, 16), (0, 4, 8, 9, 4)],
)
def test_plain_scan(batch, groups, channels, length, states):
    values = arguments(batch, groups, channels, length, states)
    exact = differentiate(
        lambda **leaves: selective_scan.selective_scan(**leaves, delta_softplus=True, implementation="loop"),
        doubled(values),
    )
    assert_close(differentiate(lambda **leaves: plain(leaves), values), exact)


def test_optional_arguments_and_raw_steps():
    values = arguments(1, 2, 5, 66, 4)
    values = {"u": values["u"], "delta": values["delta"].abs(), **{n: values[n] for n in "ABC"}}
    exact = differentiate(
        lambda **leaves: selective_scan.selective_scan(**leaves, implementation="loop"), doubled(values)
    )
    assert_close(differentiate(lambda **leaves: plain(leaves, softplus=False), values), exact)


def cross(values, order, exact_limbs):
    directions = SCAN_ORDERS[order]
    partners = LIMB_PARTNER if any(d.limbs for d in directions) else ()
    codes = [d.encode() for d in directions]
    return operators.cross_scan(*values.values(), codes, partners, exact_limbs, "cuda", True)[0]


@pytest.mark.parametrize("exact_limbs", [False, True])
@pytest.mark.parametrize("order", SCAN_ORDERS)
def test_cross_scan_in_every_order(order, exact_limbs):
    values = cross_arguments(2, 4, 5, 2, 16)
    exact = differentiate(
        lambda **leaves: cross_scan_of(leaves, order, "torch", exact_limbs, cross_scan_unfused), doubled(values)
    )
    assert_close(differentiate(lambda **leaves: cross(leaves, order, exact_limbs), values), exact)


@pytest.mark.parametrize(
    "channels, rank, states", [(40, 5, 8), pytest.param(130, 9, 1, marks=pytest.mark.weekly), (3, 32, 16)]
)
def test_cross_scan_of_other_shapes(channels, rank, states):
    values = cross_arguments(1, 4, channels, rank, states)
    exact = differentiate(
        lambda **leaves: cross_scan_of(leaves, "v2_plus_poselimbs", "torch", False, cross_scan_unfused),
        doubled(values),
    )
    assert_close(differentiate(lambda **leaves: cross(leaves, "v2_plus_poselimbs", False), values), exact)


def test_the_default_dtype_does_not_matter():
    values = cross_arguments(1, 4, 5, 2, 16)
    exact = cross(values, "v2", False)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(cross(values, "v2", False), exact)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_it_is(dtype, monkeypatch):
    monkeypatch.setattr(operators, "_element_type", lambda *tensors: dtype)
    values = cross_arguments(1, 4, 8, 2, 16, dtype)
    exact = differentiate(
        lambda **leaves: cross_scan_of(leaves, "v2_plus_poselimbs", "torch", False, cross_scan_unfused),
        doubled(values),
    )
    assert_close(differentiate(lambda **leaves: cross(leaves, "v2_plus_poselimbs", False), values), exact, 2e-2)
