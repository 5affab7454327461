"""Build of the compiled scans with ninja, as plain libraries independent of Python and PyTorch.

`_cpu` needs a C++ compiler (GCC or Clang; CXX names another, CXXFLAGS adds to its flags), `_cuda` an nvcc of PyTorch's
CUDA major version (CUDA_HOME names another toolkit). A library that cannot be built is left out: the package works without it,
and `_build.json` holds the reason, which `python -m selective_scan` prints.

TORCH_CUDA_ARCH_LIST ("9.0;12.1") names the GPU architectures. Without it: those of the GPUs present; where there is
none, all that nvcc knows from 8.0 on.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE = Path(__file__).resolve().parent / "selective_scan"
SOURCES = {"cpu": PACKAGE / "csrc/scan_cpu.cpp", "cuda": PACKAGE / "csrc/scan_cuda.cu"}
OLDEST_ARCHITECTURE = 80

# -ffast-math is left out on purpose: the kernel needs none of it to vectorise, it would drop NaNs, and linked
# into a library it makes the whole process flush denormals.
CPU_FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi")
CPU_CHOICES = (("-march=native", "-mcpu=native"), ("-fopenmp",))  # of each the first that the compiler takes, if any


class CannotBuild(Exception):
    """Reason why a library cannot be built, in one line."""


class BuildScans(build_ext):
    def build_extensions(self):
        folder = Path(self.build_temp).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        reasons, targets, rules = {}, {}, []
        places = {Path(self.get_ext_fullpath(ext.name)).resolve().parent for ext in self.extensions}
        if self.inplace or getattr(self, "editable_mode", False):
            places.add(PACKAGE)
        for ext in self.extensions:
            name = ext.name.rpartition("_")[2]
            target = Path(self.get_ext_fullpath(ext.name)).resolve()
            target.parent.mkdir(parents=True, exist_ok=True)
            for place in places:
                (place / target.name).unlink(missing_ok=True)
            try:
                command = {"cpu": cpu_command, "cuda": cuda_command}[name]()
            except CannotBuild as reason:
                reasons[name] = str(reason)
            else:
                targets[name] = target
                rules.append(ninja_rule(name, command, target))
        (folder / "build.ninja").write_text("\n".join(rules))
        if targets:
            result = subprocess.run(
                [sys.executable, "-m", "ninja", "-k", "0"], cwd=folder, text=True, capture_output=True
            )
            print(result.stdout, result.stderr)
            for name, target in targets.items():
                if not target.exists():
                    reasons[name] = "compiling failed: " + first_error(result.stdout + result.stderr)
        report = json.dumps({"source": str(PACKAGE.parent), "reasons": reasons})
        for place in places:
            (place / "_build.json").write_text(report)
        for name, reason in reasons.items():
            print(f"selective_scan: {name} is not built: {reason}", file=sys.stderr)


def ninja_rule(name, command, target):
    def escape(path):
        return re.sub(r"([$: ])", r"$\1", str(path))

    header = PACKAGE / "csrc/scan.h"
    return (
        f"rule {name}\n  command = {command} $in -o $out\n"
        f"build {escape(target)}: {name} {escape(SOURCES[name])} | {escape(header)}\n"
    )


def cpu_command():
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if not compiler or not accepts(compiler, ()):
        raise CannotBuild(f"no C++ compiler that works ({compiler or 'none of c++, g++, clang++ is on PATH'})")
    flags = list(CPU_FLAGS)
    for choice in CPU_CHOICES:
        flags += [flag for flag in choice if accepts(compiler, (flag,))][:1]
    return " ".join([compiler, *flags, os.environ.get("CXXFLAGS", ""), "-shared"])


def accepts(compiler, flags):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text('extern "C" int probe() { return 0; }\n')
        command = [*compiler.split(), *flags, "-fPIC", "-shared", str(source), "-o", str(source.with_suffix(".so"))]
        try:
            return subprocess.run(command, capture_output=True).returncode == 0
        except OSError:
            return False


def cuda_command():
    nvcc = find_nvcc()
    release = re.search(r"release (\d+)\.(\d+)", output([nvcc, "--version"]))
    if not release:
        raise CannotBuild(f"{nvcc} does not run")
    wanted = cuda_of_pytorch()
    if wanted == "none":
        raise CannotBuild("PyTorch here is a build without CUDA")
    if wanted and wanted.split(".")[0] != release[1]:
        raise CannotBuild(f"{nvcc} is CUDA {release[1]}.{release[2]}, PyTorch was built with {wanted}: majors differ")
    codes = " ".join(f"-gencode {code}" for code in architectures(nvcc))
    host = f"-ccbin {shlex.quote(os.environ['CXX'].split()[0])}" if os.environ.get("CXX") else ""
    return f"{shlex.quote(nvcc)} {host} -O3 -std=c++17 --threads 0 -Xcompiler -fPIC -shared {codes}"


def find_nvcc():
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [Path(home) / "bin/nvcc"] if home else [shutil.which("nvcc") or "", "/usr/local/cuda/bin/nvcc"]
    for candidate in candidates:
        if str(candidate) and Path(candidate).is_file():
            return str(candidate)
    raise CannotBuild(f"no nvcc in {home}" if home else "no nvcc on PATH or in /usr/local/cuda")


def cuda_of_pytorch():
    """Return PyTorch's CUDA version as "13.0", "none" for a build without CUDA, "" where it is not installed (yet).

    A new process without PYTHONPATH is asked, since pip builds where only build requirements can be imported.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "import torch.version; print(torch.version.cuda or 'none')"
    return output([sys.executable, "-c", code], env=environment).strip()


