"""What commands print when they cannot go on: advice names only what each of them has."""

import re

import pytest
import torch
from commands_here import run_here
from conftest import ROOT

from lib.cli import run
from lib.config import Config

COMMANDS = sorted(
    path
    for path in [ROOT / "train.py", ROOT / "vis.py", *(ROOT / "tools").rglob("*.py")]
    if "    run(main" in path.read_text()
)


def too_large():
    torch.empty(2**60, dtype=torch.uint8)


def test_memory_that_ends_is_one_line_with_the_commands_own_advice(capsys):
    for advice, printed in [({}, "close other programs"), ({"when_memory_ends": "lower --batch"}, "lower --batch")]:
        with pytest.raises(SystemExit) as ended:
            run(too_large, **advice)
        assert ended.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: out of memory; {printed}")


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_advice_names_options_and_keys_that_the_command_has(path):
    source = path.read_text()
    (call,) = re.findall(r"^    run\(main(.*)\)$", source, re.M)
    words = set(re.findall(r"[\w-]+", call.partition('"')[2]))
    options = {word for word in words if word.startswith("--")}
    keys = words & Config.model_fields.keys()
    assert not keys or 'metavar="key=value"' in source
    assert options | keys or not words
    if options:
        helped = run_here(".".join(path.relative_to(ROOT).with_suffix("").parts), "--help")
        assert helped.returncode == 0 and options <= set(re.findall(r"--[\w-]+", helped.stdout))
