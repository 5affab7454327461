"""Builds the compiled CPU scan; a machine without a C++ compiler gets the package without it."""

import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, CompileError, LinkError

# -ffast-math is left out on purpose: the kernel needs none of it to vectorise, it would drop NaNs, and linked
# into a library it makes the whole process flush denormals.
FLAGS = ("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
CHOICES = (("-march=native", "-mcpu=native"), ("-fopenmp", "-fopenmp-simd"))


class BuildWithSupportedFlags(build_ext):
    """Adds of `FLAGS` and of each of `CHOICES` (the first that works) what the compiler accepts."""

    def build_extension(self, ext):
        for choice in [(flag,) for flag in FLAGS] + list(CHOICES):
            for flag in choice:
                if self._accepts(flag):
                    ext.extra_compile_args.append(flag)
                    if flag == "-fopenmp":
                        ext.extra_link_args.append(flag)
                    break
        super().build_extension(ext)

    def _accepts(self, flag):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.cpp"
            source.write_text('extern "C" int probe() { return 0; }\n')
            try:
                objects = self.compiler.compile([str(source)], folder, extra_postargs=[flag])
                self.compiler.link_shared_object(
                    objects, str(Path(folder) / "probe.so"), extra_postargs=[flag], target_lang="c++"
                )
            except (CCompilerError, CompileError, LinkError):
                return False
        return True


setup(
    ext_modules=[
        Extension(
            "selective_scan._cpu",
            ["selective_scan/csrc/scan_cpu.cpp"],
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildWithSupportedFlags},
)
