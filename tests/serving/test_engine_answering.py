"""Answers of a fast engine, served: as without it; whoever fails or goes does so alone."""

import time
from functools import partial

import pytest
import tiny
import torch
from fake_vllm import PROMPT, start_fake
from serving_clients import ask, classify

from palam import generate, score_labels

TEXTS = [tiny.TEXT["en"][:n] for n in (40, 5, 120, 77)] + [tiny.TEXT["si"], ""]
LABELS = ["sports", "health"]


@pytest.fixture
def started(tiny_model):
    """`started(max_length=100)`: see [`start_fake`]; the LLM is kept for the labels."""
    return partial(start_fake, tiny_model, keep_llm=True)


def test_a_served_answer_is_that_of_generate(tiny_model, started, running):
    model = tiny_model(**PROMPT)
    expected = [generate(model, [text], max_new_tokens=4 + n)[0] for n, text in enumerate(TEXTS)]
    run = started()
    engine = running(run.model, max_batch=4)
    clients = [ask(engine, text, max_new_tokens=4 + n) for n, text in enumerate(TEXTS)]
    scored = classify(engine, TEXTS[:3], LABELS)
    assert [client.result().text for client in clients] == expected
    scores = torch.tensor(scored.result().scores)
    assert torch.allclose(scores, score_labels(model, TEXTS[:3], LABELS).float(), atol=1e-4)
    assert run.fake.begun
    assert run.fake.requests == {}


def test_a_client_that_hangs_up_frees_its_place(started, running, monkeypatch):
    run = started()
    whole = run.fake.step

    def slow_step():
        time.sleep(0.02)
        return whole()

    monkeypatch.setattr(run.fake, "step", slow_step)
    engine = running(run.model, max_batch=1, max_new_tokens=200)
    long = ask(engine, "Rice.", max_new_tokens=200)
    assert long.next().prompt_tokens > 0
    short = ask(engine, "Rice.", max_new_tokens=2)
    long.job.cancel()
    assert short.result().completion_tokens <= 2
    assert run.fake.aborted


def test_an_engine_that_cannot_guide_or_give_the_best_of_several_says_so(started, running):
    engine = running(started().model)
    plain = ask(engine, TEXTS[0], max_new_tokens=4).result().text
    assert ask(engine, TEXTS[0], max_new_tokens=4, guidance_scale=1.0).result().text == plain
    refused = str(ask(engine, TEXTS[0], max_new_tokens=4, guidance_scale=2.0).result())
    assert refused == "the engine of this server cannot guide answers; leave guidance_scale out"
    refused = str(ask(engine, TEXTS[0], max_new_tokens=4, best_of=2).result())
    assert refused == "the engine of this server gives one answer to a text; leave best_of out"


def test_a_stop_string_ends_it_in_the_engine_too(started, running):
    run = started(max_length=200)
    engine = running(run.model)
    whole = ask(engine, TEXTS[0], max_new_tokens=12).result().text
    stop = whole[4:6]
    stopped = ask(engine, TEXTS[0], max_new_tokens=12, stops=[stop]).result()
    assert stopped.text == whole[: whole.index(stop)].rstrip()
    assert stopped.reason == "stop"
    assert run.fake.requests == {}


def test_a_prompt_with_bad_vectors_fails_alone(started, running):
    run = started(max_length=100)
    engine = running(run.model)
    before = ask(engine, TEXTS[0], max_new_tokens=4).result().text
    boundary = run.model.bridge.boundary
    kept = boundary.detach().clone()
    with torch.no_grad():
        boundary.fill_(torch.nan)
    assert "not finite" in str(ask(engine, TEXTS[0], max_new_tokens=4).result())
    with torch.no_grad():
        boundary.copy_(kept)
    assert ask(engine, TEXTS[0], max_new_tokens=4).result().text == before
    assert "100 positions" in str(ask(engine, TEXTS[0], max_new_tokens=99).result())


def test_an_engine_that_fails_costs_the_answers_at_hand(started, running, monkeypatch):
    run = started()
    engine = running(run.model)
    whole = run.fake.step
    monkeypatch.setattr(run.fake, "step", lambda: 1 / 0)
    assert "vLLM has failed" in str(ask(engine, TEXTS[0], max_new_tokens=4).result())
    monkeypatch.setattr(run.fake, "step", whole)
    assert ask(engine, TEXTS[0], max_new_tokens=4).result().completion_tokens > 0
    assert engine.is_ready
