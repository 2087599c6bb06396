"""The HTTP interface: what clients send and get, limits, errors, and what no reply lacks."""

import json
import logging
import math
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
from helpers import task_of
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from palam import generate, score_labels
from palam.inference.layer_weights import LayerView
from palam.serving.api import create_app
from palam.serving.guard import GuardOptions
from palam.serving.metrics import PrometheusObserver
from palam.serving.options import ServerOptions
from palam.serving.server import guard_options

CHAT = "/v1/chat/completions"
COMPLETE = "/v1/completions"
CLASSIFY = "/v1/classify"
TEXT = "ගෙදර යනවා."
LABELS = ["sports", "health"]
OURS = "http://127.0.0.1"


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model(mode="prompt", prompt="{text}\nTopic:")


@pytest.fixture
def client(model, running):
    """`client(...)`: of a server with these limits and `guard`."""

    def build(*models, guard=None, address=OURS, root_path="", **limits):
        registry = CollectorRegistry()
        observer = PrometheusObserver(registry)
        engine = running(*(models or (model,)), observer=observer, **limits)
        app = create_app(engine, registry, guard, root_path=root_path)
        return TestClient(app, base_url=address, root_path=root_path)

    return build


def user(content):
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 6}


def sent(response):
    """The events of a stream, but for the last."""
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def error_of(response, status):
    assert response.status_code == status, response.text
    (error,) = response.json().values()
    assert error.keys() == {"message", "type", "param", "code"}
    return error


