"""The process: a socket, the models, the server, and an orderly end."""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from palam.errors import PalamError
from palam.serving.api import create_app
from palam.serving.bridges import ServedBridge
from palam.serving.engine import Engine
from palam.serving.guard import LOOPBACK_HOSTS, GuardOptions
from palam.serving.limits import ServeLimits
from palam.serving.metrics import PrometheusObserver
from palam.serving.options import ServerOptions

SECONDS_TO_TELL = 5
"""Beside a request's own time, how long a stopping server waits for its reply to be sent."""
KEEP_ALIVE_SECONDS = 15


def guard_options(options: ServerOptions, limits: ServeLimits) -> GuardOptions:
    """Who may ask a server, and how much."""
    hosts = tuple(host.lower() for host in options.allowed_hosts or ())
    anyone = options.api_key is not None and not hosts
    return GuardOptions(
        api_key=options.api_key,
        allowed_hosts=None if anyone else (*LOOPBACK_HOSTS, *hosts),
        max_body_bytes=limits.max_body_bytes,
        log_requests=options.log_requests,
    )


def open_socket(host: str, port: int) -> socket.socket:
    """A bound socket.

    Raises:
        PalamError: the address is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise PalamError(f"cannot listen on {host}:{port}: {reason}") from None
    return listener


class _Server(uvicorn.Server):
    """Says when it takes requests, and whether Ctrl-C has ended it."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self.is_interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end, on a signal."""
        if sig == signal.SIGINT:
            self.is_interrupted = True
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def run_server(
    bridges: Sequence[ServedBridge],
    listener: socket.socket,
    limits: ServeLimits,
    options: ServerOptions,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until the process is told to stop; what was accepted is finished first.

    Args:
        bridges: that can be asked.
        listener: of [`open_socket`].
        limits, options: of the server.
        on_ready: called with the server's address when it takes requests.

    Raises:
        KeyboardInterrupt: Ctrl-C has ended it.
    """
    registry = CollectorRegistry()
    engine = Engine(bridges, limits, PrometheusObserver(registry))
    root_path = options.root_path.rstrip("/")
    app: FastAPI = create_app(engine, registry, guard_options(options, limits), root_path=root_path)
    config = uvicorn.Config(
        app,
        root_path=root_path,
        log_config=None,
        log_level="warning",
        access_log=False,  # its lines are those of the guard, which hold no query
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=round(limits.timeout) + SECONDS_TO_TELL,
    )
    address = _address(listener)
    server = _Server(config, lambda: on_ready(address))
    engine.warm_up()
    engine.start()
    try:
        with _sigterm_is_done():
            server.run(sockets=[listener])
    finally:
        engine.close()
    if server.is_interrupted:  # whether asyncio tells it depends on when the signal came
        raise KeyboardInterrupt


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


@contextlib.contextmanager
def _sigterm_is_done() -> Iterator[None]:
    """Ignore the SIGTERM that the server has obeyed, and then sends to what was there before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
