import copy

import numpy as np
import pytest
import tiny
import torch
from transformers import ByT5Tokenizer

from palam import PalamError, PalamModel
from palam.align import STRENGTHS, Moments, overlap_shares, solve, token_pairs

TEXTS = [sentence.strip() + "." for text in tiny.TEXT.values() for sentence in text.split(".")]
ENCODERS = {"bert": "WordPiece", "xlmr": "Unigram", "nllb": "BPE", "t5": "Unigram"}  # the kinds of tokenizer


def ranges(*pairs):
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    {
        "the same": ([(0, 3), (3, 5)], [(0, 3), (3, 5)], [[1, 0], [0, 1]]),
        "one in two": ([(0, 4)], [(0, 3), (3, 6)], [[3 / 4, 1 / 4]]),
        "two in one": ([(0, 2), (2, 6)], [(0, 6)], [[1], [1]]),
        "bytes of one character": ([(1, 2)], [(0, 1), (1, 2), (1, 2), (1, 2)], [[0, 1 / 3, 1 / 3, 1 / 3]]),
        "ours are bytes": ([(0, 1), (0, 1)], [(0, 1), (1, 2)], [[1, 0], [1, 0]]),
        "a lone space within theirs": ([(3, 4), (4, 7)], [(0, 3), (3, 7)], [[0, 1], [0, 1]]),
        "a lone space that they leave out": ([(3, 4), (4, 7)], [(0, 3), (4, 7)], [[0, 0], [0, 1]]),
        "an empty range of ours": ([(0, 0), (2, 2), (0, 4)], [(0, 4)], [[0], [0], [1]]),
        "an empty range of theirs": ([(0, 4)], [(0, 0), (2, 2), (0, 4)], [[0, 0, 1]]),
        "no overlap": ([(0, 2)], [(2, 4)], [[0]]),
    }.values(),
)
def test_a_token_is_shared_out_by_overlap(ours, theirs, expected):
    torch.testing.assert_close(overlap_shares(ranges(*ours), ranges(*theirs)), torch.tensor(expected).double())


def test_nothing_to_share_out():
    assert overlap_shares(ranges((0, 2)), ranges()).shape == (1, 0)
    assert overlap_shares(ranges(), ranges((0, 2))).shape == (0, 1)


# ------------------------------------------------------------------------------------------- the regression
def some_rows(n=200, p=7, q=3):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n, p)) * np.linspace(0.5, 3, p) + 2
    y = x @ generator.normal(size=(p, q)) + generator.normal(size=(n, q)) + 5
    return x, y


def direct_ridge(x, y, strength):
    """Least squares on centred rows with sqrt(n · strength · mean variance) · I stacked below, and the intercept."""
    centred = x - x.mean(0)
    penalty = np.sqrt(len(x) * strength * centred.var(0).mean())
    stacked = np.concatenate([centred, penalty * np.eye(x.shape[1])])
    target = np.concatenate([y - y.mean(0), np.zeros((x.shape[1], y.shape[1]))])
    weight = np.linalg.lstsq(stacked, target, rcond=None)[0].T
    return weight, y.mean(0) - weight @ x.mean(0)


def gathered(x, y):
    moments = Moments(x.shape[1], y.shape[1])
    moments.add(torch.from_numpy(x), torch.from_numpy(y))
    return moments