# ------------------------------------------------------------------ answers
def test_a_plain_message_is_answered_as_by_generate(client, model):
    reply = client().post(CHAT, json=user(TEXT)).json()
    (expected,) = generate(model, [TEXT], max_new_tokens=6)
    (choice,) = reply["choices"]
    assert choice["message"] == {"role": "assistant", "content": expected, "refusal": None}
    assert choice["finish_reason"] in ("stop", "length")
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert (reply["object"], reply["model"]) == ("chat.completion", "a")
    assert reply["palam"] == {"cut_texts": 0}


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        [{"type": "foreign_text", "text": TEXT}, {"type": "text", "text": "\nTopic:"}],
        [
            {"type": "foreign_text", "text": TEXT, "language": "si"},
            {"type": "text", "text": "\nTopic:"},
        ],
    ],
)
def test_streamed_whole_and_in_parts_it_is_the_same(client, model, content):
    body = user(content)
    asked = client()
    whole = asked.post(CHAT, json=body).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    first, *pieces, last, usage = sent(asked.post(CHAT, json={**body, **options}))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    streamed = "".join(piece["choices"][0]["delta"]["content"] for piece in pieces)
    assert streamed == whole["choices"][0]["message"]["content"]
    assert [streamed] == generate(model, [TEXT], max_new_tokens=6)
    assert last["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert len({piece["id"] for piece in (first, *pieces, last)}) == 1


def test_completions_whole_and_streamed(client, model):
    asked = client()
    body = {"prompt": TEXT, "max_tokens": 6, "model": "a"}
    whole = asked.post(COMPLETE, json=body).json()
    assert [whole["choices"][0]["text"]] == generate(model, [TEXT], max_new_tokens=6)
    *pieces, last = sent(asked.post(COMPLETE, json={**body, "prompt": [TEXT], "stream": True}))
    streamed = "".join(piece["choices"][0]["text"] for piece in pieces)
    assert streamed == whole["choices"][0]["text"]
    assert last["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_a_seed_gives_the_same_answer_again(client):
    asked = client()
    body = {**user(TEXT), "temperature": 1.5, "top_p": 0.95, "max_completion_tokens": 12}
    del body["max_tokens"]
    replies = [asked.post(CHAT, json={**body, "seed": seed}).json() for seed in (1, 1, 2)]
    texts = [reply["choices"][0]["message"]["content"] for reply in replies]
    assert texts[0] == texts[1] != texts[2]


def test_an_answer_is_guided_as_is_asked_for(client, model):
    asked = client()
    answers = set()
    for scale in (1.0, 3.0):
        reply = asked.post(CHAT, json={**user(TEXT), "guidance_scale": scale}).json()
        answer = reply["choices"][0]["message"]["content"]
        assert [answer] == generate(model, [TEXT], max_new_tokens=6, guidance_scale=scale)
        answers.add(answer)
    assert len(answers) == 2


def test_the_best_of_several_answers_is_given_whole(client, model):
    asked = client()
    body = {"prompt": "Rice.", "max_tokens": 6, "guidance_scale": 1.0, "best_of": 4}
    answer = asked.post("/v1/completions", json=body).json()
    [expected] = generate(model, ["Rice."], max_new_tokens=6, best_of=4)
    assert answer["choices"][0]["text"] == expected
    refused = asked.post("/v1/completions", json={**body, "stream": True})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "best_of")


def test_guidance_without_a_text_is_refused(client):
    asked = client()
    body = user([{"type": "text", "text": "Say it."}])
    assert asked.post(CHAT, json=body).status_code == 200
    error = error_of(asked.post(CHAT, json={**body, "guidance_scale": 2}), 400)
    assert error["param"] == "guidance_scale"
    assert "a text that is read through the bridge, and a prompt" in error["message"]


def test_stop_strings_of_both_forms(client):
    asked = client()
    whole = asked.post(CHAT, json=user(TEXT)).json()["choices"][0]["message"]["content"]
    for stop in (whole[1], ["zzz", whole[1]]):
        choice = asked.post(CHAT, json={**user(TEXT), "stop": stop}).json()["choices"][0]
        assert choice["message"]["content"] == whole[: whole.index(whole[1])].rstrip()
        assert choice["finish_reason"] == "stop"


NEUTRAL = {
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "logit_bias": {},
    "logprobs": False,
    "tools": [],
    "response_format": {"type": "text"},
    "user": "someone",
    "temperature": None,
    "stop": None,
    "stream": False,
}


def test_settings_that_change_nothing_are_accepted(client):
    asked = client()
    plain = asked.post(CHAT, json=user(TEXT)).json()["choices"]
    assert asked.post(CHAT, json={**user(TEXT), **NEUTRAL}).json()["choices"] == plain


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 5e-324),
        ("temperature", 1e-310),
        ("temperature", 2.0),
        ("top_p", 5e-324),
        ("guidance_scale", 1.0),
        ("guidance_scale", 100.0),
        ("seed", 2**63 - 1),
        ("seed", 1 - 2**63),
        ("seed", 0),
    ],
)
def test_the_least_and_the_greatest_numbers_are_answered(client, name, value):
    body = {**user(TEXT), "temperature": 1.0, name: value}
    assert client().post(CHAT, json=body).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("n", True),
        ("logprobs", True),
        ("tools", [{"type": "function"}]),
        ("presence_penalty", 0.5),
        ("response_format", {"type": "json_object"}),
        ("top_k", 5),
        ("temperature", -1),
        ("temperature", "0"),
        ("top_p", 0),
        ("guidance_scale", 0.5),
        ("guidance_scale", 101),
        ("seed", 2**70),
        ("seed", True),
        ("max_tokens", 0),
        ("max_tokens", 10**6),
        ("max_tokens", 10**400),
        ("n", 10**400),
        ("logprobs", 10**400),
        ("presence_penalty", 1e308),
        ("logit_bias", {"1": 1e308}),
        ("stop", ["a"] * 5),
        ("stream", "yes"),
    ],
)
def test_what_is_not_supported_is_refused(client, name, value):
    error = error_of(client().post(CHAT, json={**user(TEXT), name: value}), 400)
    assert error["param"].startswith(name)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user"}],
        [{"role": "tool", "content": TEXT}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
        [{"role": "user", "content": [{"text": TEXT}]}],
        [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "yes"}],
        [{"role": "user", "content": [{"type": "foreign_text", "text": "a", "language": "zz"}]}],
        [{"role": "user", "content": TEXT}] * 300,
        "no list",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_messages_that_cannot_be_read_are_refused(client, messages, stream):
    error_of(client().post(CHAT, json={"messages": messages, "stream": stream}), 400)


