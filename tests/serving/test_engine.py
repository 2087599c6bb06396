"""The engine: the same answers alone and among strangers; whoever fails or goes does so alone."""

import random
import time

import pytest
import tiny
import torch
from helpers import task_of
from serving_clients import ask, classify, plain

from palam import generate, score_labels
from palam.inference.contexts import CachedContext, RereadContext, suitable_context
from palam.inference.temperature import LEAST_TEMPERATURE
from palam.models.template import SAME_IN_ENGLISH
from palam.serving.errors import RequestError
from palam.serving.observer import Observer
from palam.serving.prompts import ContentPart, Message

TEXTS = [
    "Rice.",
    tiny.TEXT["si"],
    tiny.TEXT["ta"][:40],
    "The quick brown fox jumps over the lazy dog. " * 3,
    tiny.TEXT["ar"],
    "",
    tiny.TEXT["zh"],
]
LABELS = ["sports", "health", "travel"]
PROMPT = {"mode": "prompt", "prompt": "{text}\nTopic:"}


class Counting(Observer):
    def __init__(self):
        self.batches = []
        self.failures = []

    def batch_read(self, kind, rows):
        self.batches.append((kind, rows))

    def batch_failed(self, kind, error):
        self.failures.append((kind, error))

    def largest(self, kind):
        return max(rows for other, rows in self.batches if other == kind)


# ------------------------------------------------------------------ the same answers
@pytest.mark.parametrize("llm", tiny.LLMS)
def test_an_answer_among_strangers_is_that_of_generate(tiny_model, running, llm):
    model = tiny_model("bert", llm, **PROMPT)
    assert suitable_context(model) is CachedContext
    expected = [
        generate(model, [text], max_new_tokens=4 + number)[0] for number, text in enumerate(TEXTS)
    ]
    counting = Counting()
    engine = running(model, observer=counting)
    clients = [ask(engine, text, max_new_tokens=4 + number) for number, text in enumerate(TEXTS)]
    assert [client.result().text for client in clients] == expected
    assert counting.largest("decode") > 1
    assert counting.failures == []


def test_the_text_in_english_is_guided_as_by_the_command(tiny_model, running):
    model = tiny_model(mode="prompt", prompt=SAME_IN_ENGLISH)
    engine = running(model)
    guided, plain_ones = (
        generate(model, TEXTS, max_new_tokens=6, guidance_scale=scale) for scale in (1.5, 1.0)
    )
    assert guided != plain_ones
    for options, expected in (({}, guided), ({"guidance_scale": 1.0}, plain_ones)):
        clients = [ask(engine, text, max_new_tokens=6, **options) for text in TEXTS]
        assert [client.result().text for client in clients] == expected
    # What is asked beside the text is another prompt.
    asked = Message("user", (ContentPart(TEXTS[1], is_foreign=True), ContentPart("\nWho?")))
    unset = ask(engine, [asked], max_new_tokens=6).result().text
    assert ask(engine, [asked], max_new_tokens=6, guidance_scale=1.0).result().text == unset


@pytest.mark.parametrize("options", [{"mode": "paper"}, {"mode": "chat", "prompt": "Of: {text}"}])
def test_templates_are_the_bridges_own(tiny_model, running, options):
    model = tiny_model(**options)
    engine = running(model)
    clients = [ask(engine, text) for text in TEXTS[:3]]
    expected = generate(model, TEXTS[:3], max_new_tokens=8)
    assert [client.result().text for client in clients] == expected


def test_without_a_usable_cache_all_is_read_again(tiny_model, running, monkeypatch):
    model = tiny_model(**PROMPT)
    expected = generate(model, TEXTS, max_new_tokens=6)
    assert suitable_context(model) is CachedContext
    honest = CachedContext.join

    def forgetful(self, other):
        honest(self, other)
        self._cache.layers[0].keys.zero_()

    monkeypatch.setattr(CachedContext, "join", forgetful)
    assert suitable_context(model) is RereadContext
    engine = running(model)
    clients = [ask(engine, text, max_new_tokens=6) for text in TEXTS]
    assert [client.result().text for client in clients] == expected


