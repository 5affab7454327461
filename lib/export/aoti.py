"""A model compiled ahead of time by AOTInductor: a package that C++ programs run without Python."""

import torch

from lib.errors import UserError, describe
from lib.export.program import program_arguments, quietly
from lib.files import atomic_path


def write_aoti(path, opened):
    """Write an `Opened` model as a package of AOTInductor for this machine's CPU.

    Its scans are calls of the operator `selective_scan::cross_scan`, which `kernels/selective_scan/cpp` registers in C++.

    Raises:
        UserError: there is no C++ compiler that works, or the file cannot be written.
    """
    inputs, free = program_arguments(opened)
    with torch.no_grad():
        program = torch.export.export(opened.model, inputs, dynamic_shapes=free)
        with atomic_path(path) as temporary:
            package = temporary.with_suffix(".pt2")
            try:
                with quietly():
                    torch._inductor.aoti_compile_and_package(program, package_path=str(package))
                package.replace(temporary)
            except Exception as error:  # whatever a compiler's failure becomes
                raise UserError(
                    f"{path}: compiling failed ({describe(error)}); install g++ (apt-get install g++)"
                ) from error
            finally:
                package.unlink(missing_ok=True)