# ------------------------------------------------------------------ classification
def test_labels_are_those_of_score_labels(client, model):
    body = {"texts": [TEXT, "Rice."], "labels": LABELS, "languages": ["si", None]}
    reply = client().post(CLASSIFY, json=body).json()
    expected = score_labels(model, body["texts"], LABELS)
    for row, text in zip(expected.tolist(), reply["data"], strict=True):
        scores = text["scores"]
        assert [score["label"] for score in scores] == LABELS
        assert [score["log_probability"] for score in scores] == pytest.approx(row, abs=1e-4)
        assert math.fsum(score["probability"] for score in scores) == pytest.approx(1)
        assert text["label"] == LABELS[row.index(max(row))]


def test_the_bridges_own_labels_are_taken(client, tiny_model):
    trained = tiny_model(mode="prompt", prompt="{text}\nTopic:")
    asked = client(trained)
    assert error_of(asked.post(CLASSIFY, json={"texts": [TEXT]}), 400)["param"] == "labels"
    trained.bridge.config.task = task_of({"s": "sports", "h": "health"})
    scores = asked.post(CLASSIFY, json={"texts": [TEXT]}).json()["data"][0]["scores"]
    expected = score_labels(trained, [TEXT], ["sports", "health"])[0].tolist()
    assert [score["label"] for score in scores] == ["s", "h"]
    assert [score["log_probability"] for score in scores] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"texts": []}, "texts"),
        ({"texts": TEXT}, "texts"),
        ({"texts": [None]}, "texts.0"),
        ({"texts": ["a"] * 300}, "texts"),
        ({"labels": ["a"]}, "labels"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"labels": ["a", ""]}, "labels"),
        ({"labels": ["a", "b" * 2000]}, "labels"),
        ({"labels": [f"{number}" for number in range(300)]}, "labels"),
        ({"languages": ["si", "si"]}, "languages"),
        ({"languages": ["si"], "language": "si"}, "languages"),
        ({"language": "zz"}, "language"),
        ({"more": 1}, "more"),
    ],
)
def test_classifications_that_cannot_be_made_are_refused(client, change, param):
    body = {"texts": [TEXT], "labels": LABELS, **change}
    assert error_of(client().post(CLASSIFY, json=body), 400)["param"] == param


def test_requests_at_the_same_time_get_their_own_answers(client, model):
    asked = client()
    texts = [f"{word} {number}." for number, word in enumerate(tiny.TEXT["en"].split()[:12])]

    def ask(text):
        labels = asked.post(CLASSIFY, json={"texts": [text], "labels": LABELS}).json()
        answer = asked.post(CHAT, json=user(text)).json()
        return labels["data"][0]["scores"], answer["choices"][0]["message"]["content"]

    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(ask, texts))
    expected = generate(model, texts, max_new_tokens=6)
    assert [answer for _, answer in results] == expected
    for (scores, _), row in zip(results, score_labels(model, texts, LABELS), strict=True):
        actual = [score["log_probability"] for score in scores]
        assert actual == pytest.approx(row.tolist(), abs=1e-4)


def test_layers_are_those_of_the_layer_view(client, tiny_model):
    trained = tiny_model(fusion="mean", max_length=16)
    asked = client(trained)
    reply = asked.post("/v1/layers", json={"text": TEXT}).json()
    view = LayerView.of(trained, TEXT)
    assert (reply["tokens"], reply["cut"]) == (view.tokens, False)
    for row, expected in zip(reply["shares"], view.shares.tolist(), strict=True):
        assert row == pytest.approx(expected)
    assert asked.post("/v1/layers", json={"text": TEXT * 20}).json()["cut"]
    error_of(asked.post("/v1/layers", json={"text": TEXT, "language": "zz"}), 400)
    trained.config.task = task_of({}, "Read: {article}")
    formed = asked.post("/v1/layers", json={"text": TEXT}).json()
    assert formed["tokens"] == LayerView.of(trained, f"Read: {TEXT}").tokens != view.tokens
    trained.bridge.config.llm_only = True
    error_of(asked.post("/v1/layers", json={"text": TEXT}), 400)


