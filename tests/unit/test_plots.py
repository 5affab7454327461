"""Charts of runs, and that the check which tests put to them tells a drawn one from an empty one."""

import sys

import matplotlib.pyplot as plt
import pytest
import torch
from conftest import is_drawn

import tools.curves
from lib.errors import UserError
from lib.eval import plots


def test_an_empty_chart_is_told_from_a_drawn_one(tmp_path):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    left.set(title="training loss and its terms", xlabel="epoch")
    right.grid()
    figure.savefig(tmp_path / "empty.png")
    with pytest.raises(AssertionError, match="empty.png: 0.00% of it are coloured"):
        is_drawn(tmp_path / "empty.png")
    left.plot([1, 2, 3], [3, 2, 1.5])
    figure.savefig(tmp_path / "drawn.png")
    is_drawn(tmp_path / "drawn.png")
    plt.close(figure)


def test_curves_and_bars_show_their_numbers(tmp_path):
    history = [{"epoch": n, "train/loss": 1 / n, "test/mpjpe": 90 / n, "test/p_mpjpe": 70 / n} for n in (1, 2, 3)]
    plots.loss_curves(history, tmp_path / "loss.png", {"mpjpe": "P1", "p_mpjpe": "P2"}, "mm")
    is_drawn(tmp_path / "loss.png")
    errors = {"mpjpe": (52.5, 0.3), "p_mpjpe": (42.4, 0.2), "seconds": (600.0, 9.0)}
    plots.ablation(
        {"v2": errors, "v2_fs_ft": errors}, tmp_path / "ablation.png", {"mpjpe": "P1", "p_mpjpe": "P2"}, "mm"
    )
    is_drawn(tmp_path / "ablation.png")
    timed = [entry | {"seconds": 60.0} for entry in history]
    plots.compared_curves({"a": [timed, timed[:2]], "b": [timed]}, tmp_path / "curves.png", {"mpjpe": "P1"}, "mm")
    is_drawn(tmp_path / "curves.png")


def test_curves_of_runs_are_drawn_beside_each_other(tmp_path, monkeypatch, capsys):
    history = [{"epoch": n, "train/loss": 1 / n, "test/mpjpe": 90.0 / n, "seconds": 60.0} for n in (1, 2, 3)]
    config = {"backbone": "MambaPose", "head": "3d", "joints": "h36m17", "dataset": "rendered"}
    for name, content in [
        ("a", {"history": history, "config": config}),
        ("b", {"history": history[:2], "config": config}),
        ("empty", {"config": config}),
        ("flat", {"history": history, "config": config | {"head": "2d"}}),
    ]:
        (tmp_path / name).mkdir()
        torch.save({"model_pos": {"x": torch.zeros(1)}, **content}, tmp_path / name / "latest_epoch.bin")
    a, b, empty, flat, out = (tmp_path / name for name in ("a", "b", "empty", "flat", "curves.png"))

    def draw(*runs, out=out):
        monkeypatch.setattr(sys, "argv", ["curves.py", *map(str, runs), "--out", str(out)])
        tools.curves.main()

    draw(f"ours={a},{b}", b / "latest_epoch.bin")
    assert capsys.readouterr().out == f"{out}: written\n"
    is_drawn(out)
    for runs, message in [
        ([empty], "empty/latest_epoch.bin: records no finished epoch"),
        ([a, flat], "are scored in different ways; draw those of one task together"),
        ([a, f"a={b}"], "a: two trainings have this name; say NAME=RUN"),
        (["a="], "RUN: expected the folder of a run, or NAME=RUN,RUN, got 'a='"),
        ([tmp_path / "none"], "none: no such file"),
    ]:
        with pytest.raises(UserError, match=message):
            draw(*runs)
    with pytest.raises(UserError, match="--out: expected a name that ends in .png, .pdf, .svg, got 'x.gif'"):
        draw(a, out="x.gif")
