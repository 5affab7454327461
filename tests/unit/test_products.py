"""Products of float32 matrices by oneDNN: as exact as usual, only within the block, and only where they are exact."""

from types import SimpleNamespace

import pytest
import torch
from conftest import relative_error

from lib.config import Config
from lib.engine.runtime import Runtime
from lib.model import products
from lib.model.inference import infer
from lib.model.products import fast_products

SHAPES = [((4131, 64), (64, 256)), ((243, 128), (128, 36)), ((1, 7), (7, 3)), ((8, 17, 64), (64, 3))]


def setting():
    return torch.backends.mkldnn.matmul.fp32_precision


@pytest.fixture
def judged_anew():
    """Whether oneDNN is exact is asked again within the test, and after it."""
    products._exact_by_onednn.cache_clear()
    yield
    products._exact_by_onednn.cache_clear()


@pytest.mark.parametrize("left, right", SHAPES)
def test_float32_products_and_their_gradients_are_exact(left, right):
    torch.manual_seed(0)
    a, b = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in (left, right))
    c, d = (t.detach().float().requires_grad_() for t in (a, b))
    with fast_products():
        product = c @ d
        product.square().sum().backward()
    exact = a @ b
    exact.square().sum().backward()
    for found, expected in ((product, exact), (c.grad, a.grad), (d.grad, b.grad)):
        assert found.dtype == torch.float32 and relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("before", ["none", "ieee", "bf16"])
def test_the_setting_is_as_before_after_the_block_however_it_ends(before):
    usual, torch.backends.mkldnn.matmul.fp32_precision = setting(), before
    try:
        with fast_products():
            with fast_products():
                pass
            assert setting() == ("bf16" if products._exact_by_onednn() else before)
        assert setting() == before
        with pytest.raises(ZeroDivisionError), fast_products():
            _ = 1 / 0
        assert setting() == before
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = usual


def test_nothing_changes_where_onednn_rounds_more_than_it_may(monkeypatch, judged_anew):
    """A bound that float32 itself exceeds: what was measured is then too inexact, as on a CPU that rounds to bfloat16."""
    monkeypatch.setattr(products, "_ROUNDING", 1e-9)
    before = setting()
    with fast_products():
        assert setting() == before
    assert not products._exact_by_onednn() and setting() == before


def test_nothing_changes_with_a_pytorch_that_has_no_such_setting(monkeypatch, judged_anew):
    before = setting()
    with monkeypatch.context() as older:
        older.setattr(torch.backends, "mkldnn", SimpleNamespace(is_available=lambda: True))
        with fast_products():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).tolist() == [[2, 2], [2, 2]]
    assert setting() == before


@pytest.mark.skipif(not products._exact_by_onednn(), reason="oneDNN is not exact here")
def test_training_and_inference_use_it():
    before, seen = setting(), []

    def model(x):
        seen.append(setting())
        return x[..., :3]

    with Runtime(Config()):
        seen.append(setting())
    infer(model, torch.zeros(1, 9, 17, 3), Config(flip=True))
    assert seen == ["bf16"] * 3 and setting() == before
