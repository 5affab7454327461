"""The tables of models: what README.md shows is what the tools count and what the benchmark measured."""

import json

import pytest
from commands_here import run_here
from conftest import ROOT

from lib.errors import UserError
from lib.yaml_files import read_yaml
from tools.model_table import table_of, write

README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def printed():
    done = run_here("tools.model_table")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.weekly
def test_the_readme_has_the_table(printed):
    assert printed.strip() in README


def test_times_are_those_of_the_file(printed):
    published = {"MotionAGFormer-XS": read_yaml(ROOT / "benchmarks/published.yaml")["MotionAGFormer-XS"]}
    measured = json.loads((ROOT / "benchmarks/cpu/model.json").read_text())
    training = {"peak_bytes": 2_340_000_000}
    measured["peers"] = {"MotionAGFormer-XS": {"forward": {"median_seconds": 1.234}, "training": training}}
    assert "| 1.23 | 2.3 |" in table_of(published, measured)
    nothing = table_of(published, {})
    assert "times (one clip)" in printed and "times (one clip)" not in nothing and "|  |  |" in nothing


def test_a_page_without_a_place_for_it(tmp_path):
    (tmp_path / "page.md").write_text("nothing")
    with pytest.raises(UserError, match="page.md: has no place for the table"):
        write(tmp_path / "page.md", "| a |")
    assert (tmp_path / "page.md").read_text() == "nothing"


@pytest.mark.weekly
def test_sizes_are_those_of_the_table(printed):
    sizes = run_here("tools.model_size").stdout
    for name in ("MotionBERT", *(f"PoseMamba-{size}" for size in "SBL"), *(f"MotionAGFormer-{s}" for s in ("XS", "L"))):
        cells = [
            cell.strip() for cell in next(line for line in printed.splitlines() if f"| {name} |" in line).split("|")
        ]
        rows = [[cell.strip() for cell in line.split("│")] for line in sizes.splitlines()]
        found = next(row for row in rows if row[1:2] == [name.removeprefix("PoseMamba-")])
        assert (cells[3], cells[5]) == (found[2], found[4]), name
