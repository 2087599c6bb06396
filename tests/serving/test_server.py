"""The server on a real socket: clients that hang up."""

import threading
import time

import httpx
import pytest

from palam.serving.bridges import ServedBridge
from palam.serving.limits import ServeLimits
from palam.serving.options import ServerOptions, is_loopback
from palam.serving.server import _Server, open_socket, run_server

ENDLESS = 1_000_000


@pytest.fixture
def address(tiny_model, monkeypatch):
    """Of a server whose one bridge never ends an answer by itself; it is stopped."""
    model = tiny_model(mode="prompt", prompt="{text}\nTopic:")
    monkeypatch.setattr(model, "stop_ids", list)
    servers = []
    honest = _Server.__init__

    def remember(server, *arguments):
        honest(server, *arguments)
        servers.append(server)

    monkeypatch.setattr(_Server, "__init__", remember)
    ready = threading.Event()
    addresses = []

    def on_ready(url):
        addresses.append(url)
        ready.set()

    limits = ServeLimits(max_new_tokens=ENDLESS, max_batch=2)
    with open_socket("127.0.0.1", 0) as listener:
        arguments = ([ServedBridge("a", model)], listener, limits, ServerOptions(), on_ready)
        thread = threading.Thread(target=run_server, args=arguments)
        thread.start()
        assert ready.wait(60)
        yield addresses[0]
        servers[0].should_exit = True
        thread.join(60)
    assert not thread.is_alive()


def running(address):
    lines = httpx.get(f"{address}/metrics", timeout=30).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("palam_running "))


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_place(address, stream):
    body = {"prompt": "Rice.", "stream": stream}
    with httpx.Client(timeout=2) as client:
        if stream:
            with client.stream("POST", f"{address}/v1/completions", json=body) as response:
                pieces = response.iter_bytes()  # once it is forgotten, the connection is closed
                next(pieces)
                assert running(address) == 1
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{address}/v1/completions", json=body)
    deadline = time.monotonic() + 10  # on a quiet machine it takes a step
    while running(address) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(address) == 0
    short = {"prompt": "Rice.", "max_tokens": 2}
    assert httpx.post(f"{address}/v1/completions", json=short, timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_which_addresses_others_do_not_reach(host, expected):
    assert is_loopback(host) is expected
