"""Label scores against plain sums of log-probabilities, over full passes with the labels."""

import pytest
import tiny
import torch

from palam import PalamModel
from palam.errors import PalamError
from palam.inference.calibration import measure_priors
from palam.inference.scoring import LabelScorer, score_labels

LABELS = ["sports", "science/technology", "x", "the rice price went up"]
PROMPT = "Read: {text}\nTopic:"
SHOTS = "".join(f"Read: {label}\nTopic: {label[:5]}\n" for label in LABELS) + PROMPT
TEXTS = [tiny.TEXT["en"][:n] for n in (40, 5, 120, 77, 1)] + [tiny.TEXT["si"], ""]


def plain(model, texts, labels, llm_only=False):
    """Each text with each label alone: no cache, no batch, all logits."""
    scores = torch.zeros(len(texts), len(labels))
    for i, text in enumerate(texts):
        for j, label in enumerate(labels):
            batch = model.processor([text], [label], llm_only=llm_only)
            with torch.no_grad():
                logits = model(**batch).logits[0]
            answer = model.processor.answer_ids(label)
            first = len(logits) - len(answer) - 1
            for position, token in enumerate(answer, start=first):
                scores[i, j] += logits[position].log_softmax(-1)[token]
    return scores


def counted_calls(monkeypatch, owner, name):
    """A list that grows by the keyword arguments of each call of a method."""
    calls = []
    original = getattr(owner, name)

    def counted(*args, **kwargs):
        calls.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls


# Gemma's window is 16 tokens: most of these texts are longer
@pytest.mark.parametrize("llm", tiny.LLMS)
@pytest.mark.parametrize("llm_only", [False, True])
def test_scores_are_sums_of_log_probabilities(tiny_model, llm, llm_only):
    model = tiny_model("xlmr", llm, fusion="mean", mode="prompt", prompt=PROMPT)
    lengths = {len(model.processor.answer_ids(label)) for label in LABELS}
    assert len(lengths) > 2
    assert max(len(model.processor([text])["encoder_input_ids"][0]) for text in TEXTS) > 16
    expected = plain(model, TEXTS, LABELS, llm_only)
    for batch_size in (32, 3, 1):
        scores = score_labels(model, TEXTS, LABELS, llm_only=llm_only, batch_size=batch_size)
        assert torch.allclose(scores, expected, atol=2e-4), batch_size


@pytest.mark.parametrize("llm", tiny.LLMS)
@pytest.mark.parametrize("llm_only", [False, True])
def test_a_long_prompt_before_the_text_is_read_once(tiny_model, monkeypatch, llm, llm_only):
    model = tiny_model("xlmr", llm, fusion="mean", mode="prompt", prompt=SHOTS)
    assert len(model.processor.prefix_ids()) > 64
    expected = plain(model, TEXTS, LABELS, llm_only)
    calls = counted_calls(monkeypatch, model, "run_llm")
    for batch_size in (32, 3, 1):
        calls.clear()
        scores = score_labels(model, TEXTS, LABELS, llm_only=llm_only, batch_size=batch_size)
        assert torch.allclose(scores, expected, atol=2e-4), batch_size
        without_cache = [
            call for call in calls if call.get("use_cache") and call.get("cache") is None
        ]
        if llm != "gemma3":  # the prompt may be out of its window
            # the prompt, and two whole texts: compared with plain reading, and with the prompt's
            # cache
            assert len(without_cache) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("forgets", [False, True])
