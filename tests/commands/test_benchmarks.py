"""The benchmarks as people start them, at sizes whose figures mean nothing: what they write and what they refuse."""

import importlib
import json
import statistics
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, is_drawn
from selective_scan import why_unavailable

from lib.errors import UserError

pytestmark = pytest.mark.skipif(bool(why_unavailable("cpu")), reason="the scan is not compiled for the CPU")

SCANNED, LIFTED = 243, 9  # frames; the peak of a scan of few is within what the system counts late
TINY = "--device cpu --repeats 1 --threads 1 --implementations fused copies".split()


def start(tool, *arguments):
    command = [sys.executable, str(ROOT / "tools/bench" / tool), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results_of(folder, tool, *options):
    """The folder where a benchmark has written its results."""
    process = start(tool, *TINY, *options, "--out", folder)
    printed, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "floor" in printed and "fused" in printed and "copies" in printed
    return folder


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return results_of(tmp_path_factory.mktemp("scan"), "scan.py", "--frames", SCANNED)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return results_of(tmp_path_factory.mktemp("model"), "model.py", "--frames", LIFTED, "--peers", "MotionAGFormer-XS")


def read(path, frames=LIFTED):
    results = json.loads(path.read_text())
    machine = results["machine"]
    assert machine["cpu"] and machine["threads"] == 1 and machine["gpu"] is None
    assert machine["torch"] == torch.__version__ and machine["date"]
    assert results["options"]["frames"] == frames and results["options"]["device"] == "cpu"
    return results


def check_figures(result, reference, steps_with_memory):
    """Medians are those of the repeats, ratios are those of medians and peaks."""
    for step in ("forward", "training"):
        assert len(result[step]["seconds"]) == 1
        assert result[step]["median_seconds"] == statistics.median(result[step]["seconds"]) > 0
        assert result[step]["ratio"] == result[step]["median_seconds"] / reference[step]["median_seconds"]
    for step in steps_with_memory:
        assert result[step]["peak_bytes"] > 0
        assert result[step]["peak_ratio"] == result[step]["peak_bytes"] / reference[step]["peak_bytes"]


@pytest.mark.weekly
def test_scan(scan):
    results = read(scan / "scan.json", SCANNED)
    found, floor = results["implementations"], results["floor"]
    assert list(found) == ["fused", "copies"]
    for result in found.values():
        check_figures(result, found["fused"], ("forward", "training"))
        assert result["difference"] < 1e-5
    assert floor["seconds"] == max(floor["terms_seconds"].values()) == floor["terms_seconds"][floor["bound"]]
    assert floor["times_floor"] == found["fused"]["forward"]["median_seconds"] / floor["seconds"]
    is_drawn(scan / "scan.png")


@pytest.mark.weekly
def test_floor_counts(scan):
    floor = read(scan / "scan.json", SCANNED)["floor"]
    positions, inner, states, rank, directions = SCANNED * 17, 128, 16, 4, 4
    weights = directions * inner * (rank + 2 * states + rank + 1 + states + 1)
    moved = positions * (2 * inner + directions * (rank + 2 * states)) + weights
    assert floor["bytes"] == 4 * moved
    assert floor["multiply_adds"] == positions * directions * inner * (states * (10 + 2 + 1) + rank + 25)
    assert floor["projection_multiply_adds"] == positions * inner * directions * (rank + 2 * states)


@pytest.mark.weekly
def test_model(model):
    results = read(model / "model.json")
    assert list(results["sizes"]) == ["S"] and results["memory_batch"] == 4
    found, floor = (results["sizes"]["S"][key] for key in ("implementations", "floor"))
    assert list(found) == ["fused", "copies"]
    for result in found.values():
        check_figures(result, found["fused"], ("training",))
        ratio = result["training"]["median_seconds"] / result["forward"]["median_seconds"]
        assert result["training_over_forward"] == ratio
    assert found["copies"]["training"]["peak_ratio"] > 1
    scans = floor["scans"] * floor["one_scan"]["seconds"]
    assert floor["seconds"] == pytest.approx(scans + statistics.median(floor["matrix_products_seconds"]))
    assert floor["times_floor"] == found["fused"]["forward"]["median_seconds"] / floor["seconds"]
    is_drawn(model / "model.png")


@pytest.mark.weekly
def test_a_peer_beside_it(model):
    (peer,) = read(model / "model.json")["peers"].values()
    assert peer["frames"] == 27 and not peer["missing"]
    assert len(peer["forward"]["seconds"]) == 1 and peer["training"]["peak_bytes"] > 0
    ratio = peer["training"]["median_seconds"] / peer["forward"]["median_seconds"]
    assert peer["training_over_forward"] == ratio


def test_a_wrong_argument_is_one_line_and_exit_code_2(tmp_path):
    process = start("scan.py", "--frames", "0", "--out", tmp_path / "results")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.startswith("error: argument --frames") and len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("tool", ["scan", "model"])
def test_refuses(tool, tmp_path, monkeypatch):
    main = importlib.import_module(f"tools.bench.{tool}").main
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments, message in (
        (["--device", "cuda"], "--device cuda: PyTorch finds no CUDA device"),
        (["--implementations", "mamba-ssm"], "--implementations: mamba-ssm cannot run on cpu: "),
        (["--repeat", "3"], "--repeat: unknown option (did you mean '--repeats'?)"),
    ):
        monkeypatch.setattr("sys.argv", [tool, *arguments, "--out", str(tmp_path / "results")])
        with pytest.raises(UserError) as refused:
            main()
        assert str(refused.value).startswith(message)
    assert not (tmp_path / "results").exists()


@pytest.mark.weekly
def test_processes(tmp_path):
    process = start("processes.py", "--frames", 3, "--steps", 1, "--repeats", 1, "--out", tmp_path / "processes.json")
    printed, errors = process.communicate(timeout=240)
    assert process.returncode == 0 and "times the clips per second of one process" in printed, errors
    results = json.loads((tmp_path / "processes.json").read_text())
    one, two = (results["processes"][key] for key in "12")
    assert one["threads_each"] == results["machine"]["threads"] == results["machine"]["cores"]
    assert results["times_one_process"] == round(one["seconds"][0] / two["seconds"][0], 3)
    process = start("processes.py", "--processes", 1)
    assert process.communicate(timeout=120)[1].startswith("error: argument --processes: expected 2 or more")


@pytest.mark.weekly
def test_step(tmp_path):
    out = tmp_path / "step.json"
    sizes = ("--frames", 9, "--batch", 2, "--steps", 1, "--repeats", 2, "--threads", 1)
    printed, errors = start("step.py", *sizes, "--out", out).communicate(timeout=240)
    results = read(out)
    loop, writing, forward = (results[key] for key in ("loop", "checkpoints", "forward"))
    rounds = list(zip(loop["trainer_seconds"], loop["bare_seconds"], strict=True))
    assert len(rounds) == 2 and loop["share"] == statistics.median(1 - bare / whole for whole, bare in rounds) < 1
    assert loop["step_seconds"] == statistics.median(loop["trainer_seconds"]) > 0
    assert writing["epoch_seconds"] == 18_000 / 2 * loop["step_seconds"]
    assert writing["writes"] == 1 + writing["epoch_seconds"] // 600
    share = writing["writes"] * statistics.median(writing["seconds"]) / writing["epoch_seconds"]
    assert writing["share"] == pytest.approx(share) and writing["bytes"] > 3 * 4 * 800_000  # weights, two moments
    assert list(forward) == ["float32", "oneDNN products", "bf16"]
    for name, found in forward.items():
        assert found["median_seconds"] == statistics.median(found["seconds"]) > 0
        assert found["ratio"] == found["median_seconds"] / forward["float32"]["median_seconds"]
        assert found["difference"] < (2e-2 if name == "bf16" else 1e-5) and name in printed, errors
    assert forward["bf16"]["difference"] > 1e-4
    for text in (f"{loop['share']:.2%}  < 3%", f"{writing['share']:.2%}  < 1%", f"written: {out}"):
        assert text in printed
