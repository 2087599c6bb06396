"""What is measured is compared as it should be; the figures themselves are the machine's."""

import pytest
import torch

from palam.utils import autotune
from palam.utils.autotune import bf16_pays, fused_attention_pays, matmul_seconds


@pytest.fixture(autouse=True)
def forget():
    """What was measured before a test, or by it, does not count elsewhere."""
    for measured in (bf16_pays, fused_attention_pays):
        measured.cache_clear()
    yield
    for measured in (bf16_pays, fused_attention_pays):
        measured.cache_clear()


@pytest.mark.parametrize(
    ("half", "pays"), [([0.5, 0.9], True), ([0.7, 0.6], True), ([0.7, 0.9], False)]
)
def test_bf16_pays_where_it_is_clearly_faster(monkeypatch, half, pays):
    seconds = {torch.float32: [1.0, 2.0], torch.bfloat16: half}
    monkeypatch.setattr(autotune, "matmul_seconds", lambda device, dtype, **_: seconds[dtype])
    assert bf16_pays() is pays
    monkeypatch.setattr(autotune, "matmul_seconds", lambda *_, **__: pytest.fail("measured twice"))
    assert bf16_pays() is pays


@pytest.mark.parametrize(("fused", "pays"), [(0.6, True), (0.7, False)])
def test_fused_attention_pays_where_it_is_clearly_faster(monkeypatch, fused, pays):
    seconds = iter([[1.0, 3.0], [fused, 3.0]])
    gradients = []

    def repeat(step, **_):
        gradients.append(step()[0])
        return next(seconds)

    monkeypatch.setattr("timeit.repeat", repeat)
    assert fused_attention_pays(torch.float32) is pays
    plain, fused_gradient = gradients
    assert plain.shape == (8, 8, 64, 64)
    assert torch.allclose(plain, fused_gradient, atol=1e-4)  # both ways compute the same


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_seconds_of_products(dtype):
    seconds = matmul_seconds("cpu", dtype, rows=4, width=8, times=3)
    assert len(seconds) == 3
    assert all(second > 0 for second in seconds)
