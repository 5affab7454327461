"""The scan's package built and installed elsewhere by pip, and asked what it has."""

import os
import shutil
import subprocess
import sys

from conftest import ROOT


def install(folder, **environment):
    """Copies the sources and installs them to `folder`/installed; returns what `python -m selective_scan` says."""
    skip = shutil.ignore_patterns("*.so", "build", "*.egg-info", "__pycache__", "_build.json")
    shutil.copytree(ROOT / "kernels/selective_scan", folder / "source", ignore=skip)
    target = folder / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", target]
    variables = {**os.environ, **environment}
    result = subprocess.run([*pip, folder / "source"], env=variables, text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
    code = (
        "import runpy, selective_scan, torch; print(selective_scan.__file__);"
        "print(float(selective_scan.selective_scan(*(torch.ones(s) for s in"
        " [(1, 1, 1), (1, 1, 1), (1, 1), (1, 1, 1, 1), (1, 1, 1, 1)]))));"
        "runpy.run_module('selective_scan')"
    )
    variables = {**os.environ, "PYTHONPATH": str(target), "PYTHONSAFEPATH": "1"}
    said = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code], env=variables, text=True, capture_output=True
    )
    assert said.returncode == 0, said.stderr
    file, value, *lines = said.stdout.splitlines()
    assert file.startswith(str(target))
    assert float(value) == 1.0
    return "\n".join(lines), said.stderr
