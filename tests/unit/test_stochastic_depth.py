"""Stochastic depth that skips what it drops, against timm's, which computes all and multiplies by 0."""

import pytest
import torch
from conftest import relative_error

from lib.memory import reuse_freed_memory
from lib.model import PoseMamba, bistssm


def add_and_drop(x, branch, rate, training):
    from timm.layers import drop_path  # here: it takes seconds, in every process that looks for tests

    return x + drop_path(branch(x), rate, training)


def trained_step(clips, seed):
    """Output and gradients of a training step of a small model whose branches are dropped often."""
    torch.manual_seed(0)
    model = PoseMamba(num_frame=9, embed_dim_ratio=16, depth=2, drop_path_rate=0.9)
    torch.manual_seed(seed)
    y = model(torch.randn(clips, 9, 17, 2))
    y.square().sum().backward()
    return [y, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("clips", [1, 2, 7])
def test_same_numbers_as_computing_all(clips, monkeypatch):
    skipping = [trained_step(clips, seed) for seed in range(4)]
    monkeypatch.setattr(bistssm, "add_branch", add_and_drop)
    for seed, ours in enumerate(skipping):
        for a, b in zip(ours, trained_step(clips, seed), strict=True):
            assert relative_error(a, b) < 1e-4 if b.any() else not a.any()


def test_what_is_dropped_is_not_computed():
    sizes = []

    def branch(x):
        sizes.append(len(x))
        return x

    torch.manual_seed(0)
    for _ in range(500):
        bistssm.add_branch(torch.ones(8, 3), branch, 0.25, training=True)
    assert 0.73 < sum(sizes) / (500 * 8) < 0.77
    bistssm.add_branch(torch.ones(8, 3), branch, 0.25, training=False)
    assert sizes[-1] == 8


def test_freed_memory_can_be_kept_on_any_system(monkeypatch):
    reuse_freed_memory()
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    reuse_freed_memory()
