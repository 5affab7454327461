"""tools/bench/memory.py as people start it, on tiny networks: what it writes, what it does not measure twice, what it refuses."""

import json
import subprocess
import sys
from statistics import median

import pytest
from conftest import ROOT, is_drawn
from selective_scan import why_unavailable

from lib.errors import UserError
from tools.bench.memory import main, points_of, refusal
from tools.bench.shared.image_networks import NETWORKS, USUAL
from tools.bench.shared.memory_report import judged, table_of
from tools.bench.shared.peaks import Point

pytestmark = pytest.mark.skipif(bool(why_unavailable("cpu")), reason="the scan is not compiled for the CPU")

TINY = ["--sizes", "nano", "--images", "64x48", "--batches", "1", "--threads", "1", "--device", "cpu"]


def start(*arguments):
    command = [sys.executable, ROOT / "tools/bench/memory.py", *TINY, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A file with two networks in training, and what does not fit; its charts beside it."""
    pytest.importorskip("transformers")
    out = tmp_path_factory.mktemp("memory") / "memory.json"
    networks = ["--networks", USUAL, "mambapose", "--passes", "training"]
    ended = start(*networks, "--out", out, "--busy")
    assert ended.returncode == 0, ended.stderr
    assert "ViTPose, SDPA" in ended.stdout and "MambaPose, recomputed" in ended.stdout
    return out


def test_points(out):
    found = json.loads(out.read_text())
    assert found["machine"]["cpu"] and found["machine"]["threads"] == 1 and found["amp"] == "off"
    assert [entry["network"] for entry in found["points"]] == [USUAL, "mambapose"]
    for entry in found["points"]:
        assert entry["peak_bytes"] > 0 and entry["busy"] and len(entry["seconds"]) == 1
        # Weights, gradients and two moments of 4 bytes; a step count of AdamW for each tensor comes on top.
        assert 0 <= entry["state_bytes"] - 16 * entry["parameters"] < 0.01 * entry["state_bytes"]
    is_drawn(out.with_name("memory_nano_training.png"))


def test_what_is_there_is_not_measured_again_and_what_does_not_fit_is_recorded(out):
    before = json.loads(out.read_text())["points"]
    ended = start("--networks", USUAL, "vim", "--passes", "training", "--out", out, "--most-gb", "0.01")
    assert ended.returncode == 0, ended.stderr
    *kept, vim = json.loads(out.read_text())["points"]
    assert kept == before and vim["network"] == "vim" and vim["missing"].startswith("out of memory")  # or killed by it
    assert "out of memory" in ended.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--images", "250x192"], "argument --images: expected HEIGHTxWIDTH in multiples of 16"),
        (["--threads", "3"], "memory.json: was measured with threads 1, here it is 3; give another --out"),
        (["--amp", "bf16", "--report", "--out", "nowhere.json"], "nowhere.json: nothing is measured yet"),
    ],
)
def test_refuses(out, arguments, message, monkeypatch):
    monkeypatch.setattr("sys.argv", ["memory.py", *TINY, "--out", str(out), *arguments])
    with pytest.raises(UserError) as refused:
        main()
    assert message in str(refused.value)


@pytest.mark.weekly
def test_images_per_second(tmp_path):
    pytest.importorskip("transformers")
    out = tmp_path / "images.json"
    options = ["--device", "cpu", "--batch", "1", "--repeats", "2", "--threads", "1", "--out", out]
    command = [sys.executable, ROOT / "tools/bench/images.py", *options]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    cases = json.loads(out.read_text())["cases"]
    assert [(case["size"], case["doing"], case["goal"]) for case in cases] == [
        ("nano", "training", 100), ("nano", "inference", 300), ("tiny", "inference", 15)
    ]  # fmt: skip
    for case in cases:
        assert case["networks"][USUAL]["times_vitpose"] == 1
        for found in case["networks"].values():
            assert found["images_per_second"] == 1 / median(found["seconds"]) > 0
    assert printed.count(NETWORKS["mambapose"].label) == 3 and printed.count(NETWORKS["mambapose-plain"].label) == 1


def point(network="mambapose", batch=16, image=(256, 192)):
    return Point("small", network, "training", *image, batch)


def test_goals_are_judged_by_their_worst_point():
    peaks = {("mambapose", 8): 90, (USUAL, 8): 100, ("mambapose", 16): 60, (USUAL, 16): 100, ("mambapose", 32): 80,
             (USUAL, 32): 200}  # fmt: skip
    found = {point(name, batch): {"peak_bytes": peak, "state_bytes": 1} for (name, batch), peak in peaks.items()}
    (only,) = judged(found)  # of batch 10 and more
    assert (only["worst"], only["at"], only["holds"]) == (0.6, "256 x 192, batch 16", False)
    assert (only["held"], only["measured"]) == (1, 2)
    rows = [line for line in table_of(found, "small", "training") if NETWORKS["mambapose"].label in line]
    assert [row.split("|")[6].strip() for row in rows] == ["0.90", "0.60", "0.40"]


def test_what_cannot_fit_is_not_tried():
    found = {
        point(batch=1): {"peak_bytes": 3e9, "state_bytes": 1e9},
        point("vim", batch=8): {"missing": "out of memory"},
    }
    assert refusal(point(batch=8), found, limit=16e9) == "needs about 17 GB, 16 may be taken"
    assert refusal(point(batch=8), found, limit=18e9) is None
    assert refusal(point("vim", batch=16), found, limit=1e12) == "batch 8 did not fit"
    assert refusal(point(batch=8, image=(512, 384)), found, limit=1) is None


def test_training_comes_first_and_inference_only_where_it_differs():
    class Options:
        sizes, passes, images, batches = ["small"], ["inference", "training"], [(512, 384), (256, 192)], [8, 1]
        networks = list(NETWORKS)

    points = points_of(Options)
    doing = [p.doing for p in points]
    assert doing == sorted(doing, reverse=True)
    assert [p[3:] for p in points[:: len(NETWORKS)]][:4] == [(256, 192, 1), (512, 384, 1), (256, 192, 8), (512, 384, 8)]
    assert {p.network for p in points if p.doing == "inference"} == {n for n, of in NETWORKS.items() if of.infers}
