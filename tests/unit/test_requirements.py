"""Every package that the code imports is in a requirements file."""

import ast
import re
import sys
from importlib.metadata import packages_distributions

from conftest import ROOT

OWN = {"lib", "tools", "train", "vis", "selective_scan"}
COMPARED = {"mamba_ssm", "mambapy"}  # tools/bench measures them too where they are installed


def imported(path):
    """Return the names of packages that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_imported_is_required():
    files = [*(ROOT / "lib").rglob("*.py"), *(ROOT / "tools").rglob("*.py"), ROOT / "train.py", ROOT / "vis.py"]
    packages = {name for path in files for name in imported(path)} - sys.stdlib_module_names - OWN - COMPARED
    required = {
        canonical(re.match(r"[\w.-]+", line)[0])
        for path in ROOT.glob("requirements*.txt")
        for line in path.read_text().splitlines()
        if line and not line.startswith(("#", "-"))
    }
    given_by = packages_distributions()
    missing = {name for name in packages if not {canonical(d) for d in given_by.get(name, [name])} & required}
    assert len(packages) > 15 and not missing