# ------------------------------------------------------------------ limits
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nope",
        b"[" * 100_000,
        b'{"texts": ' + b"[" * 900 + b"]" * 900 + b"}",
        b"\xff\xfe",
        b"1" * 5000,
        b'"text"',
        b'{"prompt": "a", "messages": [], "texts": ["a"], "temperature": 1e400, "n": 1e400}',
        b'{"texts": ["\\ud800"], "labels": ["a", "b"]}',
        b'{"texts": ["a\\u0000"], "labels": ["a", "b"]}',
        b'{"texts": ["a"], "labels": ["a", "\\udc00"]}',
        b'{"texts": ["a"], "labels": ["a", "b"], "model": 3}',
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETE, CLASSIFY])
def test_bodies_that_are_no_request_are_refused(client, raw, path):
    headers = {"content-type": "application/json"}
    asked = client()
    error_of(asked.post(path, content=raw, headers=headers), 400)
    assert asked.get("/health").json() == {"status": "alive"}


@pytest.mark.parametrize("path", [CHAT, COMPLETE, CLASSIFY])
def test_unpaired_surrogates_are_refused(client, path):
    body = {
        CHAT: {"messages": [{"role": "user", "content": "@"}]},
        COMPLETE: {"prompt": "@"},
        CLASSIFY: {"texts": ["@"], "labels": LABELS},
    }[path]
    raw = json.dumps(body).replace("@", r"\ud83d")
    headers = {"content-type": "application/json"}
    error = error_of(client().post(path, content=raw, headers=headers), 400)
    assert "surrogate" in error["message"]


def test_not_a_number_is_refused(client):
    raw = json.dumps({**user(TEXT), "temperature": math.nan})
    headers = {"content-type": "application/json"}
    assert error_of(client().post(CHAT, content=raw, headers=headers), 400)


def test_a_body_over_the_limit_is_refused_unread(client):
    guard = GuardOptions(max_body_bytes=1000)
    asked = client(guard=guard)

    def chunks():
        for _ in range(5):
            yield b"x" * 400

    error_of(asked.post(CLASSIFY, content=b"x" * 1001), 413)
    error_of(asked.post(CLASSIFY, content=chunks()), 413)
    error_of(asked.post(CLASSIFY, content=b"x", headers={"content-length": "-1"}), 400)
    error_of(asked.post(CLASSIFY, content=b"x", headers={"content-length": "9" * 400}), 413)


def test_a_text_over_the_limit_is_refused_before_it_is_tokenised(client, model, monkeypatch):
    asked = client(max_text_tokens=50)
    monkeypatch.setattr(model.processor, "features", lambda *_, **__: 1 / 0)
    long = "a" * 801
    error = error_of(asked.post(CHAT, json=user(long)), 400)
    assert error["code"] == "context_length_exceeded"
    error_of(asked.post(CLASSIFY, json={"texts": [long], "labels": LABELS}), 400)
    error_of(asked.post(CLASSIFY, json={"texts": ["a"], "labels": ["b", long]}), 400)


def test_a_text_that_is_cut_is_told(client, tiny_model):
    asked = client(tiny_model(mode="prompt", prompt="{text}\nTopic:", max_length=16))
    texts = ["Rice.", "The quick brown fox. " * 20]
    assert [asked.post(CHAT, json=user(text)).json()["palam"]["cut_texts"] for text in texts] == [
        0,
        1,
    ]
    data = asked.post(CLASSIFY, json={"texts": texts, "labels": LABELS}).json()["data"]
    assert [text["cut"] for text in data] == [False, True]