def test_answers_that_join_and_leave_at_any_time(tiny_model, running):
    """Lengths, bridges, guidance, starts and cancellations are mixed; whoever stays gets the same
    answer.
    """
    models = [tiny_model(**PROMPT), tiny_model(fusion="mean", **PROMPT)]
    models[1].llm = models[0].llm
    engine = running(*models, max_batch=5, batch_tokens=200)
    drawn = random.Random(0)
    expected = {}
    clients = []
    for _ in range(40):
        number = drawn.randrange(2)
        text = drawn.choice(TEXTS)
        length = drawn.randint(1, 12)
        guidance = drawn.choice([{}, {"guidance_scale": 1.0}, {"guidance_scale": 3.0}])
        key = (number, text, length, *guidance.values())
        if key not in expected:
            (answer,) = generate(models[number], [text], max_new_tokens=length, **guidance)
            expected[key] = answer
        client = ask(engine, text, bridge="ab"[number], max_new_tokens=length, **guidance)
        clients.append((key, client))
        if drawn.random() < 0.3:
            client.job.cancel()
        if drawn.random() < 0.3:
            time.sleep(0.003)
    remaining = [(key, client) for key, client in clients if not client.job.is_cancelled]
    assert len(remaining) > 15
    for key, client in remaining:
        assert client.result().text == expected[key]
    assert engine.num_waiting == 0


def test_a_cancelled_answer_frees_its_place(tiny_model, running):
    engine = running(tiny_model(**PROMPT), max_batch=1, max_new_tokens=100_000)
    long = ask(engine, "Rice.", max_new_tokens=100_000)
    assert long.next().prompt_tokens > 0
    short = ask(engine, "Rice.", max_new_tokens=2)
    long.job.cancel()
    assert short.result().completion_tokens <= 2


def test_sampling_depends_on_the_seed_alone(tiny_model, running):
    engine = running(tiny_model(**PROMPT))
    options = {"temperature": 1.5, "top_p": 0.9, "max_new_tokens": 12}
    alone = ask(engine, "Rice.", seed=3, **options).result().text
    other = ask(engine, "Rice.", seed=4, **options).result().text
    strangers = [ask(engine, text, temperature=1.0) for text in TEXTS]
    again = ask(engine, "Rice.", seed=3, **options)
    assert again.result().text == alone != other
    for stranger in strangers:
        stranger.result()


@pytest.mark.parametrize("top_p", [1e-9, 5e-324])
def test_a_small_top_p_is_greedy(tiny_model, running, top_p):
    engine = running(tiny_model(**PROMPT))
    greedy = ask(engine, "Rice.").result().text
    assert ask(engine, "Rice.", temperature=2.0, top_p=top_p).result().text == greedy


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-40, 1e-7, LEAST_TEMPERATURE])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_small_temperature_is_greedy(tiny_model, running, temperature, scale):
    engine = running(tiny_model(**PROMPT))
    greedy = ask(engine, "Rice.", guidance_scale=scale).result().text
    drawn = ask(engine, "Rice.", temperature=temperature, guidance_scale=scale)
    assert drawn.result().text == greedy


def test_scores_are_those_of_the_command(tiny_model, running):
    model = tiny_model("nllb", **PROMPT)
    counting = Counting()
    engine = running(model, observer=counting)
    languages = ["eng_Latn", "si", "ta"]
    clients = [
        classify(engine, [text, text + " Rice."], LABELS, languages=[language, language])
        for text, language in zip(TEXTS[:3], languages, strict=True)
    ]
    for text, language, client in zip(TEXTS, languages, clients, strict=False):
        expected = score_labels(model, [text, text + " Rice."], LABELS, [language] * 2)
        assert torch.allclose(torch.tensor(client.result().scores), expected, atol=1e-4)
    assert counting.largest("classify") > 2


def test_texts_are_scored_in_the_form_of_the_bridges_task(tiny_model, running):
    model = tiny_model(**PROMPT)
    expected = score_labels(model, [f"Review: {text}" for text in TEXTS], LABELS)
    model.config.task = task_of({}, "Review: {review}")
    scored = classify(running(model), TEXTS, LABELS).result().scores
    assert torch.allclose(torch.tensor(scored), expected, atol=1e-4)