def test_the_solution_is_that_of_a_direct_ridge():
    x, y = some_rows()
    for strength, (weight, bias) in zip(STRENGTHS, gathered(x, y).solve(STRENGTHS), strict=True):
        expected_weight, expected_bias = direct_ridge(x, y, strength)
        np.testing.assert_allclose(weight, expected_weight, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(bias, expected_bias, rtol=1e-8, atol=1e-10)


def test_the_intercept_is_not_penalised():
    x, y = some_rows()
    (_, before), (_, after) = (gathered(x, target).solve([10.0])[0] for target in (y, y + 1000))
    torch.testing.assert_close(after, before + 1000)


def test_fewer_rows_than_features_can_be_solved():
    x, y = some_rows(n=4)
    weight, _ = gathered(x, y).solve([1e-2])[0]
    np.testing.assert_allclose(weight, direct_ridge(x, y, 1e-2)[0], rtol=1e-6, atol=1e-9)


def test_r2_is_the_direct_one():
    x, y = some_rows()
    other = some_rows(n=90)
    weight, bias = gathered(x, y).solve([1e-3])[0]
    residual = ((other[1] - other[0] @ weight.numpy().T - bias.numpy()) ** 2).sum()
    total = ((other[1] - other[1].mean(0)) ** 2).sum()
    assert gathered(*other).r2(weight, bias) == pytest.approx(1 - residual / total, rel=1e-9)
    zeros = torch.zeros_like(weight), torch.from_numpy(other[1].mean(0))
    assert gathered(*other).r2(*zeros) == pytest.approx(0, abs=1e-9)


def test_merged_shards_equal_the_whole():
    x, y = some_rows()
    merged = gathered(x[:70], y[:70])
    merged.merge(gathered(x[70:71], y[70:71]))
    merged.merge(gathered(x[71:], y[71:]))
    whole = gathered(x, y)
    assert merged.count == whole.count == len(x)
    for found, expected in zip(merged.solve([1e-3])[0], whole.solve([1e-3])[0], strict=True):
        torch.testing.assert_close(found, expected)


# ------------------------------------------------------------------------------------------- aligned tokens
@pytest.mark.parametrize("llm", ["llama", "gemma3"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_targets_are_the_llms_embeddings_of_the_same_characters(tiny_model, encoder, llm):
    """Against a computation character by character."""
    model = tiny_model(encoder, llm)
    text = "The dog 🙂 මම ගෙදර යනවා."
    ours = model.processor.encoder_tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    theirs = model.processor.llm_tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    owners = [[j for j, (a, b) in enumerate(theirs["offset_mapping"]) if a <= c < b] for c in range(len(text))]
    vectors = model.embed(torch.tensor(theirs["input_ids"]))
    kept, targets = [], []
    for i, (start, end) in enumerate(ours["offset_mapping"]):
        found = [j for c in range(start, end) for j in owners[c]]
        if found and not ours["special_tokens_mask"][i]:
            kept.append(i)
            targets.append(vectors[found].mean(0))
    states, found = token_pairs(model, [text])
    assert any(len(owner) > 1 for owner in owners), "byte-level pieces of one character"
    assert len(kept) < len(ours["input_ids"]), "special tokens are left out"
    torch.testing.assert_close(found, torch.stack(targets))
    everything = model.encode(torch.tensor([ours["input_ids"]]), torch.ones(1, len(ours["input_ids"])))
    assert len(states) == tiny.LAYERS
    for state, whole in zip(states, everything, strict=True):
        torch.testing.assert_close(state, whole[kept])


def test_a_batch_gives_the_rows_of_its_texts(tiny_model):
    model = tiny_model("xlmr")
    texts = ["", TEXTS[0], "\ud83d lone", " ", "A", TEXTS[-1], "word " * 400]
    whole, targets = token_pairs(model, texts)
    alone = [token_pairs(model, [text]) for text in texts]
    torch.testing.assert_close(targets, torch.cat([target for _, target in alone]))
    for layer, state in enumerate(whole):
        expected = torch.cat([states[layer] for states, _ in alone])
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-4)
    assert len(alone[0][1]) == 0
    assert not model.processor.stats, "aligning is not reading"


# ------------------------------------------------------------------------------------------- the solved start
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
def test_the_solved_readout_is_a_direct_ridge_on_all_aligned_tokens(tiny_model, encoder, llm, options):
    model = tiny_model(encoder, llm, **options)
    random = copy.deepcopy(model.bridge.state_dict())
    states, targets = token_pairs(model, TEXTS)
    fused, _ = model.bridge.fusion(states)
    x = model.bridge.mapper.features(fused).detach().double().numpy()
    y = targets.double().numpy()
    before = ((model.bridge.mapper(fused) - targets) ** 2).mean()
    solved = solve(model, TEXTS, batch_size=5)
    assert solved.tokens == len(x)
    assert solved.strength in STRENGTHS
    weight, bias = direct_ridge(x, y, solved.strength)
    np.testing.assert_allclose(model.bridge.mapper.readout.weight.detach(), weight, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(model.bridge.mapper.readout.bias.detach(), bias, rtol=1e-3, atol=1e-4)
    assert ((model.bridge.mapper(fused) - targets) ** 2).mean() < before
    for key, value in model.bridge.state_dict().items():
        assert key.startswith("mapper.readout.") or torch.equal(value, random[key]), key


def test_the_strength_is_the_one_that_explains_held_out_texts_best(tiny_model):
    model = tiny_model("bert", fusion="mean")
    solved = solve(model, TEXTS)
    held = TEXTS[::10]
    rows = [token_pairs(model, texts) for texts in ([t for i, t in enumerate(TEXTS) if i % 10], held)]
    fit, test = (gathered(torch.stack(states).mean(0).numpy(), targets.numpy()) for states, targets in rows)
    scores = [test.r2(*solution) for solution in fit.solve(STRENGTHS)]
    assert solved.r2 == pytest.approx(max(scores), abs=1e-6)
    assert solved.strength == STRENGTHS[scores.index(max(scores))]


def test_solving_again_gives_the_same_bits(tiny_model):
    models = [tiny_model("xlmr", fusion="mean", seed=seed) for seed in (0, 1)]
    for model in models:
        solve(model, TEXTS)
    first, second = (model.bridge.mapper.readout.weight for model in models)
    assert torch.equal(first, second)


def test_an_encoder_that_must_be_told_is_told_the_language(tiny_model):
    solutions = []
    for languages in (None, ["sin_Sinh"] * len(TEXTS)):
        model = tiny_model("nllb", fusion="last")
        solve(model, TEXTS, languages)
        solutions.append(model.bridge.mapper.readout.weight)
    assert not torch.allclose(*solutions)


@pytest.mark.parametrize("training", [True, False])
def test_the_training_mode_is_as_before(tiny_model, training):
    model = tiny_model("bert", fusion="transformer_softmax").train(training)
    solve(model, TEXTS)
    assert model.training is model.bridge.training is training
    model.processor.llm_tokenizer = ByT5Tokenizer()
    with pytest.raises(PalamError):
        solve(model, TEXTS)
    assert model.training is model.bridge.training is training


@pytest.mark.parametrize(("part", "name"), [("encoder", "encoder"), ("llm", "LLM")])
def test_a_tokenizer_without_offsets_is_refused_in_one_line(tiny_model, part, name):
    model = tiny_model("bert")
    setattr(model.processor, f"{part}_tokenizer", ByT5Tokenizer())
    with pytest.raises(PalamError) as error:
        solve(model, TEXTS)
    assert str(error.value).startswith(f"the {name}'s tokenizer gives no character offsets")
    assert str(error.value).endswith("train with --init random")


@pytest.mark.parametrize("texts", [[], [""], ["", " "], ["a"] + [""] * 30])
def test_too_little_text_is_refused_and_changes_nothing(tiny_model, texts):
    model: PalamModel = tiny_model("bert", "gpt2")
    before = model.bridge.mapper.readout.weight.clone()
    with pytest.raises(PalamError, match="too little text to solve the start from"):
        solve(model, texts)
    assert torch.equal(model.bridge.mapper.readout.weight, before)
