"""How the real server ends: all requests are told of it. Killed, it starts again as it was."""

import contextlib
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from server_process import CPU, ServerProcess

CHAT = "/v1/chat/completions"
LABELS = ["sports", "health", "travel"]
CLIENTS = 12
TOKENS = 150
LONG = {"messages": [{"role": "user", "content": "Rice."}], "max_tokens": TOKENS}
MANY = {"texts": ["Rice."] * 30, "labels": LABELS}


@pytest.fixture(scope="module")
def bridge(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "bridge"
    tiny_model(mode="prompt", prompt="{text}\nTopic:").save_pretrained(folder)
    return folder


@pytest.fixture
def start(bridge):
    """`start("--port", 0, ...)`: a server of the bridge; it is killed."""
    processes = []

    def serve(*options):
        process = ServerProcess("serve", bridge, *options, *CPU)
        processes.append(process)
        return process

    yield serve
    for process in processes:
        process.kill()


def streamed(server):
    """`whole`, the error's code, or `cut` for a stream that ends without either."""
    body = {**LONG, "stream": True}
    with httpx.stream("POST", server.url(CHAT), json=body, timeout=60) as reply:
        text = "".join(reply.iter_text())
    if reply.status_code != 200:
        return json.loads(text)["error"]["code"]
    if text.endswith("data: [DONE]\n\n"):
        return "whole"
    last = text.rstrip("\n").rpartition("\n\n")[2]
    content = json.loads(last.removeprefix("data: "))
    return content["error"]["code"] if "error" in content else "cut"


def posted(server, path, body):
    """`whole`, or the error's code."""
    reply = httpx.post(server.url(path), json=body, timeout=60)
    return "whole" if reply.status_code == 200 else reply.json()["error"]["code"]


def ends_of_requests(server, action, clients=CLIENTS):
    """How requests end of which some run and some wait when the server is told to end."""
    ways = [
        lambda: streamed(server),
        lambda: posted(server, CHAT, LONG),
        lambda: posted(server, "/v1/classify", MANY),
    ]
    with ThreadPoolExecutor(clients) as pool:
        answers = [pool.submit(ways[number % len(ways)]) for number in range(clients)]
        deadline = time.monotonic() + 60
        while server.metric("palam_running") + server.metric("palam_queue") < clients // 2:
            assert time.monotonic() < deadline
        action()
        return Counter(answer.result() for answer in answers)


def test_told_to_end_it_answers_all_that_it_has_accepted(start):
    server = start("--port", 0, "--max-new-tokens", TOKENS, "--batch-size", 3)
    ended = []
    ends = ends_of_requests(server, lambda: ended.append(server.end()))
    assert ends == {"whole": CLIENTS}
    (code, errors) = ended[0]
    assert code == 0
    assert "Traceback" not in errors
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url("/health"))


def test_what_does_not_end_in_time_is_told_so(start):
    server = start("--port", 0, "--max-new-tokens", TOKENS, "--batch-size", 1, "--timeout", 0.5)
    ended = []
    ends = ends_of_requests(server, lambda: ended.append(server.end()))
    assert ends.keys() <= {"whole", "timeout"}
    assert ends["timeout"] > 0
    assert ends.total() == CLIENTS
    assert ended[0][0] == 0


def test_killed_it_starts_again_as_it_was(start):
    first = start("--port", 0, "--max-new-tokens", TOKENS)
    body = {"texts": ["Rice."], "labels": LABELS}
    before = httpx.post(first.url("/v1/classify"), json=body).json()["data"]
    broken = threading.Event()

    def stream():
        with contextlib.suppress(httpx.TransportError):
            assert streamed(first) == "cut"
        broken.set()

    client = threading.Thread(target=stream)
    client.start()
    while not first.metric("palam_running"):
        assert client.is_alive()
    first.process.kill()
    client.join(60)
    assert broken.is_set()
    port = first.address.rpartition(":")[2]
    again = start("--port", port)
    assert again.address == first.address
    assert httpx.get(again.url("/ready")).json() == {"status": "ready"}
    (after,) = httpx.post(again.url("/v1/classify"), json=body).json()["data"]
    (answer,) = before
    assert after["label"] == answer["label"]
    # Which way of computing is the fastest is measured at each start; the ways round otherwise.
    for score, earlier in zip(after["scores"], answer["scores"], strict=True):
        assert score["log_probability"] == pytest.approx(earlier["log_probability"], abs=1e-3)
    assert again.end()[0] == 0
