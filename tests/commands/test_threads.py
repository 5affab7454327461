"""Every command tells PyTorch's OpenMP library how long to spin before it loads PyTorch; `--help` as people type it.

A `sitecustomize` of the test ends a command where it asks for PyTorch, and writes down the environment that is then.
"""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from lib.threads import SPIN_COUNT, SPIN_VARIABLE

FOLDERS = (".", "tools", "tools/bench", "tools/bench/detector")
COMMANDS = [
    str(path.relative_to(ROOT))
    for folder in FOLDERS
    for path in sorted((ROOT / folder).glob("*.py"))
    if "__main__" in path.read_text()
]
HELP_WITHOUT_PYTORCH = {  # others need what loads it to know their options
    "train.py", "vis.py", "tools/ablate.py", "tools/curves.py", "tools/render_people.py", "tools/convert_amass.py", "tools/convert_cmu.py",
}  # fmt: skip

WATCH = """
import atexit, json, os, sys

def put_down(loads):
    with open(os.environ["SPIN_FOUND"], "x") as file:
        json.dump({"loads": loads, "spin": os.environ.get("GOMP_SPINCOUNT")}, file)

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            put_down(True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
atexit.register(put_down, False)
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A folder whose `sitecustomize` watches."""
    folder = tmp_path_factory.mktemp("watch")
    (folder / "sitecustomize.py").write_text(WATCH)
    return folder


def found_by(command, watched, tmp_path, **variables):
    """Whether a command loads PyTorch to print its help, and what the variable is when it does so, or at its end."""
    environment = {name: value for name, value in os.environ.items() if name != SPIN_VARIABLE} | variables
    environment |= {"PYTHONPATH": os.pathsep.join([str(watched), os.environ.get("PYTHONPATH", "")])}
    environment |= {"SPIN_FOUND": str(tmp_path / "found")}
    result = subprocess.run(
        [sys.executable, str(ROOT / command), "--help"], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "found").read_text())
    assert found["loads"] or result.stdout.startswith("usage: ")
    return found


def test_there_are_commands():
    assert {"train.py", "vis.py", "tools/convert_h36m.py", "tools/bench/scan.py"} | HELP_WITHOUT_PYTORCH <= set(
        COMMANDS
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_loads_pytorch_only_with_the_variable_set(command, watched, tmp_path):
    assert found_by(command, watched, tmp_path) == {
        "loads": command not in HELP_WITHOUT_PYTORCH,
        "spin": SPIN_COUNT,
    }


@pytest.mark.parametrize("command", ["train.py", "tools/bench/busy.py"])
def test_a_value_that_is_set_stays(command, watched, tmp_path):
    assert found_by(command, watched, tmp_path, **{SPIN_VARIABLE: "123456"})["spin"] == "123456"
