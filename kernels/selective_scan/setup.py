"""Build of the compiled scans with ninja, as plain libraries independent of Python and PyTorch.

`_cpu` needs a C++ compiler (GCC or Clang; CXX names another, CXXFLAGS adds to its flags), `_cuda` an nvcc of PyTorch's
CUDA major version (CUDA_HOME names another toolkit). A library that cannot be built is left out: the package works without it,
and `_build.json` holds the reason, which `python -m selective_scan` prints.

SELECTIVE_SCAN_MARCH names the CPUs that `_cpu` is for: "native" (default), this machine's; "portable", all, with
`_cpu_avx2` and `_cpu_avx512` beside it on x86_64, of which `selective_scan/cpu.py` takes what the CPU has; or a value of the
compiler's -march. `_build.json` holds the CPU features that each needs, so that none is loaded where it cannot run.

TORCH_CUDA_ARCH_LIST ("9.0;12.1") names the GPU architectures. Without it: those of the GPUs present; where there is
none, all that nvcc knows from 8.0 on.
"""

import json
import os
import platform
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
CPU_SOURCE, CUDA_SOURCE = PACKAGE / "csrc/scan_cpu.cpp", PACKAGE / "csrc/scan_cuda.cu"
OLDEST_ARCHITECTURE = 80

MARCH = os.environ.get("SELECTIVE_SCAN_MARCH") or "native"
PORTABLE = {  # by machine: the -march of each library
    "x86_64": {"cpu": "x86-64", "cpu_avx2": "x86-64-v3", "cpu_avx512": "x86-64-v4"},
    "aarch64": {"cpu": "armv8-a"},
}
CPU_FORMS = PORTABLE.get(platform.machine(), {"cpu": ""}) if MARCH == "portable" else {"cpu": MARCH}
SOURCES = {**dict.fromkeys(CPU_FORMS, CPU_SOURCE), "cuda": CUDA_SOURCE}

# What compilers predefine for the instructions that they may choose by themselves, by the name that Linux has for these.
FEATURES = {
    **{f"__{n}__": n.lower() for n in "SSSE3 SSE4_1 SSE4_2 POPCNT MOVBE F16C FMA AVX AVX2 BMI2 ADX GFNI".split()},
    **{f"__AVX512{n}__": f"avx512{n.lower()}" for n in "F CD BW DQ VL ER PF IFMA VBMI".split()},
    **{f"__AVX512{n}__": f"avx512_{n.lower()}" for n in "VBMI2 VNNI BITALG VPOPCNTDQ BF16 FP16".split()},
    **{"__SSE3__": "pni", "__BMI__": "bmi1", "__LZCNT__": "abm", "__AVXVNNI__": "avx_vnni"},
    **{"__FMA4__": "fma4", "__XOP__": "xop", "__TBM__": "tbm", "__APX_F__": "apx"},
    **{f"__ARM_FEATURE_{n}": n.lower() for n in "SVE SVE2 BF16".split()},
    **{"__ARM_FEATURE_ATOMICS": "atomics", "__ARM_FEATURE_FP16_VECTOR_ARITHMETIC": "asimdhp"},
    **{"__ARM_FEATURE_QRDMX": "asimdrdm", "__ARM_FEATURE_DOTPROD": "asimddp", "__ARM_FEATURE_MATMUL_INT8": "i8mm"},
    **{"__ARM_FEATURE_JCVT": "jscvt", "__ARM_FEATURE_COMPLEX": "fcma", "__ARM_FEATURE_RCPC": "lrcpc"},
}

# -ffast-math is left out on purpose: the kernel needs none of it to vectorise, it would drop NaNs, and linked
# into a library it makes the whole process flush denormals.
CPU_FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi")


class CannotBuild(Exception):
    """Reason why a library cannot be built, in one line."""


class BuildScans(build_ext):
    def build_extensions(self):
        folder = Path(self.build_temp).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        reasons, needs, targets, rules = {}, {}, {}, []
        places = {Path(self.get_ext_fullpath(ext.name)).resolve().parent for ext in self.extensions}
        if self.inplace or getattr(self, "editable_mode", False):
            places.add(PACKAGE)
        for name in (*PORTABLE["x86_64"], "cuda"):  # also those of another SELECTIVE_SCAN_MARCH
            for place in places:
                (place / Path(self.get_ext_filename(f"selective_scan._{name}")).name).unlink(missing_ok=True)
        for ext in self.extensions:
            name = ext.name.removeprefix("selective_scan._")
            target = Path(self.get_ext_fullpath(ext.name)).resolve()
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                if name in CPU_FORMS:
                    command = cpu_command(CPU_FORMS[name])
                    needs[name] = needed_features(command)
                else:
                    command = cuda_command()
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
        report = json.dumps({"source": str(PACKAGE.parent), "reasons": reasons, "needs": needs})
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


def cpu_command(march):
    """Return the command that compiles the CPU's source; march: of -march, or "" for the compiler's own choice."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if not compiler or not accepts(compiler, ()):
        raise CannotBuild(f"no C++ compiler that works ({compiler or 'none of c++, g++, clang++ is on PATH'})")
    flags = list(CPU_FLAGS)
    known = [flag for flag in (f"-march={march}", f"-mcpu={march}") if march and accepts(compiler, (flag,))]
    if march not in ("native", "") and not known:
        raise CannotBuild(f"{compiler} takes no -march={march} (SELECTIVE_SCAN_MARCH is {MARCH})")
    flags += known[:1] + ["-fopenmp"] * accepts(compiler, ("-fopenmp",))
    return " ".join([compiler, *flags, os.environ.get("CXXFLAGS", ""), "-shared"])


def needed_features(command):
    """Return the CPU features that what a command compiles may use, by the names of /proc/cpuinfo."""
    macros = output([*shlex.split(command.removesuffix("-shared")), "-x", "c++", "-dM", "-E", os.devnull])
    return sorted(FEATURES[name] for name in re.findall(r"^#define (\w+)", macros, re.MULTILINE) if name in FEATURES)


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
