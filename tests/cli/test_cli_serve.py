"""`palam serve` and `palam demo`: the real process, its options, its end."""

import json
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from server_process import CPU, ServerProcess

LABELS = ["sports", "health"]
KEY = {"authorization": "Bearer s3cret"}


@pytest.fixture(scope="module")
def server(trained):
    options = ("--host", "0.0.0.0", "--port", 0, "--log-requests")
    process = ServerProcess("serve", trained, *options, *CPU, PALAM_API_KEY="s3cret")
    yield process
    process.kill()


def test_it_classifies_as_the_command_does(server, palam, trained, tmp_path):
    assert server.line.startswith("palam: ready on http://0.0.0.0:")
    texts = ["The match was won.", "මම ගෙදර යනවා."]
    source = tmp_path / "texts.txt"
    source.write_text("\n".join(texts), encoding="utf-8")
    result = palam("classify", trained, "--file", source, *CPU)
    rows = [json.loads(line) for line in result.out.splitlines()]
    reply = httpx.post(server.url("/v1/classify"), json={"texts": texts}, headers=KEY).json()
    for row, text in zip(rows, reply["data"], strict=True):
        scores = {score["label"]: score["log_probability"] for score in text["scores"]}
        assert scores == pytest.approx(row["scores"], abs=1e-4)
        assert text["label"] == row["prediction"]


def test_it_answers_as_the_command_does(server, palam, trained):
    text = "මම ගෙදර යනවා."
    result = palam("generate", trained, "--text", text, "--max-new-tokens", 8, *CPU)
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 8}
    reply = httpx.post(server.url("/v1/chat/completions"), json=body, headers=KEY).json()
    assert reply["choices"][0]["message"]["content"] == result.out.strip()


def test_others_need_the_key(server):
    assert httpx.get(server.url("/health")).status_code == 200
    assert httpx.get(server.url("/v1/models")).status_code == 401


def test_a_body_that_is_announced_too_long_is_not_read(server):
    host, _, port = server.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = [
            "POST /v1/classify HTTP/1.1",
            f"host: {server.address}",
            f"authorization: {KEY['authorization']}",
            "content-length: 99999999",
        ]
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_told_to_end_it_finishes_what_it_has_accepted(server):
    """Last of this server's tests."""
    body = {"texts": ["Rice."] * 20, "labels": LABELS}
    started = threading.Barrier(9)
    sent = threading.Semaphore(0)

    def trace(event, _):
        if event == "http11.send_request_body.complete":
            sent.release()

    def ask(_):
        started.wait()
        url = server.url("/v1/classify")
        with httpx.Client(timeout=60, headers=KEY) as client:
            return client.post(url, json=body, extensions={"trace": trace}).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, number) for number in range(8)]
        started.wait()
        while server.metric("palam_queue", headers=KEY) < 4:
            pass
        for _ in answers:
            sent.acquire(timeout=60)
        server.metric("palam_queue", headers=KEY)  # connected after all of them, and accepted
        code, errors = server.end()
        statuses = [answer.result() for answer in answers]
    assert statuses == [200] * 8
    assert code == 0
    assert "Traceback" not in errors
    assert "POST /v1/classify 200" in errors
    assert not {"Rice", "s3cret"} & set(errors.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--host", "0.0.0.0"), "can be reached by others"),
        (("--host", "example.org"), "can be reached by others"),
        (("--api-key", ""), "must be printable ASCII"),
        (("--api-key", "ක"), "must be printable ASCII"),
        (("--port", 99999), "cannot listen on"),
        (("--host", "127.0.0.300", "--api-key", "s3"), "cannot listen on"),
        (("--root-path", "palam"), "must begin with /"),
        (("--timeout", 0), "--timeout"),
    ],
)
def test_options_that_cannot_be_are_refused(refused, trained, monkeypatch, options, message):
    monkeypatch.delenv("PALAM_API_KEY", raising=False)
    assert message in refused("serve", trained, *options)


def test_a_taken_port_is_told_before_models_are_loaded(refused):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"127.0.0.1:{port}" in refused("serve", "no-such-bridge", "--port", port)


def test_a_bridge_that_is_none_is_refused(refused):
    assert "no-such-bridge" in refused("serve", "no-such-bridge", "--port", 0, *CPU)


def test_without_its_packages_it_says_what_is_needed(refused, trained, monkeypatch):
    monkeypatch.setattr("palam.cli._serving.NEEDED", ("no_such_package",))
    expected = 'serving needs no_such_package: pip install "palam[serve]"'
    assert refused("serve", trained) == refused("demo", trained) == expected


def test_the_demo_needs_a_bridge(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "run palam quickstart first" in refused("demo")


def test_the_demo_opens_the_page(palam, trained, monkeypatch):
    opened = []

    def open_page(address):
        opened.append(httpx.get(address).text)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(
        "webbrowser.open",
        lambda address: threading.Thread(target=open_page, args=[address]).start(),
    )
    result = palam("demo", trained, "--port", 0, *CPU)
    assert result.code == 130
    assert "the page is at http://127.0.0.1:" in result.out
    assert "<textarea" in opened[0]
