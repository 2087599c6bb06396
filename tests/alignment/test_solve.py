"""The solved bridge against a direct ridge regression on all aligned tokens."""

import copy
from dataclasses import asdict

import forked
import numpy as np
import pytest
import torch
from plain_ridge import TEXTS, direct_ridge, gathered
from transformers import ByT5Tokenizer

from palam import PalamError, PalamModel
from palam.alignment.ridge import STRENGTHS
from palam.alignment.solve import align, aligned_batches, solve_bridge
from palam.alignment.token_alignment import align_tokens

HELD_OUT_TEXTS = TEXTS[::10]
FIT_TEXTS = [text for i, text in enumerate(TEXTS) if i % 10]


def means_and_targets(aligned):
    """Each token's mean over the layers, and its target, as arrays."""
    return torch.stack(aligned.states).mean(0).numpy(), aligned.targets.numpy()


@pytest.mark.parametrize(
    ("encoder", "llm", "options"),
    [
        ("bert", "llama", {"fusion": "last"}),
        ("xlmr", "gemma3", {"fusion": "mean", "normalize": "layer"}),
        ("t5", "gpt2", {"fusion": "global_softmax", "mapper": "mlp", "hidden_size": 24}),
        ("nllb", "opt", {"fusion": "transformer_softmax", "rank": 4, "normalize": "layer"}),
        ("modernbert", "qwen", {"fusion": "mean"}),
    ],
)
def test_the_solved_readout_is_a_direct_ridge_on_all_aligned_tokens(
    tiny_model, encoder, llm, options
):
    model = tiny_model(encoder, llm, **options)
    random = copy.deepcopy(model.bridge.state_dict())
    states, targets, _ = align_tokens(model, TEXTS)
    fused, _ = model.bridge.fusion(states)
    x = model.bridge.mapper.features(fused).detach().double().numpy()
    y = targets.double().numpy()
    result = solve_bridge(model, TEXTS, batch_size=5)
    assert result.tokens == len(x)
    assert result.strength in STRENGTHS
    weight, bias = direct_ridge(x, y, result.strength)
    scale = np.sqrt((y**2).sum() / ((x @ weight.T + bias) ** 2).sum())
    readout = model.bridge.mapper.readout
    np.testing.assert_allclose(readout.weight.detach(), scale * weight, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(readout.bias.detach(), scale * bias, rtol=1e-3, atol=1e-4)
    mapped = model.bridge.mapper(fused)
    torch.testing.assert_close(mapped.square().mean(), targets.square().mean(), rtol=1e-4, atol=0)
    for key, value in model.bridge.state_dict().items():
        assert key.startswith("mapper.readout.") or torch.equal(value, random[key]), key


def test_the_strength_is_the_one_that_explains_held_out_texts_best(tiny_model):
    model = tiny_model("bert", fusion="mean")
    result = solve_bridge(model, TEXTS)
    fit = gathered(*means_and_targets(align_tokens(model, FIT_TEXTS)))
    held_out = gathered(*means_and_targets(align_tokens(model, HELD_OUT_TEXTS)))
    scores = [held_out.r2(*solution) for solution in fit.solve(STRENGTHS)]
    assert result.r2 == pytest.approx(max(scores), abs=1e-6)
    assert result.strength == STRENGTHS[scores.index(max(scores))]


def test_solving_again_gives_the_same_bits(tiny_model):
    models = [tiny_model("xlmr", fusion="mean", seed=seed) for seed in (0, 1)]
    for model in models:
        solve_bridge(model, TEXTS)
    first, second = (model.bridge.mapper.readout.weight for model in models)
    assert torch.equal(first, second)


def test_an_encoder_that_must_be_told_is_told_the_language(tiny_model):
    solutions = []
    for languages in (None, ["sin_Sinh"] * len(TEXTS)):
        model = tiny_model("nllb", fusion="last")
        solve_bridge(model, TEXTS, languages)
        solutions.append(model.bridge.mapper.readout.weight)
    assert not torch.allclose(*solutions)


@pytest.mark.parametrize("training", [True, False])
def test_the_training_mode_is_as_before(tiny_model, training):
    model = tiny_model("bert", fusion="transformer_softmax").train(training)
    solve_bridge(model, TEXTS)
    assert model.training is model.bridge.training is training
    model.processor.llm_tokenizer = ByT5Tokenizer()
    with pytest.raises(PalamError):
        solve_bridge(model, TEXTS)
    assert model.training is model.bridge.training is training


@pytest.mark.parametrize(("part", "name"), [("encoder", "encoder"), ("llm", "LLM")])
def test_a_tokenizer_without_offsets_is_refused_in_one_line(tiny_model, part, name):
    model = tiny_model("bert")
    setattr(model.processor, f"{part}_tokenizer", ByT5Tokenizer())
    with pytest.raises(PalamError) as error:
        solve_bridge(model, TEXTS)
    assert str(error.value).startswith(f"the {name}'s tokenizer gives no character offsets")
    assert str(error.value).endswith("train with --init random")


@pytest.mark.parametrize("texts", [[], [""], ["", " "], ["a"] + [""] * 30])
def test_too_little_text_is_refused_and_changes_nothing(tiny_model, texts):
    model: PalamModel = tiny_model("bert", "gpt2")
    before = model.bridge.mapper.readout.weight.clone()
    with pytest.raises(PalamError, match="too little text to solve the start from"):
        solve_bridge(model, texts)
    assert torch.equal(model.bridge.mapper.readout.weight, before)


def test_the_nearest_token_is_right_as_often_as_counted_one_by_one(tiny_model):
    model = tiny_model("bert", fusion="mean")
    result = solve_bridge(model, TEXTS)
    x, y = means_and_targets(align_tokens(model, FIT_TEXTS))
    weight, bias = direct_ridge(x, y, result.strength)
    embeddings = model.llm.get_input_embeddings().weight.detach().double().numpy()
    norms = np.linalg.norm(embeddings, axis=1).clip(1e-12)
    held_out = align_tokens(model, HELD_OUT_TEXTS)
    means, _ = means_and_targets(held_out)
    right = 0
    for mean, token in zip(means.astype(float), held_out.ids.tolist(), strict=True):
        mapped = weight @ mean + bias
        nearest = np.argmax(embeddings @ mapped / norms)
        right += int(nearest == token)
    assert result.nearest_token_accuracy == pytest.approx(right / len(held_out.ids))


def test_texts_may_be_a_stream_and_their_number_does_not_matter(tiny_model):
    """Chunks of any size and texts read once give the same solution."""
    solutions = []
    for texts, size in ((TEXTS, 32), ((text for text in TEXTS), 1)):
        model = tiny_model("xlmr", fusion="mean")
        solve_bridge(model, texts, batch_size=size)
        solutions.append(model.bridge.mapper.readout.weight.detach())
    torch.testing.assert_close(*solutions, rtol=1e-3, atol=1e-4)


def _one_of_two(rank, folder, texts, store, out):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    model = PalamModel.from_bases(*folder, fusion="mean", mode="paper", normalize="none")
    result = solve_bridge(model, texts)
    weights = model.bridge.mapper.readout.state_dict()
    torch.save({"weights": weights, "result": asdict(result)}, f"{out}/{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("texts", [TEXTS * 2, TEXTS[:10]], ids=["many", "all are of the first"])
def test_two_processes_that_share_the_texts_find_what_one_finds(base_folder, tmp_path, texts):
    folders = str(base_folder("xlmr")), str(base_folder("llama"))
    alone = PalamModel.from_bases(*folders, fusion="mean", mode="paper", normalize="none")
    result = solve_bridge(alone, texts)
    torch.multiprocessing.start_processes(
        _one_of_two,
        (folders, texts, tmp_path / "store", tmp_path),
        nprocs=2,
        start_method=forked.START_METHOD,
    )
    first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in (0, 1))
    assert first["result"] == second["result"] == pytest.approx(asdict(result), rel=1e-3)
    for key, value in alone.bridge.mapper.readout.state_dict().items():
        assert torch.equal(first["weights"][key], second["weights"][key])
        torch.testing.assert_close(first["weights"][key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fusion", ["last", "mean", "global_softmax", "transformer_softmax"])
def test_aligning_a_model_leaves_the_bases_alone_and_is_usable_at_once(
    tiny_model, fusion, tmp_path
):
    model = tiny_model("xlmr", fusion=fusion, normalize="layer")
    before = copy.deepcopy(model.state_dict())
    result = align(model, TEXTS)
    assert 0 <= result.nearest_token_accuracy <= 1
    for name, value in model.state_dict().items():
        if name.startswith(("encoder.", "llm.")):
            assert torch.equal(value, before[name]), name
    model.save_pretrained(tmp_path / "bridge")
    again = PalamModel.from_pretrained(tmp_path / "bridge")
    batch = model.processor(["මම ගෙදර යනවා."])
    assert torch.equal(model(**batch).logits, again(**batch).logits)


def test_not_one_language_per_text_is_refused(tiny_model):
    model = tiny_model("nllb")
    with pytest.raises(PalamError, match="3 texts but 2 languages; give one language per text"):
        align(model, TEXTS[:3], ["sin_Sinh"] * 2)


def test_every_tenth_text_is_held_out(tiny_model):
    model = tiny_model("bert")
    tokens = {True: 0, False: 0}
    for batch in aligned_batches(model, TEXTS, size=4):
        tokens[batch.held_out] += len(batch.tokens.ids)
    assert tokens[True] == len(align_tokens(model, HELD_OUT_TEXTS).ids)
    assert tokens[False] == len(align_tokens(model, FIT_TEXTS).ids)
