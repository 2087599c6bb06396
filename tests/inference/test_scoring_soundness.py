"""Label scores that could be wrong without a word: compared, refused, or told."""

import functools
import math

import pytest
import tiny
import torch
from helpers import refusal

from palam.errors import PalamError
from palam.inference import continuation
from palam.inference.cached_prefix import CachedPrefix
from palam.inference.calibration import calibrate_to_task, measure_priors
from palam.inference.exactness import Exactness
from palam.inference.generation import generate, generate_ids
from palam.inference.prediction import predict
from palam.inference.reading_comparison import ReadingComparison
from palam.inference.scoring import LabelScorer, score_labels
from palam.tasks.registry import get_task
from palam.tasks.task import Example, Task

LABELS = ["sports", "science/technology", "x", "the rice price went up"]
PROMPT = "Read: {text}\nTopic:"
TEXTS = [tiny.TEXT["en"][:length] for length in (40, 5, 120, 77, 1)] + [tiny.TEXT["si"], ""]


@pytest.fixture
def model(tiny_model):
    return tiny_model("xlmr", "llama", fusion="mean", mode="prompt", prompt=PROMPT)


def alone(model, labels=LABELS):
    """Scores of each text with each label by itself: nothing is packed, padded or cached."""
    scores = []
    for text in TEXTS:
        row = []
        for label in labels:
            with torch.no_grad():
                logits = model(**model.processor([text], [label])).logits[0]
            answer = model.processor.answer_ids(label)
            logprobs = logits[-len(answer) - 1 : -1].log_softmax(-1)
            row.append(logprobs[torch.arange(len(answer)), answer].sum())
        scores.append(torch.stack(row))
    return torch.stack(scores)


def with_forward(monkeypatch, model, change):
    """Let an LLM's forward pass be changed: `change(forward, inputs_embeds, cache, **kwargs)`."""
    forward = model.llm.forward

    @functools.wraps(forward)  # its signature is looked at
    def changed(**kwargs):
        cache = kwargs.get("cache", kwargs.get("past_key_values"))
        return change(forward, cache, **kwargs)

    monkeypatch.setattr(model.llm, "forward", changed)


# ------------------------------------------------------------------ memory
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_too_little_memory_is_told_and_says_nothing_of_the_llm(model, monkeypatch, rows):
    """Two texts are compared first; what the plain reading takes may be had or not."""
    expected = score_labels(model, TEXTS, LABELS)
    scorer = LabelScorer(model, LABELS)
    with monkeypatch.context() as patch:

        def small(forward, cache, /, **kwargs):
            output = forward(**kwargs)
            if len(kwargs["inputs_embeds"]) >= rows:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return output

        with_forward(patch, model, small)
        with pytest.raises(torch.OutOfMemoryError):
            scorer.score(TEXTS)
    assert (scorer.exactness.cache, scorer.exactness.packing) in [(None, None), (True, True)]
    assert torch.allclose(scorer.score(TEXTS), expected, atol=1e-5)
    assert scorer.exactness.cache
    assert scorer.exactness.packing


# ------------------------------------------------------------------ ways of reading
def held(cache):
    return 0 if cache is None else cache.get_seq_length()


def several_tokens_are_wrong(forward, before, /, **kwargs):
    """As in Jamba: after a cache, only one token at a time is right."""
    output = forward(**kwargs)
    if held(before) and kwargs["inputs_embeds"].shape[1] > 1:
        output.logits = output.logits.roll(1, -1)
    return output


def every_token_is_wrong(forward, before, /, **kwargs):
    had_cache = held(before)
    output = forward(**kwargs)
    if had_cache:
        output.logits = output.logits.roll(1, -1)
    return output


def cache_is_refused(forward, before, /, **kwargs):
    """As in Mamba: a bare RuntimeError."""
    if held(before):
        raise RuntimeError("Expected size 1 but got size 3")
    return forward(**kwargs)


def no_cache(forward, before, /, **kwargs):
    output = forward(**{**kwargs, "use_cache": False})
    output.past_key_values = None
    return output


