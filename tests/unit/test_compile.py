"""torch.compile: the whole network as one graph, and training through it."""

import pytest
import torch
from conftest import ROOT, relative_error
from tiny_training import PLAIN, run, trained, training, weights
from torch import nn

from lib.config import load_config
from lib.engine.checkpoint import LATEST
from lib.errors import UserError
from lib.model.registry import build_model
from lib.model.weights import read_checkpoint


def test_the_whole_network_is_one_graph_in_training():
    """S in a training step: no break, every scan the fused operator, and the numbers of uncompiled code."""
    config = load_config(ROOT / "configs" / "pose3d" / "PoseMamba_train_h36m_S.yaml", ["maxlen=9", "clip_len=9"])
    torch.manual_seed(0)
    model, clips, graphs = build_model(config).train(), torch.randn(3, 9, 17, config.in_chans), []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph

    def step(function):
        model.zero_grad()
        torch.manual_seed(1)
        poses = function(clips)
        poses.square().mean().backward()
        return [poses, *(parameter.grad for parameter in model.parameters())]

    compiled = step(torch.compile(model, fullgraph=True, backend=keep))
    (graph,) = graphs
    scans = [node for node in graph.graph.nodes if node.target is torch.ops.selective_scan.cross_scan.default]
    assert len(scans) == 2 * config.depth == 20
    for found, expected in zip(compiled, step(model), strict=True):
        assert relative_error(found, expected) < 1e-4


def perceptron(config):
    """A network that is compiled in seconds."""
    return nn.Sequential(nn.Linear(config.in_chans, config.dim_feat), nn.SiLU(), nn.Linear(config.dim_feat, 3))


def test_a_compiled_training_ends_with_the_weights_of_one_that_is_not(tmp_path):
    """The last batch is smaller: what was compiled for the others has to be compiled anew, or fit."""
    keys = PLAIN | {"batch_size": 10, "no_eval": False}
    plain, compiled = (
        trained(tmp_path / name, perceptron, **keys, compile=name == "compiled") for name in ("plain", "compiled")
    )
    assert relative_error(weights(compiled.state.model), weights(plain.state.model)) < 1e-5
    scores = [trainer.state.history[-1]["test/mpjpe"] for trainer in (compiled, plain)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    saved = read_checkpoint(tmp_path / "compiled" / LATEST).model
    assert saved.keys() == plain.state.model.state_dict().keys()


def test_a_system_without_a_compiler_is_told_what_to_set(tmp_path, monkeypatch):
    import torch._inductor.config

    torch._dynamo.reset()  # what is compiled already
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/nowhere/c++",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with training(tmp_path, perceptron, compile=True, dim_feat=12) as trainer:
        with pytest.raises(UserError, match="^compile: PyTorch cannot compile the model here .*; set compile: False"):
            run(trainer)