def test_a_full_queue_says_when_to_come_back(client, monkeypatch):
    response = client(max_queue=0).post(CHAT, json=user(TEXT))
    assert error_of(response, 429)["code"] == "queue_full"
    assert int(response.headers["retry-after"]) >= 1


def test_a_request_that_takes_too_long_is_told_so(client):
    assert error_of(client(timeout=0.0).post(CHAT, json=user(TEXT)), 504)["code"] == "timeout"


# ------------------------------------------------------------------ who may ask
def test_a_key_is_needed_for_all_but_the_pages_and_probes(client):
    asked = client(guard=GuardOptions(api_key="s3cret-key", allowed_hosts=None))
    for path in ("/", "/docs", "/openapi.json", "/health", "/ready"):
        assert asked.get(path).status_code == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret-key"}):
        for path in ("/v1/models", "/metrics", "/nowhere"):
            error = error_of(asked.get(path, headers=headers), 401)
            assert error["code"] == "invalid_api_key"
        error_of(asked.post(CHAT, json=user(TEXT), headers=headers), 401)
    asked.headers["authorization"] = "Bearer s3cret-key"
    assert asked.get("/v1/models").status_code == 200
    assert asked.post(CHAT, json=user(TEXT)).status_code == 200


@pytest.mark.parametrize("address", ["http://evil.example", "http://127.0.0.1.evil.example:8000"])
def test_without_a_key_the_server_answers_to_its_own_names_alone(client, address):
    error_of(client(address=address).get("/v1/models"), 421)


@pytest.mark.parametrize("address", ["http://localhost:8000", "http://[::1]:8000", "http://[::1]"])
def test_its_own_names(client, address):
    assert client(address=address).get("/v1/models").status_code == 200


def test_other_names_can_be_allowed(client):
    options = ServerOptions(allowed_hosts=["Palam.Example"])
    guard = guard_options(options, client().app.state.service.limits)
    assert client(guard=guard, address="https://palam.example").get("/ready").status_code == 200


def test_there_is_no_cross_origin_access(client):
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    response = client().options(CLASSIFY, headers=headers)
    assert response.status_code == 405
    assert "access-control-allow-origin" not in response.headers
    form = client().post(CLASSIFY, content=b"{}", headers={"content-type": "text/plain"})
    assert "application/json" in error_of(form, 400)["message"]


# ------------------------------------------------------------------ what else it tells
def test_models_are_listed_without_the_paths_of_this_machine(client, tiny_model, base_folder):
    asked = client(tiny_model(), tiny_model(fusion="mean"))
    listed = asked.get("/v1/models")
    assert [model["id"] for model in listed.json()["data"]] == ["a", "b"]
    assert str(base_folder("bert").parent) not in listed.text
    assert asked.get("/v1/models/b").json()["id"] == "b"
    assert error_of(asked.get("/v1/models/c"), 404)["code"] == "model_not_found"
    assert error_of(asked.post(CHAT, json=user(TEXT)), 400)["param"] == "model"
    assert asked.post(CHAT, json={**user(TEXT), "model": "b"}).status_code == 200
    assert error_of(asked.post(CHAT, json={**user(TEXT), "model": "c"}), 404)["param"] == "model"


def test_metrics_count_requests_batches_and_tokens(client):
    asked = client()
    asked.post(CHAT, json=user(TEXT))
    asked.post(CLASSIFY, json={"texts": [TEXT], "labels": LABELS})
    asked.get("/nowhere/secret")
    text = asked.get("/metrics").text
    assert f'palam_requests_total{{route="{CHAT}",status="200"}} 1.0' in text
    assert 'palam_batch_size_count{kind="classify"} 1.0' in text
    assert re.search(r'palam_tokens_total\{kind="completion"\} [1-9]', text)
    assert "palam_request_seconds_bucket" in text
    assert "palam_queue 0.0" in text
    assert "secret" not in text


