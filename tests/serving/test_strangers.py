"""Requests of many clients at once: each gets its own answer, whatever becomes of the others."""

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import tiny
import torch
from server_process import CPU, ServerProcess
from serving_clients import Client, ask, classify

from palam import generate, score_labels
from palam.inference.layer_weights import LayerView
from palam.serving.errors import RequestError
from palam.serving.jobs import LayersJob

PROMPT = {"mode": "prompt", "prompt": "{text}\nTopic:"}
LABELS = (["sports", "health"], ["travel", "a long label of words", "sports"])
LANGUAGES = (None, "eng_Latn", "sin_Sinh", "tam_Taml")
WORDS = [word for text in tiny.TEXT.values() for word in text.split()]
REQUESTS = 40
FAILING = 0.08
"""How many passes of the LLM fail."""


class Crowd:
    """Draws requests to two bridges, and knows what each is answered alone."""

    def __init__(self, models, seed):
        self.models = models
        self.drawn = random.Random(seed)
        self.made = 0

    def text(self):
        self.made += 1
        words = self.drawn.choices(WORDS, k=self.drawn.choice([0, 1, 3, 12]))
        return f"{self.made} {' '.join(words)}"

    def request(self):
        """A function that submits a request, and one that says whether a result is right."""
        kind = self.drawn.choice([self.answer, self.answer, self.labels, self.layers])
        bridge = self.drawn.choice("ab")
        return kind(bridge, self.models["ab".index(bridge)], self.drawn.choice(LANGUAGES))

    def answer(self, bridge, model, language):
        text = self.text()
        length = self.drawn.randint(1, 12)
        (expected,) = generate(model, [text], [language], max_new_tokens=length)

        def submit(engine):
            return ask(engine, text, bridge, max_new_tokens=length, language=language)

        return submit, lambda result: result.text == expected

    def labels(self, bridge, model, language):
        texts = [self.text() for _ in range(self.drawn.randint(1, 5))]
        languages = [language] * len(texts)
        labels = self.drawn.choice(LABELS)
        expected = score_labels(model, texts, labels, languages)

        def submit(engine):
            return classify(engine, texts, labels, bridge, languages)

        return submit, lambda result: torch.allclose(
            torch.tensor(result.scores), expected, atol=1e-4
        )

    def layers(self, bridge, model, language):
        text = self.text()
        expected = LayerView.of(model, text, language).tokens

        def submit(engine):
            job = LayersJob(bridge=bridge, deliver=print, text=text, language=language)
            return Client(engine, job)

        return submit, lambda result: result.tokens == expected


def two_bridges(tiny_model):
    models = [tiny_model("nllb", **PROMPT), tiny_model("nllb", fusion="mean", **PROMPT)]
    models[1].llm = models[0].llm
    return models


def fail_now_and_then(monkeypatch, models, seed):
    """Of the LLM's passes some fail, of memory or otherwise, after they have been made."""
    drawn = random.Random(seed)
    errors = (torch.OutOfMemoryError("out of memory"), RuntimeError("broken"))
    for model in models:
        honest = model.run_llm

        def run_llm(*arguments, honest=honest, **options):
            output = honest(*arguments, **options)
            if drawn.random() < FAILING:
                raise drawn.choice(errors)
            return output

        monkeypatch.setattr(model, "run_llm", run_llm)


def wait_until_free(taken):
    """Wait until no places are taken; the last ones are given back just after their answers."""
    deadline = time.monotonic() + 10
    while taken():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("failing", [False, True])
def test_each_gets_its_own_among_cancelled_and_failed_ones(
    tiny_model, running, monkeypatch, seed, failing
):
    models = two_bridges(tiny_model)
    crowd = Crowd(models, seed)
    requests = [crowd.request() for _ in range(REQUESTS)]
    engine = running(*models, max_batch=6, batch_tokens=300)
    if failing:
        fail_now_and_then(monkeypatch, models, seed)
    ends = Counter()
    clients = []
    for submit, is_right in requests:
        client = submit(engine)
        clients.append((client, is_right))
        if crowd.drawn.random() < 0.2:
            crowd.drawn.choice(clients)[0].job.cancel()
        if crowd.drawn.random() < 0.3:
            time.sleep(0.003)
    for client, is_right in clients:
        if client.job.is_cancelled:
            continue
        result = client.result()
        if isinstance(result, RequestError):
            assert result.status in (500, 503)
            ends["failed"] += 1
        else:
            assert is_right(result)
            ends["right"] += 1
    assert ends["right"] > REQUESTS / 4
    assert bool(ends["failed"]) is failing
    wait_until_free(lambda: engine.num_waiting + engine.num_running)
    monkeypatch.undo()
    for submit, is_right in requests:
        assert is_right(submit(engine).result())


# ------------------------------------------------------------------ over HTTP
@pytest.fixture(scope="module")
def server(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "bridge"
    tiny_model(**PROMPT).save_pretrained(folder)
    process = ServerProcess("serve", folder, "--port", 0, *CPU)
    yield process
    process.kill()


def test_clients_that_hang_up_or_err_cost_the_others_nothing(server):
    url = server.url("/v1/completions")

    def answer(text):
        reply = httpx.post(url, json={"prompt": text, "max_tokens": 24}, timeout=60)
        return reply.json()["choices"][0]["text"]

    def hang_up(text):
        body = {"prompt": text, "max_tokens": 200, "stream": True}
        with httpx.stream("POST", url, json=body, timeout=60) as reply:
            next(reply.iter_text())

    def err(text):
        assert httpx.post(url, json={"prompt": text, "top_k": 1}, timeout=60).status_code == 400

    texts = [f"{number} {word}" for number, word in enumerate(WORDS[:30])]
    alone = {text: answer(text) for text in texts}
    assert len(set(alone.values())) > 10
    ways = (answer, hang_up, err)
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(ways[number % 3], text) for number, text in enumerate(texts)]
        asked += [pool.submit(answer, text) for text in texts]
        results = [each.result() for each in asked]
    for text, result in zip([*texts, *texts], results, strict=True):
        assert result in (None, alone[text])
    wait_until_free(lambda: server.metric("palam_running") + server.metric("palam_queue"))