def architectures(nvcc):
    """Return the values of -gencode for the GPUs to compile for."""
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    present = output(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]).split()
    for origin, entries in (("TORCH_CUDA_ARCH_LIST", listed), ("nvidia-smi", sorted(set(present)))):
        if entries:
            return codes_from_8_0_on(origin, entries)
    known = sorted({int(number) for number in re.findall(r"sm_(\d+)\b", output([nvcc, "--list-gpu-code"]))})
    known = [number for number in known if number >= OLDEST_ARCHITECTURE]
    if not known:
        raise CannotBuild(f"{nvcc} knows no architecture from 8.0 on")
    entries = [f"{number // 10}.{number % 10}" for number in known]
    return codes_from_8_0_on(nvcc, entries[:-1] + [entries[-1] + "+PTX"])


def codes_from_8_0_on(origin, entries):
    """Return values of -gencode for entries such as 9.0 or 12.1+PTX; older ones are left out."""
    codes = []
    for entry in entries:
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", entry)
        if not match:
            raise CannotBuild(f"{origin}: {entry!r} is not an architecture such as 9.0 or 12.1+PTX")
        number = match[1] + match[2]
        if int(number) >= OLDEST_ARCHITECTURE:
            number += match[3]
            codes.append(f"arch=compute_{number},code=sm_{number}")
            if match[4]:
                codes.append(f"arch=compute_{number},code=compute_{number}")
    if not codes:
        raise CannotBuild(f"{origin}: none of {', '.join(entries)} is an architecture from 8.0 on")
    return codes


def output(command, **options):
    """Return the output of a command; "" if it cannot be run or fails."""
    try:
        result = subprocess.run(command, text=True, capture_output=True, **options)
    except OSError:
        return ""
    return result.stdout if result.returncode == 0 else ""


def first_error(text):
    """Return the line of a compiler's output that has the error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if re.search(r"\b(error|fatal)\b", line, re.IGNORECASE)]
    return (lines or [line.strip() for line in text.splitlines() if line.strip()][-1:] or ["no message"])[0]


setup(
    ext_modules=[
        Extension(f"selective_scan._{name}", [str(s.relative_to(PACKAGE.parent))], optional=True)
        for name, s in SOURCES.items()
    ],
    cmdclass={"build_ext": BuildScans},
)
