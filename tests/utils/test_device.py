import pytest
import torch

from palam.errors import PalamError
from palam.utils.autotune import fused_attention_pays
from palam.utils.device import DTYPES, dtype_name, pick_attention, pick_device, pick_dtype


def test_a_named_device_is_taken():
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "best"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, False, "cuda")],
)
@pytest.mark.parametrize("name", [None, "auto"])
def test_auto_takes_the_best_there_is(monkeypatch, name, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device(name).type == best


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cpu:x", "-1", "meta", "xpu:7", "hpu"])
def test_a_device_that_is_not_here_is_refused_in_one_line(name):
    expected = f"there is no device {name!r} here; give cpu, cuda, cuda:1, mps or auto"
    with pytest.raises(PalamError) as caught:
        pick_device(name)
    assert str(caught.value) == expected


def test_dtypes_have_their_short_names():
    for name, dtype in DTYPES.items():
        assert pick_dtype(name, torch.device("cpu")) is dtype
        assert dtype_name(dtype) == name
    assert DTYPES["bf16"] is torch.bfloat16


@pytest.mark.parametrize("name", ["float32", "bfloat16", "", "int8"])
def test_an_unknown_dtype_is_refused(name):
    message = f"dtype is '{name}'; it must be one of: auto, fp32, bf16, fp16"
    with pytest.raises(PalamError, match=message):
        pick_dtype(name, torch.device("cpu"))


@pytest.mark.parametrize(("pays", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_dtype_is_what_pays(monkeypatch, pays, expected):
    monkeypatch.setattr("palam.utils.device.bf16_pays", lambda: pays)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: pays)
    assert pick_dtype("auto", torch.device("cpu")) is expected
    assert pick_dtype("auto", torch.device("cuda")) is expected
    assert pick_dtype("auto", torch.device("mps")) is torch.float32


def test_auto_dtype_is_measured_on_a_cpu():
    assert pick_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)


def test_attention_is_transformers_own_choice_but_where_a_cpu_is_slow_at_it(monkeypatch):
    assert pick_attention(torch.device("cuda"), torch.float32) is None
    seconds = iter([1.0, 0.7, 1.0, 0.6])  # plain, fused, twice
    monkeypatch.setattr("timeit.repeat", lambda step, **_: [next(seconds)])
    fused_attention_pays.cache_clear()
    assert pick_attention(torch.device("cpu"), torch.float32) == "eager"
    assert pick_attention(torch.device("cpu"), torch.float32) == "eager"  # measured once
    assert pick_attention(torch.device("cpu"), torch.bfloat16) is None
    fused_attention_pays.cache_clear()
