"""Forms of the CPU's scan for other CPUs than the one that builds them: which is taken, that they agree, what is refused."""

import json
import os
import platform
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, relative_error
from scan_builds import install
from selective_scan.native import cpu_features

pytestmark = [
    pytest.mark.weekly,
    pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="one form is all there is"),
]
HAS_AVX2, HAS_AVX512 = ("avx2" in (cpu_features() or ()), "avx512f" in (cpu_features() or ()))
OLD_CPU = "processor\t: 0\nflags\t\t: fpu cmov mmx fxsr sse sse2 ht syscall nx lm constant_tsc\n"  # the first of x86_64

RESULTS = """
import sys, torch
from scan_cases import arguments, cross_arguments, cross_scan_of, differentiate, outputs_and_gradients
results = outputs_and_gradients(arguments(2, 2, 37, 130, 16), "cpu")
values = cross_arguments(2, 9, 20, 3, 8)
cross = differentiate(lambda **leaves: cross_scan_of({**values, **leaves}, "v2_plus_poselimbs", "cpu"), values)
torch.save({**results, **{f"cross {name}": value for name, value in cross.items()}}, sys.argv[1])
"""


@pytest.fixture(scope="module")
def portable(tmp_path_factory):
    """Folder with a package built for all CPUs."""
    folder = tmp_path_factory.mktemp("portable")
    install(folder, SELECTIVE_SCAN_MARCH="portable", CUDA_HOME="/nowhere/cuda")
    return folder / "installed"


def python(package, *arguments, form=""):
    path = os.pathsep.join(map(str, (package, ROOT / "tests", ROOT)))
    variables = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "SELECTIVE_SCAN_CPU_FORM": form}
    return subprocess.run([sys.executable, *map(str, arguments)], env=variables, text=True, capture_output=True)


def at(cpu_info, package, form=""):
    """`python -m selective_scan` on a machine whose /proc/cpuinfo is this file."""
    code = (
        "import pathlib, runpy, sys; from selective_scan import native;"
        "native.CPU_INFO = pathlib.Path(sys.argv[1]); runpy.run_module('selective_scan')"
    )
    done = python(package, "-c", code, cpu_info, form=form)
    assert done.returncode == 0, done.stderr
    return done


def told_at(*arguments, form=""):
    """What it says there of the CPU's form."""
    return at(*arguments, form=form).stdout.partition("cpu: ")[2].partition("\ncuda: ")[0]


def test_the_forms_that_run_here_agree(portable, tmp_path):
    forms = ["baseline", *["avx2"] * HAS_AVX2, *["avx512"] * HAS_AVX512]
    results = {}
    for form in forms:
        done = python(portable, "-c", RESULTS, tmp_path / form, form=form)
        assert done.returncode == 0, done.stderr
        results[form] = torch.load(tmp_path / form)
    assert len(results["baseline"]) == 8 + 7
    for form in forms[1:]:
        for name, expected in results["baseline"].items():
            assert relative_error(results[form][name], expected) < 1e-5, (form, name)
        assert any(not torch.equal(v, results["baseline"][n]) for n, v in results[form].items())  # other code, then


def test_the_widest_form_that_the_cpu_has_is_taken(portable, tmp_path):
    widest = "avx512" if HAS_AVX512 else "avx2" if HAS_AVX2 else "baseline"
    assert told_at("/proc/cpuinfo", portable) == f"available\n    the form for {widest}, of avx512, avx2, baseline"
    old = tmp_path / "cpuinfo"
    old.write_text(OLD_CPU)
    assert told_at(old, portable).startswith("available\n    the form for baseline")
    assert told_at(tmp_path / "none", portable).startswith("available\n    the form for baseline")


def test_a_form_that_the_cpu_cannot_run_is_refused_in_a_line(portable, tmp_path):
    (tmp_path / "cpuinfo").write_text(OLD_CPU)
    said = told_at(tmp_path / "cpuinfo", portable, form="avx512")
    assert said.startswith("not available: the extension was built for another CPU, with abm, avx, avx2, avx512bw, ")
    assert "which this one lacks; " in said and "\n" not in said
    said = told_at("/proc/cpuinfo", portable, form="avx3")
    assert said == "not available: SELECTIVE_SCAN_CPU_FORM: 'avx3' is unknown; there are avx512, avx2, baseline"


@pytest.mark.skipif(not HAS_AVX2, reason="this CPU has nothing that the first of x86_64 lacks")
def test_a_native_build_moved_to_another_cpu_is_refused_and_the_pytorch_form_runs(tmp_path):
    said, _ = install(tmp_path, CUDA_HOME="/nowhere/cuda")
    assert "cpu: available\ncuda" in said
    package, old = tmp_path / "installed", tmp_path / "cpuinfo"
    assert "avx2" in json.loads((package / "selective_scan/_build.json").read_text())["needs"]["cpu"]
    old.write_text(OLD_CPU)
    done = at(old, package)
    assert "cpu: not available: the extension was built for another CPU, with " in done.stdout
    assert done.stdout.endswith("default for float32 tensors on the CPU: torch\n")
    assert done.stderr.count("runs its slow PyTorch form on cpu: the extension was built for another CPU, with ") == 1


@pytest.mark.skipif(HAS_AVX512, reason="this CPU has AVX-512")
def test_code_that_would_be_an_illegal_instruction_here_is_not_run(tmp_path):
    said, warned = install(tmp_path, SELECTIVE_SCAN_MARCH="x86-64-v4", CUDA_HOME="/nowhere/cuda")
    assert "cpu: not available: the extension was built for another CPU, with avx512bw, " in said
    assert warned.count("selective_scan runs its slow PyTorch form on cpu") == 1


def test_a_march_that_the_compiler_does_not_know_is_told(tmp_path):
    said, _ = install(tmp_path, SELECTIVE_SCAN_MARCH="pentium9", CUDA_HOME="/nowhere/cuda")
    assert "cpu: not available: c++ takes no -march=pentium9 (SELECTIVE_SCAN_MARCH is pentium9)\n" in said