@pytest.mark.parametrize(
    ("change", "cache_is_exact", "one_token_at_a_time"),
    [
        (several_tokens_are_wrong, True, True),
        (every_token_is_wrong, False, None),
        (cache_is_refused, False, None),
        (no_cache, False, None),
    ],
)
def test_a_cache_that_is_not_exact_is_found_and_not_used(
    model, monkeypatch, change, cache_is_exact, one_token_at_a_time
):
    expected = alone(model)
    with_forward(monkeypatch, model, change)
    scorer = LabelScorer(model, LABELS)
    assert scorer.exactness.cache is None
    for batch_size in (32, 3, 1):
        scores = scorer.score(TEXTS, batch_size=batch_size)
        assert torch.allclose(scores, expected, atol=2e-4), batch_size
    assert scorer.exactness.cache is cache_is_exact
    assert scorer.exactness.packing is (False if cache_is_exact else None) or not cache_is_exact
    assert scorer.exactness.padding is True
    if one_token_at_a_time is not None:
        assert scorer.exactness.one_token_at_a_time is one_token_at_a_time


def test_where_padding_changes_a_text_each_is_read_alone(model, monkeypatch):
    expected = alone(model)

    def reads_padding(forward, before, /, **kwargs):
        output = forward(**kwargs)
        padded = kwargs["attention_mask"][:, 0] == 0
        output.logits = output.logits + padded[:, None, None] * output.logits.roll(1, -1)
        return output

    with_forward(monkeypatch, model, reads_padding)
    batches = []
    scorer = LabelScorer(model, LABELS)
    scores = scorer.score(TEXTS, progress=batches.append)
    assert torch.allclose(scores, expected, atol=2e-4)
    assert scorer.exactness.padding is False
    assert batches == [1] * len(TEXTS)


def test_padding_is_compared_when_first_there_is_any(model):
    scorer = LabelScorer(model, LABELS)
    scorer.score(TEXTS[:1])
    assert scorer.exactness.cache
    assert scorer.exactness.padding is None
    scorer.score(TEXTS)
    assert scorer.exactness.padding


def test_texts_much_longer_than_those_compared_are_compared_again(model, monkeypatch):
    """An LLM may forget what is far away, and only then."""
    long = "rice " * 400

    def forgets_a_long_cache(forward, before, /, **kwargs):
        far = held(before) > 300
        output = forward(**kwargs)
        if far:
            output.logits = output.logits.roll(1, -1)
        return output

    expected = score_labels(model, [long, "a"], LABELS, llm_only=True)
    with_forward(monkeypatch, model, forgets_a_long_cache)
    scorer = LabelScorer(model, LABELS, llm_only=True)
    scorer.score(["a book", "a"])
    assert scorer.exactness.cache
    scores = scorer.score([long, "a"])
    assert scorer.exactness.cache is False
    assert torch.allclose(scores, expected, atol=2e-4)


def test_a_verdict_of_the_caller_is_not_compared(model, monkeypatch):
    scorer = LabelScorer(model, LABELS, exactness=Exactness(cache=False))
    calls = []
    monkeypatch.setattr(ReadingComparison, "_score_plainly", lambda *_: calls.append(1))
    assert torch.allclose(scorer.score(TEXTS), alone(model), atol=2e-4)
    assert not calls


def test_an_llm_that_scales_its_vectors_in_place_is_read_right(model, monkeypatch):
    expected = alone(model)

    def scales_in_place(forward, before, /, **kwargs):
        kwargs["inputs_embeds"].mul_(1.5)
        return forward(**{**kwargs, "inputs_embeds": kwargs["inputs_embeds"] / 1.5})

    with_forward(monkeypatch, model, scales_in_place)
    assert torch.allclose(score_labels(model, TEXTS, LABELS), expected, atol=2e-4)


# ------------------------------------------------------------------ numbers that are not finite
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("llm_only", [False, True])
def test_logits_that_are_not_finite_never_become_scores(model, monkeypatch, value, llm_only):
    def overflows(forward, before, /, **kwargs):
        output = forward(**kwargs)
        output.logits = output.logits.clone()
        output.logits[-1, -1, 3] = value
        return output

    with_forward(monkeypatch, model, overflows)
    expected = "the LLM's logits are not finite (NaN or infinite)"
    assert expected in refusal(score_labels, model, TEXTS, LABELS, llm_only=llm_only)
    assert expected in refusal(generate, model, TEXTS, llm_only=llm_only)


def test_one_bad_text_in_a_later_batch_is_found_too(model, monkeypatch):
    scorer = LabelScorer(model, LABELS)
    scorer.score(TEXTS)

    def overflows(forward, before, /, **kwargs):
        output = forward(**kwargs)
        output.logits = output.logits * math.nan
        return output

    with_forward(monkeypatch, model, overflows)
    assert "the LLM's logits are not finite" in refusal(scorer.score, TEXTS[:1])


