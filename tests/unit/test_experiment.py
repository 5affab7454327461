"""What a run says of itself: the network it scores, the machine it ran on."""

import json
import logging
import re
from types import SimpleNamespace

import pytest
import torch
from conftest import PARITY

from lib.config import Config
from lib.engine.experiment import _facts, evaluate_checkpoint
from lib.model.registry import MODELS, build_model
from train import parse


@pytest.fixture
def handlers():
    """The log's handlers are those of before again."""
    log = logging.getLogger("lib")
    before, level = log.handlers, log.level
    yield
    log.handlers = before
    log.setLevel(level)


def test_scores_are_headed_by_the_name_of_the_network(tmp_path, monkeypatch, capsys, handlers):
    monkeypatch.setitem(MODELS, "Twin", MODELS["PoseMamba"])
    data = [f"dt_root={PARITY}", "dt_file=h36m_schema.pkl", "backbone=Twin"]
    file = PARITY / "reference_checkpoint.bin"
    evaluate_checkpoint(parse(["-e", str(file), "-c", str(tmp_path), "--no-mlflow", "--no-tensorboard", *data]))
    printed = capsys.readouterr().out
    assert "Twin: " in printed and re.search("┃ +Twin ┃", printed) and "PoseMamba" not in printed
    assert json.loads((tmp_path / "evaluation" / "scores.json").read_text()).keys() == {"Twin", "mean_pose", "linear"}


def say_where(device, caplog):
    config = Config(depth=1, dim_feat=16, maxlen=9, clip_len=9)
    with caplog.at_level(logging.INFO, "lib"):
        facts = _facts(config, build_model(config), SimpleNamespace(device=torch.device(device), world_size=1))
    return facts, caplog.text


def test_the_log_names_the_gpu_and_its_cuda_version(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    facts, said = say_where("cuda:1", caplog)
    assert "on cuda:1 (Card 1, CUDA 12.9)" in said
    assert (facts["gpu"], facts["cuda"], facts["device"]) == ("Card 1", "12.9", "cuda:1")


def test_the_log_of_a_run_without_a_gpu_names_none(caplog):
    facts, said = say_where("cpu", caplog)
    assert "on cpu, selective scan" in said and "CUDA" not in said and "gpu" not in facts


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_log_names_the_gpu_that_is_there(caplog):
    _, said = say_where("cuda:0", caplog)
    assert f"on cuda:0 ({torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda})" in said
