"""Kept encoder states: what comes out of the model is what comes out without them."""

import shutil

import pytest
import tiny
import torch

from palam import PalamError
from palam.training.encoder_cache import EncoderStateCache

TEXTS = [tiny.TEXT["en"][:n] for n in (60, 9, 130, 33)] + [tiny.TEXT["si"], "", tiny.TEXT["en"][:9]]
FUSIONS = {
    "last": {},
    "mean": {"normalize": "layer"},
    "global_softmax": {},
    "transformer_softmax": {"rank": 4},
}


def ids_of(model, texts=TEXTS):
    return [row["input_ids"] for row in model.processor.encode_texts(texts, count=False)]


def filled(model, budget=10**9, folder=None, texts=TEXTS):
    cache = EncoderStateCache(model, budget, folder)
    cache.fill(ids_of(model, texts))
    return cache


def logits(model, cache=None, texts=TEXTS):
    model.encoding = cache or model.live_encoding
    try:
        with torch.no_grad():
            return model(**model.processor(texts)).logits
    finally:
        model.encoding = model.live_encoding


def reads(model, monkeypatch):
    """How many rows the encoder reads from now on."""
    seen = []
    layers = model.live_encoding.layers

    def counted(ids, mask):
        seen.append(len(ids))
        return layers(ids, mask)

    monkeypatch.setattr(model.live_encoding, "layers", counted)
    return seen


def size_of(cache):
    return sum(state.nbytes for state in cache.states.values())


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("on_disk", [False, True])
def test_kept_equals_read(tiny_model, tmp_path, monkeypatch, fusion, on_disk):
    model = tiny_model("xlmr", fusion=fusion, **FUSIONS[fusion])
    expected = logits(model)
    cache = filled(model, folder=tmp_path if on_disk else None)
    seen = reads(model, monkeypatch)
    torch.testing.assert_close(logits(model, cache), expected, atol=1e-5, rtol=0)
    backwards = logits(model, cache, TEXTS[::-1])
    torch.testing.assert_close(backwards, expected.flip(0), atol=1e-5, rtol=0)
    assert not seen, "the encoder read a text that was kept"
    assert len(cache.states) == len(set(TEXTS))


@pytest.mark.parametrize("fusion", ["mean", "global_softmax"])
def test_in_bf16_too(tiny_model, fusion):
    model = tiny_model("xlmr", fusion=fusion, dtype=torch.bfloat16)
    expected = logits(model, texts=TEXTS[:1])
    assert torch.equal(logits(model, filled(model, texts=TEXTS[:1]), TEXTS[:1]), expected)


def test_gradients_are_the_same(tiny_model):
    model = tiny_model("bert", fusion="transformer_softmax")
    batch = model.processor(TEXTS[:4], ["sports"] * 4)
    model(**batch).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.bridge.named_parameters()}
    model.zero_grad()
    model.encoding = filled(model)
    model(**batch).loss.backward()
    for name, parameter in model.bridge.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4)


def test_a_fusion_without_weights_is_kept_fused(tiny_model):
    sizes = {}
    for fusion in ("mean", "global_softmax"):
        model = tiny_model("bert", fusion=fusion)
        sizes[fusion] = size_of(filled(model))
    assert sizes["global_softmax"] == model.config.encoder_num_layers * sizes["mean"]


def test_the_budget_is_kept_and_the_rest_is_read(tiny_model, monkeypatch, tmp_path):
    model = tiny_model("bert", fusion="mean")
    expected = logits(model)
    whole = size_of(filled(model))
    for folder in (None, tmp_path):
        cache = filled(model, whole // 2, folder)
        assert 0 < size_of(cache) <= whole // 2
        with monkeypatch.context() as patch:
            seen = reads(model, patch)
            torch.testing.assert_close(logits(model, cache), expected, atol=1e-5, rtol=0)
        assert 0 < sum(seen) < len(TEXTS)
    again = filled(model, whole // 2, tmp_path)
    assert size_of(again) <= whole // 2
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) < whole


def test_a_larger_budget_keeps_more_beside_what_is_kept(tiny_model, tmp_path):
    model = tiny_model("bert", fusion="mean")
    whole = size_of(filled(model))
    half = filled(model, whole // 2, tmp_path)
    assert len(half.states) < len(set(TEXTS))
    again = filled(model, whole, tmp_path)
    assert len(again.states) == len(set(TEXTS))
    assert size_of(again) == whole


def test_a_folder_serves_later_runs_and_other_encoders_do_not_mix(
    tiny_model, monkeypatch, tmp_path
):
    model = tiny_model("bert", fusion="mean")
    first = filled(model, folder=tmp_path, texts=TEXTS[:3])
    second = EncoderStateCache(model, 10**9, tmp_path)  # both are open at once
    seen = reads(model, monkeypatch)
    second.fill(ids_of(model))
    assert sum(seen) == len(set(TEXTS)) - 3
    assert set(first.states) < set(second.states)
    assert set(EncoderStateCache(model, 10**9, tmp_path).states) == set(second.states)
    last = tiny_model("bert", fusion="last")
    normalized = tiny_model("bert", fusion="mean", normalize="layer")
    changed = tiny_model("bert", fusion="mean")
    with torch.no_grad():
        changed.encoder.encoder.layer[0].output.dense.bias[0] += 1
    for other in (last, normalized, changed):
        assert not EncoderStateCache(other, 10**9, tmp_path).states


def test_a_shard_with_a_flipped_byte_is_not_used(tiny_model, tmp_path):
    model = tiny_model("bert", fusion="mean")
    expected = logits(model)
    filled(model, folder=tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    content = path.read_bytes()
    whole = EncoderStateCache(model, 10**9, tmp_path).states
    assert whole
    for place in (*range(8, 400, 7), len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.unlink()  # the old one may be mapped
        path.write_bytes(damaged)
        states = EncoderStateCache(model, 10**9, tmp_path).states
        assert all(torch.equal(state, whole[key]) for key, state in states.items()), place
    assert not states  # the last flip is in a state
    cache = filled(model, folder=tmp_path)  # the texts are read anew
    assert cache.states.keys() == whole.keys()
    torch.testing.assert_close(logits(model, cache), expected, atol=1e-5, rtol=0)


def test_what_is_damaged_or_half_written_is_not_read(tiny_model, monkeypatch, tmp_path):
    model = tiny_model("bert", fusion="mean")
    expected = logits(model)
    filled(model, folder=tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    shutil.copy(path, path.with_name(f".{path.name}-1"))
    path.write_bytes(path.read_bytes()[:-50])
    cache = EncoderStateCache(model, 10**9, tmp_path)
    assert not cache.states
    torch.testing.assert_close(logits(model, cache), expected, atol=1e-5, rtol=0)

    def full(shard, metadata):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("palam.training.encoder_cache.save", full)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PalamError, match="cannot be written: No space left"):
        cache.fill(ids_of(model))
    assert sorted(tmp_path.rglob("*")) == before