def test_many_texts_do_not_hold_up_few(tiny_model, running):
    engine = running(tiny_model(**PROMPT), max_batch=4, max_texts=1000)
    many = classify(engine, ["Rice."] * 48, LABELS)
    few = classify(engine, ["Rice."], LABELS)
    few.result()
    assert many.events.empty()
    assert len(many.result().scores) == 48


# ------------------------------------------------------------------ ends
def test_an_answer_ends_at_its_stop_string(tiny_model, running):
    engine = running(tiny_model(**PROMPT))
    whole = ask(engine, "Rice.", max_new_tokens=20).result()
    stop = whole.text[3:5]
    stopped = ask(engine, "Rice.", max_new_tokens=20, stops=[stop]).result()
    assert stopped.text == whole.text[: whole.text.index(stop)].rstrip()
    assert (whole.reason, stopped.reason) == ("length", "stop")


def test_an_answer_has_as_many_tokens_as_the_llm_has_places(tiny_model, running):
    engine = running(tiny_model("bert", "gpt2", **PROMPT), max_new_tokens=1000)
    error = ask(engine, "Rice.", max_new_tokens=1000).result()
    assert (error.status, error.code) == (400, "context_length_exceeded")
    answer = ask(engine, "Rice.", max_new_tokens=None).result()
    assert answer.completion_tokens + answer.started.prompt_tokens <= 256


@pytest.mark.parametrize(
    "job",
    [lambda engine: ask(engine, "a" * 400), lambda engine: classify(engine, ["a" * 400], LABELS)],
)
def test_too_long_a_text_is_refused(tiny_model, running, job):
    error = job(running(tiny_model("t5", **PROMPT), max_text_tokens=30)).result()
    assert error.status == 400
    assert "this server reads 30 at most" in str(error)


def test_what_is_cut_is_told(tiny_model, running):
    engine = running(tiny_model(max_length=16, **PROMPT))
    texts = ["Rice.", "The quick brown fox. " * 20]
    assert classify(engine, texts, LABELS).result().cut == [False, True]
    assert [ask(engine, text).result().started.cut_texts for text in texts] == [0, 1]


# ------------------------------------------------------------------ failures
def test_too_little_memory_halves_the_batch(tiny_model, running, monkeypatch):
    model = tiny_model(**PROMPT)
    expected = generate(model, TEXTS, max_new_tokens=6)
    scores = score_labels(model, TEXTS[:5], LABELS)
    counting = Counting()
    engine = running(model, observer=counting)
    honest = model.run_llm

    def small(inputs, *arguments, **options):
        output = honest(inputs, *arguments, **options)  # the cache has grown already
        if len(inputs.attention_mask) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return output

    monkeypatch.setattr(model, "run_llm", small)
    clients = [ask(engine, text, max_new_tokens=6) for text in TEXTS]
    assert [client.result().text for client in clients] == expected
    assert counting.failures
    labelled = classify(engine, TEXTS[:5], LABELS).result()
    assert torch.allclose(torch.tensor(labelled.scores), scores, atol=1e-4)


def test_memory_for_none_fails_the_request_alone(tiny_model, running, monkeypatch):
    model = tiny_model(**PROMPT)
    engine = running(model)
    expected = ask(engine, "Rice.").result().text
    with monkeypatch.context() as patch:

        def none(*arguments, **options):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

        patch.setattr(model, "run_llm", none)
        error = ask(engine, "Rice.").result()
    assert (error.status, error.code, error.retry_after) == (503, "out_of_memory", 10)
    assert ask(engine, "Rice.").result().text == expected