def test_tokens_that_an_llm_rules_out_are_no_fault(model, monkeypatch):
    def rules_out(forward, before, /, **kwargs):
        output = forward(**kwargs)
        output.logits = output.logits.clone()
        output.logits[..., 3] = -math.inf
        return output

    with_forward(monkeypatch, model, rules_out)
    assert score_labels(model, TEXTS, LABELS).isfinite().all()
    assert len(generate(model, TEXTS, max_new_tokens=2)) == len(TEXTS)


def test_the_encoders_states_are_named_with_their_dtype(tiny_model, monkeypatch):
    model = tiny_model("bert", "llama", dtype=torch.float16)
    layer = model.encoder.encoder.layer[1]
    with torch.no_grad():
        layer.output.LayerNorm.weight.fill_(6e4)
    message = refusal(score_labels, model, TEXTS, LABELS)
    assert message.startswith("the encoder's states")
    assert message.endswith("are not finite in fp16: use --dtype bf16 or fp32")
    assert refusal(generate, model, TEXTS) == message


def test_the_bridges_output_is_named(model):
    with torch.no_grad():
        model.bridge.mapper.readout.bias[2] = math.inf
    assert refusal(score_labels, model, TEXTS, LABELS).endswith(
        "the bridge's output vectors are not finite (NaN or infinite)"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_priors_that_are_not_finite_are_refused(model, value):
    model.config.label_priors = dict.fromkeys(LABELS, -1.0) | {"x": value}
    expected = "the labels' priors (x) are not finite (NaN or infinite)"
    assert refusal(score_labels, model, TEXTS, LABELS) == expected
    assert score_labels(model, TEXTS, LABELS, calibrated=False).isfinite().all()


def test_priors_of_no_texts_are_refused_and_nothing_is_changed(model):
    before = dict(model.config.label_priors)
    assert "no texts to measure" in refusal(measure_priors, model, [], LABELS)
    assert model.config.label_priors == before


def test_a_calibration_that_fails_leaves_the_bridge_as_it_was(model, monkeypatch):
    task = get_task("sib200")
    rows = [Example(i, {"text": f"book {i}"}, "sports") for i in range(4)]
    weight = model.bridge.mapper.readout.weight.clone()
    scores = LabelScorer.score
    calls = []

    def fails_later(scorer, *args, **kwargs):
        calls.append(1)
        if len(calls) > 3:
            raise PalamError("the LLM's logits are not finite")
        return scores(scorer, *args, **kwargs)

    monkeypatch.setattr(LabelScorer, "score", fails_later)
    assert "not finite" in refusal(calibrate_to_task, model, task, rows, rows, "eng_Latn")
    assert torch.equal(model.bridge.mapper.readout.weight, weight)
    assert not model.config.label_priors


# ------------------------------------------------------------------ what callers give
@pytest.mark.parametrize("texts", ["one string", None, [None], ["a", math.nan], [3], [b"a"]])
def test_texts_that_are_no_list_of_strings_are_refused_in_one_line(model, texts):
    for action in (generate, generate_ids):
        assert "texts" in refusal(action, model, texts)
    assert "texts" in refusal(score_labels, model, texts, LABELS)


@pytest.mark.parametrize("labels", ["sports", None, ["a", None], [math.nan], [1]])
def test_labels_that_are_no_list_of_strings_are_refused_in_one_line(model, labels):
    assert "labels" in refusal(LabelScorer, model, labels)


@pytest.mark.parametrize(
    "labels",
    [["a", "b", "a"], ["caf\u00e9", "cafe\u0301"], ["\u0dda", "\u0dd9\u0dca"]],
)
def test_labels_that_are_the_same_to_the_llm_are_refused(model, labels):
    message = refusal(LabelScorer, model, labels)
    assert message.endswith("are the same to the LLM; give each once")


def test_columns_of_pandas_are_read(model):
    pandas = pytest.importorskip("pandas")
    texts = pandas.Series(TEXTS, index=range(10, 10 + len(TEXTS)))
    labels = pandas.Series(LABELS)
    assert torch.equal(score_labels(model, texts, labels), score_labels(model, TEXTS, LABELS))
    assert generate(model, texts) == generate(model, TEXTS)


def test_two_labels_with_the_same_words_are_one_answer(tiny_model):
    words = {"1": "bad", "2": "bad", "3": "good"}
    task = Task(
        name="stars", family="stars", labels=words, prompt="{text}\nIt is", paper_text="{text}"
    )
    model = tiny_model(mode="prompt", prompt=task.prompt)
    rows = [Example(i, {"text": f"book {i}"}, "2") for i in range(5)]
    expected = score_labels(model, [f"book {i}" for i in range(5)], ["bad", "good"])
    for prediction, scores in zip(predict(model, task, rows, None), expected, strict=True):
        assert prediction["prediction"] == ("1" if scores[0] >= scores[1] else "3")
        bad, good = scores.tolist()
        assert prediction["scores"] == pytest.approx({"1": bad, "2": bad, "3": good}, abs=1e-4)


# ------------------------------------------------------------------ many and long labels
def many_labels(count):
    """Labels that share beginnings, as the names of products do."""
    kinds = ["red rice", "white rice", "a book", "the team", "x"]
    return [f"{kinds[i % 5]} {i // 5}" for i in range(count)]


def test_very_many_labels_are_scored_as_few_are(model, monkeypatch):
    labels = many_labels(230)
    monkeypatch.setattr(continuation, "MAX_TREE_TOKENS", 60)  # several trees, in several calls
    scores = LabelScorer(model, labels).score(TEXTS[:3])
    for first in range(0, 230, 46):
        part = labels[first : first + 46]
        expected = alone(model, part)[:3]
        assert torch.allclose(scores[:, first : first + 46], expected, atol=3e-4)


def test_very_many_labels_in_whole_sequences(model):
    labels = many_labels(60)
    scorer = LabelScorer(model, labels, exactness=Exactness(cache=False))
    assert torch.allclose(scorer.score(TEXTS), alone(model, labels), atol=3e-4)


def test_five_thousand_labels_on_a_few_texts_finish(model, monkeypatch):
    """Calls and their sizes are bounded, whatever the clock says."""
    labels = many_labels(5000)
    widths = []
    run_llm = model.run_llm

    def counted(inputs, *args, **kwargs):
        widths.append(inputs.inputs_embeds.shape[0] * inputs.inputs_embeds.shape[1])
        return run_llm(inputs, *args, **kwargs)

    monkeypatch.setattr(model, "run_llm", counted)
    for packs, most_calls in ((True, 150), (False, 900)):
        widths.clear()
        scorer = LabelScorer(model, labels)
        scorer.exactness.packing = None if packs else False
        scores = scorer.score(["a book", "rice"])
        assert scores.shape == (2, 5000)
        assert scores.isfinite().all()
        assert len(widths) < most_calls
        assert max(widths) <= 512


def test_a_long_label_is_read_in_parts(model):
    labels = ["rice " * 60, "x"]
    assert 64 < len(model.processor.answer_ids(labels[0])) < 512
    expected = alone(model, labels)
    scorer = LabelScorer(model, labels)
    assert torch.allclose(scorer.score(TEXTS), expected, rtol=1e-4, atol=2e-4)
    assert scorer.exactness.packing
    scorer.exactness.packing = False
    assert torch.allclose(scorer.score(TEXTS), expected, rtol=1e-4, atol=2e-4)


def test_a_label_of_three_thousand_words_is_refused(model):
    message = refusal(LabelScorer, model, ["x", "word " * 3000])
    assert "at most can be scored" in message
    assert len(message) < 200


def test_labels_that_leave_a_table_of_positions_are_refused(tiny_model):
    model = tiny_model("bert", "gpt2", mode="prompt", prompt=PROMPT)
    assert model.processor.llm_positions == 256
    message = refusal(score_labels, model, ["rice"], ["the rice " * 120, "x"], llm_only=True)
    assert "the LLM has 256 positions" in message


# ------------------------------------------------------------------ what all texts begin with
def test_texts_that_begin_alike_share_that_beginning(model, monkeypatch):
    texts = [tiny.TEXT["en"][:300] + end for end in ("a", "book", " rice", ".")]
    expected = torch.cat([score_labels(model, [text], LABELS, llm_only=True) for text in texts])
    rows = [row["input_ids"] for row in model.processor.features(texts, llm_only=True)]
    alike = [len(set(column)) == 1 for column in zip(*rows, strict=False)].index(False)
    prefixes = []
    read_prefix = CachedPrefix.read

    def recorded(model, ids):
        prefixes.append(list(ids))
        return read_prefix(model, ids)

    monkeypatch.setattr(CachedPrefix, "read", recorded)
    scores = score_labels(model, texts, LABELS, llm_only=True)
    assert prefixes == [rows[0][: alike - 1]]
    assert torch.allclose(scores, expected, atol=2e-4)


def test_the_same_text_many_times(model):
    texts = [tiny.TEXT["en"]] * 4
    expected = score_labels(model, texts[:1], LABELS, llm_only=True)
    scores = score_labels(model, texts, LABELS, llm_only=True)
    assert torch.allclose(scores, expected.expand(4, -1), atol=2e-4)