def test_an_llm_that_forgets_a_prompt_reads_it_before_each_text(
    tiny_model, monkeypatch, dtype, forgets
):
    model = tiny_model(mode="prompt", prompt=SHOTS, dtype=dtype)
    expected = torch.cat([score_labels(model, [text], LABELS, llm_only=True) for text in TEXTS])
    rows = model.processor.features(TEXTS, llm_only=True)
    ids = [row["input_ids"] for row in rows]
    alike = [len(set(column)) == 1 for column in zip(*ids, strict=False)]
    prefix_length = alike.index(False) - 1  # so that no row is left empty
    forward = model.llm.forward
    batches_after_prefix = []

    def forgetful(inputs_embeds, attention_mask, **kwargs):
        for name in ("cache", "past_key_values"):
            cache = kwargs.get(name)
            if cache is not None and cache.get_seq_length() == prefix_length:
                batches_after_prefix.append(len(inputs_embeds))
                if forgets:
                    attention_mask = attention_mask[:, prefix_length:]
                    del kwargs[name]
        return forward(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(model.llm, "forward", forgetful)
    scores = score_labels(model, TEXTS, LABELS, llm_only=True)
    assert torch.allclose(scores, expected, atol=2e-4 if dtype == torch.float32 else 0.5)
    # the check, and then all
    assert batches_after_prefix == ([2] if forgets else [2, len(TEXTS)])


def test_long_texts_are_read_fewer_at_a_time(tiny_model):
    counts = []
    texts = ["rice " * 1000, "a", "b", "c"]
    score_labels(tiny_model(), texts, LABELS, llm_only=True, batch_size=2, progress=counts.append)
    assert counts == [1, 2, 1]


@pytest.mark.parametrize("end", [True, False])
def test_a_label_of_one_token(tiny_model, end):
    model = tiny_model()
    if not end:
        model.processor.llm_tokenizer.eos_token = None
    labels = ["x", "y"]
    assert [len(model.processor.answer_ids(label)) for label in labels] == [1 + end] * 2
    expected = plain(model, TEXTS, labels)
    assert torch.allclose(score_labels(model, TEXTS, labels), expected, atol=1e-4)


@pytest.mark.parametrize("llm", ["llama", "gpt2", "opt", "qwen"])
def test_labels_are_read_side_by_side(tiny_model, monkeypatch, llm):
    model = tiny_model("xlmr", llm, mode="prompt", prompt=PROMPT)
    expected = plain(model, TEXTS, LABELS)
    scorer = LabelScorer(model, LABELS)
    assert scorer.exactness.packing is None
    assert torch.allclose(scorer.score(TEXTS), expected, atol=2e-4)
    assert scorer.exactness.packing
    calls = counted_calls(monkeypatch, model, "run_llm")
    lengths = [len(model.processor.answer_ids(label)) for label in LABELS]
    # the texts, and the labels in parts
    for most, expected_calls in ((1000, 2), (20, 3), (1, 1 + len(LABELS))):
        calls.clear()
        monkeypatch.setattr("palam.inference.label_reading.MAX_PACKED_TOKENS", most)
        assert torch.allclose(scorer.score(TEXTS), expected, atol=2e-4)
        assert len(calls) == expected_calls, (most, lengths)


@pytest.mark.parametrize("refuses", [False, True])
def test_an_llm_that_cannot_keep_labels_apart_reads_them_one_by_one(
    tiny_model, monkeypatch, refuses
):
    model = tiny_model()
    expected = plain(model, TEXTS, LABELS)
    forward = model.llm.forward

    def causal(*args, attention_mask=None, **kwargs):
        if attention_mask.ndim > 2:
            if refuses:
                raise ValueError("a mask has two dimensions")
            # each label sees those before it
            attention_mask = (attention_mask[:, 0, -1] == 0).long().fill_(1)
        return forward(*args, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(model.llm, "forward", causal)
    scorer = LabelScorer(model, LABELS)
    for _ in range(2):
        assert torch.allclose(scorer.score(TEXTS), expected, atol=2e-4)
        assert scorer.exactness.packing is False
    assert torch.allclose(score_labels(model, TEXTS, LABELS), expected, atol=2e-4)


@pytest.mark.parametrize("prompt", [PROMPT, SHOTS])
def test_a_scorers_two_calls_give_what_one_call_gives(tiny_model, prompt):
    model = tiny_model("xlmr", fusion="mean", mode="prompt", prompt=prompt)
    together = score_labels(model, TEXTS, LABELS, batch_size=1)
    scorer = LabelScorer(model, LABELS)
    parts = [scorer.score(part, batch_size=1) for part in (TEXTS[:4], TEXTS[4:])]
    assert torch.equal(torch.cat(parts), together)
    larger = [scorer.score(part, batch_size=3) for part in (TEXTS[:4], TEXTS[4:])]
    assert torch.allclose(torch.cat(larger), together, atol=2e-4)


def test_a_scorer_checks_packing_once_over_all_its_calls(tiny_model, monkeypatch):
    scorer = LabelScorer(tiny_model(), LABELS)
    checks = counted_calls(monkeypatch, scorer._reading, "score_sequentially")
    for text in TEXTS:
        scorer.score([text])
    assert len(checks) == 1


def test_each_text_keeps_its_place_and_its_language(tiny_model):
    model = tiny_model("nllb")
    texts = ["a book", "rice", "the national team won"]
    languages = ["tam_Taml", "en", "sin_Sinh"]
    together = score_labels(model, texts, LABELS, languages, batch_size=2)
    for i in range(3):
        alone = score_labels(model, [texts[i]], LABELS, [languages[i]])
        assert torch.allclose(together[i], alone[0], atol=1e-4)
    other = score_labels(model, texts, LABELS, ["amh_Ethi"] * 3)
    assert not torch.allclose(together, other, atol=1e-2)


def test_progress_counts_the_texts(tiny_model):
    counts = []
    score_labels(tiny_model(), TEXTS, LABELS, batch_size=3, progress=counts.append)
    assert counts == [3, 3, 1]


def test_nothing_is_drawn_and_the_mode_is_given_back(tiny_model):
    model = tiny_model(fusion="transformer_softmax").train()
    first = score_labels(model, TEXTS, LABELS)
    assert torch.equal(first, score_labels(model, TEXTS, LABELS))
    assert model.training
    assert not first.requires_grad


def test_no_texts_and_no_labels(tiny_model):
    assert score_labels(tiny_model(), [], LABELS).shape == (0, 4)
    for labels in ([], ["a", ""]):
        with pytest.raises(PalamError, match="give at least one, and none empty"):
            score_labels(tiny_model(), TEXTS, labels)


def test_priors_are_the_mean_scores_and_are_subtracted(tiny_model, tmp_path):
    model = tiny_model()
    labels = ["sports", "politics", "science/technology"]
    uncalibrated = score_labels(model, TEXTS, labels)
    expected = uncalibrated - uncalibrated.mean(0)
    measure_priors(model, TEXTS, labels, batch_size=2)
    calibrated = score_labels(model, TEXTS, labels)
    torch.testing.assert_close(calibrated, expected, atol=1e-4, rtol=0)
    reordered = score_labels(model, TEXTS, labels[::-1])
    torch.testing.assert_close(reordered, calibrated.flip(1), atol=1e-4, rtol=0)
    assert torch.equal(score_labels(model, TEXTS, labels, calibrated=False), uncalibrated)
    measure_priors(model, TEXTS, labels)  # again, from the uncalibrated scores
    torch.testing.assert_close(score_labels(model, TEXTS, labels), calibrated, atol=1e-4, rtol=0)
    model.save_pretrained(tmp_path / "bridge")
    loaded = PalamModel.from_pretrained(tmp_path / "bridge")
    assert torch.equal(score_labels(loaded, TEXTS, labels), score_labels(model, TEXTS, labels))
    other = [*labels[:2], "health"]
    without_a_prior = score_labels(model, TEXTS, other)
    assert torch.equal(without_a_prior, score_labels(model, TEXTS, other, calibrated=False))
    llm_only = score_labels(model, TEXTS, labels, llm_only=True)
    llm_only_uncalibrated = score_labels(model, TEXTS, labels, llm_only=True, calibrated=False)
    assert torch.equal(llm_only, llm_only_uncalibrated)