def test_ready_is_not_said_after_the_end(client):
    asked = client()
    assert asked.get("/ready").json() == {"status": "ready"}
    asked.app.state.service.engine.close()
    assert error_of(asked.get("/ready"), 503)["code"] == "not_ready"
    assert error_of(asked.post(CHAT, json=user(TEXT)), 503)["code"] == "shutting_down"


def test_other_paths_and_methods_have_the_same_form_of_error(client):
    asked = client()
    error_of(asked.get("/nowhere"), 404)
    error_of(asked.get(CHAT), 405)


def test_an_unexpected_error_tells_nothing(client, monkeypatch, caplog):
    asked = client()
    secret = "the client's own text"

    def fail(name):
        raise ValueError(secret)

    monkeypatch.setattr(asked.app.state.service, "bridge", fail)
    response = asked.post(CHAT, json=user(TEXT))
    assert error_of(response, 500)["code"] == "internal_error"
    assert secret not in response.text + caplog.text
    assert "ValueError" in caplog.text


def test_logs_hold_neither_texts_nor_keys(client, caplog):
    caplog.set_level(logging.DEBUG)
    guard = GuardOptions(api_key="s3cret-key", allowed_hosts=None, log_requests=True)
    asked = client(guard=guard)
    asked.headers["authorization"] = "Bearer s3cret-key"
    asked.post(CHAT, json=user("kapuruka"))
    asked.post(CHAT, json=user(["kapuruka"]))
    asked.get("/v1/models/kapuruka?kapuruka=1")
    own = [record.getMessage() for record in caplog.records if record.name.startswith("palam")]
    assert [re.sub(r"\d+ ms", "N ms", line) for line in own] == [
        f"POST {CHAT} 200 N ms",
        f"POST {CHAT} 400 N ms",
        "GET /v1/models/{name} 404 N ms",
    ]


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/v1/models", "/nowhere"])
def test_no_reply_lacks_its_headers(client, path):
    headers = client().get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in re.sub(r"style-src [^;]*", "", headers["content-security-policy"])
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


# ------------------------------------------------------------------ pages
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere(client, path):
    page = client().get(path).text
    assert not re.findall(r"(?:src|href|action)=\"(?!#|/)[^\"]*", page)
    assert "@import" not in page
    assert "url(" not in page
    assert 'style="' not in page


def test_the_pages_script_has_a_new_nonce_each_time(client):
    asked = client()
    responses = [asked.get("/") for _ in range(2)]
    nonces = [re.search(r'<script nonce="([^"]+)">', page.text)[1] for page in responses]
    assert nonces[0] != nonces[1]
    for page, nonce in zip(responses, nonces, strict=True):
        assert f"script-src 'nonce-{nonce}'" in page.headers["content-security-policy"]


def test_the_page_escapes_what_a_bridge_says(client, tiny_model):
    model = tiny_model()
    model.bridge.config.task = task_of({"</script><b>": "a", "\"'": "b"})
    page = client(model).get("/").text
    assert "<b>" not in page
    bridges = re.search(r'data-bridges="([^"]*)"', page)[1]
    assert "&lt;/script&gt;&lt;b&gt;" in bridges


def test_the_page_has_examples_in_several_scripts(client):
    page = client().get("/").text
    texts = re.findall(r'data-text="([^"]+)"', page)
    assert len(texts) == len(set(texts)) >= 6
    assert page.count('dir="auto"') >= 3


def test_pages_know_the_proxys_path(client):
    asked = client(root_path="/palam")
    assert 'data-root="/palam"' in asked.get("/").text
    assert 'href="/palam/openapi.json"' in asked.get("/docs").text


def test_the_reference_names_every_path_and_field(client):
    asked = client()
    page = asked.get("/docs").text
    schema = asked.get("/openapi.json").json()
    for path in (CHAT, COMPLETE, CLASSIFY, "/v1/models", "/ready"):
        assert path in schema["paths"]
        assert f"<code>{path}</code>" in page
    for name in ("foreign_text", "max_completion_tokens", "log_probability"):
        assert name in page
