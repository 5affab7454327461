"""Calls that not every system has: what is done where they are missing, and that nobody makes them elsewhere."""

import ast
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from lib import system
from lib.errors import UserError
from lib.files import only_one

LINUX_ONLY = {"fcntl", "posix_fallocate", "posix_fadvise", "sched_getaffinity", "sched_setaffinity", "flock"}


def sparse(path, size=300_000):
    with open(path, "wb") as handle:
        handle.write(b"head")
        handle.truncate(size)
    assert path.stat().st_blocks * 512 < size
    return path


@pytest.mark.parametrize("call", ["there", "missing"])
def test_the_room_of_a_file_is_taken(tmp_path, monkeypatch, call):
    path = sparse(tmp_path / "array.npy")
    if call == "missing":
        monkeypatch.delattr(os, "posix_fallocate")
        monkeypatch.setattr(system, "_BLOCK", 70_000)
    system.take_room(path)
    assert path.stat().st_blocks * 512 >= 300_000
    assert path.read_bytes() == b"head" + bytes(299_996)


def test_cores_are_those_of_the_process_or_of_the_machine(monkeypatch):
    assert 1 <= system.usable_cores() <= os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity")
    assert system.usable_cores() == os.cpu_count()


def test_without_locks_a_warning_says_so(tmp_path, monkeypatch, caplog):
    with only_one(tmp_path / "out"), pytest.raises(UserError, match="another process is writing it"):
        with only_one(tmp_path / "out"):
            pass
    assert not caplog.text
    monkeypatch.setattr(system, "fcntl", None)
    with only_one(tmp_path / "out"):
        assert "this system has no fcntl" in caplog.text and str(tmp_path / "out") in caplog.text


def test_commands_load_without_fcntl():
    program = "import sys; sys.modules['fcntl'] = None; import lib.files, lib.config, lib.video, train; print('loaded')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "loaded\n", done.stderr


def test_only_one_module_calls_what_only_linux_has():
    found = {
        path.relative_to(ROOT).as_posix()
        for path in [*(ROOT / "lib").rglob("*.py"), ROOT / "train.py", ROOT / "vis.py"]
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in LINUX_ONLY)
        or (isinstance(node, ast.Import) and LINUX_ONLY & {alias.name for alias in node.names})
    }
    assert found == {"lib/system.py"}
