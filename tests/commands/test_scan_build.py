"""The package built and installed elsewhere from its sources, by pip, with and without compilers."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from scan_builds import install

NVCC = shutil.which("nvcc") or (os.path.exists("/usr/local/cuda/bin/nvcc") and "/usr/local/cuda/bin/nvcc")


def test_without_compilers_the_pytorch_form_works_and_the_reasons_are_told(tmp_path):
    said, warned = install(tmp_path, CXX="/nowhere/c++", CUDA_HOME="/nowhere/cuda")
    assert "torch: available" in said
    assert "cpu: not available: no C++ compiler that works (/nowhere/c++)\n    install a C++ compiler" in said
    assert "cuda: not available: no nvcc in /nowhere/cuda\n    install the CUDA toolkit" in said
    assert "default for float32 tensors on the CPU: torch" in said
    assert (Path(shlex.split(said.partition("--no-deps ")[2].splitlines()[0])[0]) / "pyproject.toml").exists()
    assert warned.count("selective_scan runs its slow PyTorch form on cpu") == 1


def compiler_that_fails(folder, pattern, message):
    """A C++ compiler that refuses command lines of a shell pattern."""
    compiler = folder / "broken++"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in {pattern}) echo "{message}" >&2; exit 1;; esac\nexec c++ "$@"\n')
    compiler.chmod(0o755)
    return str(compiler)


def test_a_source_that_does_not_compile_is_told_and_leaves_a_working_package(tmp_path):
    compiler = compiler_that_fails(tmp_path, "*scan_cpu*", "scan_cpu.cpp:1: error: out of luck")
    said, _ = install(tmp_path, CXX=compiler, CUDA_HOME="/nowhere/cuda")
    assert "cpu: not available: compiling failed: scan_cpu.cpp:1: error: out of luck" in said


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
def test_a_compiler_without_openmp_is_told(tmp_path):
    compiler = compiler_that_fails(tmp_path, "*-fopenmp*", "no OpenMP")
    said, _ = install(tmp_path, CXX=compiler, CUDA_HOME="/nowhere/cuda")
    assert "cpu: available\n    one thread only" in said


@pytest.mark.weekly
@pytest.mark.skipif(not NVCC, reason="no nvcc")
def test_cuda_is_compiled_and_linked_for_the_architectures_asked_for(tmp_path):
    said, _ = install(tmp_path, TORCH_CUDA_ARCH_LIST="7.5;12.1")
    assert "cpu: available" in said
    (library,) = (tmp_path / "installed/selective_scan").glob("_cuda*.so")
    assert set(re.findall(rb"sm_(\d+)", library.read_bytes())) == {b"121"}
    # It loads, and fails for no other reason than a missing or another device.
    assert re.search("cuda: (available|not available: (PyTorch finds no CUDA device|.*TORCH_CUDA_ARCH_LIST))", said)


@pytest.mark.skipif(not NVCC, reason="no nvcc")
@pytest.mark.parametrize(
    "listed, reason",
    [
        ("7.0 7.5", "TORCH_CUDA_ARCH_LIST: none of 7.0, 7.5 is an architecture from 8.0 on"),
        ("Hopper", "TORCH_CUDA_ARCH_LIST: 'Hopper' is not an architecture such as 9.0 or 12.1+PTX"),
    ],
)
def test_an_unknown_architecture_is_told(listed, reason, tmp_path):
    said, _ = install(tmp_path, TORCH_CUDA_ARCH_LIST=listed, CXX="/nowhere/c++")
    assert f"cuda: not available: {reason}" in said