def test_a_poisoned_text_fails_alone(tiny_model, running, monkeypatch):
    model = tiny_model(**PROMPT)
    expected = generate(model, ["Rice.", "Home."], max_new_tokens=6)
    engine = running(model)
    honest = model.live_encoding.mapped
    poison = model.processor.encode_texts(["zzz"])[0]["input_ids"]

    def mapped(ids, mask):
        vectors = honest(ids, mask)
        rows = mask.nonzero()[:, 0]
        for row, text in enumerate(ids.tolist()):
            if text[: len(poison)] == poison:
                vectors[rows == row] = float("nan")
        return vectors

    monkeypatch.setattr(model.live_encoding, "mapped", mapped)
    clients = [ask(engine, text, max_new_tokens=6) for text in ("Rice.", "zzz", "Home.")]
    first, poisoned, last = [client.result() for client in clients]
    assert [first.text, last.text] == expected
    assert poisoned.status == 500
    labelled = [classify(engine, [text], LABELS) for text in ("Rice.", "zzz", "Home.")]
    results = [client.result() for client in labelled]
    assert isinstance(results[1], RequestError)
    assert len(results[0].scores) == len(results[2].scores) == 1


@pytest.mark.parametrize("labels", [["a", "a"], ["a", ""], ["a" * 1000, "b"]])
def test_labels_that_cannot_be_scored_are_refused(tiny_model, running, labels):
    engine = running(tiny_model(**PROMPT))
    error = classify(engine, ["Rice."], labels).result()
    assert (error.status, error.param) == (400, "labels")
    assert classify(engine, ["Rice."], LABELS).result().scores


@pytest.mark.parametrize("encoder", ["bert", "nllb"])
def test_an_unknown_language_is_refused(tiny_model, running, encoder):
    engine = running(tiny_model(encoder, **PROMPT))
    assert ask(engine, "Rice.", language="xx_Nope").result().param == "language"
    assert classify(engine, ["Rice."], LABELS, languages=["xx_Nope"]).result().status == 400


def test_a_full_queue_says_when_to_come_back(tiny_model, running):
    engine = running(tiny_model(**PROMPT), max_batch=1, max_queue=2, max_new_tokens=100_000)
    first = ask(engine, "Rice.", max_new_tokens=100_000)
    first.next()
    waiting = [ask(engine, "Rice.", max_new_tokens=1) for _ in range(2)]
    with pytest.raises(RequestError) as refused:
        ask(engine, "Rice.")
    assert refused.value.status == 429
    assert refused.value.retry_after >= 1
    first.job.cancel()
    for client in waiting:
        assert client.result().completion_tokens == 1


def test_late_requests_are_told_so(tiny_model, running):
    engine = running(tiny_model(**PROMPT), max_batch=1, max_new_tokens=100_000)
    long = ask(engine, "Rice.", max_new_tokens=100_000)
    long.next()
    waiting = ask(engine, "Rice.")
    waiting.job.deadline = time.monotonic()
    assert waiting.result().status == 504
    long.job.deadline = time.monotonic()
    assert long.result().code == "timeout"


def test_an_unexpected_error_does_not_end_the_engine(tiny_model, running, monkeypatch):
    engine = running(tiny_model(**PROMPT))
    with monkeypatch.context() as patch:
        patch.setattr(engine._answers, "_admit", lambda: 1 / 0)
        assert ask(engine, "Rice.").result().status == 500
    assert ask(engine, "Rice.").result().text


def test_closing_finishes_what_is_there_and_takes_no_more(tiny_model, running):
    engine = running(tiny_model(**PROMPT))
    clients = [ask(engine, text) for text in TEXTS]
    engine.close(seconds=30)
    assert all(client.result().completion_tokens for client in clients)
    with pytest.raises(RequestError) as refused:
        ask(engine, "Rice.")
    assert refused.value.code == "shutting_down"


def test_closing_at_once_tells_those_who_wait(tiny_model, running):
    engine = running(tiny_model(**PROMPT), max_new_tokens=100_000)
    client = ask(engine, "Rice.", max_new_tokens=100_000)
    client.next()
    engine.close()
    assert client.result().code == "shutting_down"


def test_a_conversation_is_answered(tiny_model, running):
    engine = running(tiny_model(mode="chat"))
    turns = [
        plain("Be short.", "system"),
        plain("Rice."),
        plain("yes", "assistant"),
        plain("Home."),
    ]
    assert ask(engine, turns).result().completion_tokens > 0
