"""The best of several answers from a server: those of the command, alone and among strangers."""

import time

import pytest
import tiny
import torch
from serving_clients import ask, plain

from palam import generate
from palam.inference.contexts import RereadContext
from palam.models.template import SAME_IN_ENGLISH
from palam.serving import answering, best_of
from palam.serving.errors import RequestError
from palam.serving.prompts import ContentPart, Message

TEXTS = ["Rice.", tiny.TEXT["si"], tiny.TEXT["ta"][:40], "", tiny.TEXT["zh"]]


@pytest.fixture
def model(tiny_model):
    return tiny_model(mode="prompt", prompt=SAME_IN_ENGLISH)


def expected_of(model, **options):
    return generate(model, TEXTS, max_new_tokens=6, **options)


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize("rereads", [False, True])
def test_it_is_that_of_the_command(model, running, monkeypatch, scale, rereads):
    if rereads:
        monkeypatch.setattr(answering, "suitable_context", lambda model: RereadContext)
    expected = expected_of(model, best_of=5, guidance_scale=scale)
    assert expected != expected_of(model, guidance_scale=scale)
    engine = running(model, max_batch=4)
    options = {"max_new_tokens": 6, "guidance_scale": scale}
    clients = [ask(engine, text, best_of=5, **options) for text in TEXTS]
    among = [ask(engine, text, **options) for text in TEXTS]
    assert [client.result().text for client in clients] == expected
    assert [client.result().text for client in among] == expected_of(model, guidance_scale=scale)


def test_the_text_in_english_is_guided_unless_told_otherwise(model, running):
    engine = running(model)
    clients = [ask(engine, text, best_of=3, max_new_tokens=6) for text in TEXTS]
    expected = expected_of(model, best_of=3, guidance_scale=1.5)
    assert [client.result().text for client in clients] == expected


def test_it_begins_and_ends_once_and_counts_all_tokens(model, running):
    engine = running(model)
    alone = ask(engine, "Rice.", guidance_scale=1.0, max_new_tokens=6).result()
    answer = ask(engine, "Rice.", best_of=4, guidance_scale=1.0, max_new_tokens=6).result()
    assert answer.started == alone.started
    assert len(answer.pieces) == 1
    assert alone.completion_tokens < answer.completion_tokens <= 4 * 6


def test_the_prompt_is_read_once_for_all_answers(model, running, monkeypatch):
    rows = []
    run_llm = model.run_llm

    def counted(inputs, *arguments, **options):
        rows.append(len(inputs.attention_mask))
        return run_llm(inputs, *arguments, **options)

    engine = running(model)
    monkeypatch.setattr(model, "run_llm", counted)
    ask(engine, "Rice.", best_of=4, guidance_scale=1.0, max_new_tokens=6).result()
    assert rows[0] == 1
    assert max(rows) == 4


def wait_until_idle(engine):
    end = time.monotonic() + 60
    while engine.num_running:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_client_that_has_gone_frees_all_places(model, running, monkeypatch):
    monkeypatch.setattr(model, "stop_ids", list)
    engine = running(model, max_new_tokens=100_000)
    client = ask(engine, "Rice.", best_of=4, max_new_tokens=100_000)
    client.next()
    client.job.cancel()
    wait_until_idle(engine)
    assert client.events.empty()


def test_one_answer_that_fails_fails_the_request_and_no_other(model, running, monkeypatch):
    engine = running(model)
    expected = ask(engine, "Home.", max_new_tokens=6).result().text

    def broken(*arguments, **options):
        raise RuntimeError("no")

    monkeypatch.setattr(best_of, "best_answers", broken)
    failing = ask(engine, "Rice.", best_of=4, max_new_tokens=6)
    other = ask(engine, "Home.", max_new_tokens=6)
    assert isinstance(failing.result(), RequestError)
    assert other.result().text == expected
    wait_until_idle(engine)
    assert failing.events.empty()


def test_too_little_memory_halves_the_batch(model, running, monkeypatch):
    expected = expected_of(model, best_of=4, guidance_scale=1.5)[0]
    engine = running(model)
    run_llm = model.run_llm

    def small(inputs, *arguments, **options):
        output = run_llm(inputs, *arguments, **options)
        if len(inputs.attention_mask) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return output

    monkeypatch.setattr(model, "run_llm", small)
    assert ask(engine, TEXTS[0], best_of=4, max_new_tokens=6).result().text == expected


def foreign(*texts):
    return Message("user", tuple(ContentPart(text, is_foreign=True) for text in texts))


@pytest.mark.parametrize(
    ("content", "options", "param"),
    [
        ([foreign("Rice.", "Home.")], {}, "best_of"),
        ([Message("user", (ContentPart("Rice."),))], {}, "best_of"),
        ([plain("Rice.")], {"temperature": 0.5}, "temperature"),
    ],
)
def test_what_the_encoder_cannot_judge_is_refused(model, running, content, options, param):
    error = ask(running(model), content, best_of=3, **options).result()
    assert (error.status, error.param) == (400, param)
