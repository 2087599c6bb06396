"""What stands in front of every request: who may ask, how much, and what no reply lacks."""

import asyncio
import hmac
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palam.serving.errors import RequestError, server_error
from palam.serving.metrics import HttpMetrics
from palam.serving.replies import error_content

LOGGER = logging.getLogger("palam.serving")
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"})
"""What needs no key: it tells nothing of anyone."""
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""By these names alone a server without a key is asked: other sites' pages cannot use them."""
BODY_SECONDS = 30.0
"""How long a client may take to send a request."""
SAFE_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""What replies have unless they say otherwise."""


@dataclass(frozen=True, kw_only=True)
class GuardOptions:
    """Who may ask, and how much."""

    api_key: str | None = None
    """None: anyone who reaches the server."""
    allowed_hosts: Sequence[str] | None = LOOPBACK_HOSTS
    """The names by which it may be called; None is any."""
    max_body_bytes: int = 2_000_000
    """Most bytes of a request."""
    log_requests: bool = False
    """Log a line for each request, without anything that the client has sent."""


class Guard:
    """ASGI middleware around the whole application.

    A request is refused before its body is read where that can be known; no error leaves it but as
    a reply.

    Args:
        app: what it guards.
        options: see [`GuardOptions`].
        metrics: counts requests.
    """

    def __init__(self, app: ASGIApp, options: GuardOptions, metrics: HttpMetrics) -> None:
        self.app = app
        self.options = options
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.monotonic()
        reply = _Reply(send)
        try:
            self._check(scope)
            limited = _LimitedBody(receive, self.options.max_body_bytes)
            await self.app(scope, limited.receive, reply.send)
        except RequestError as error:
            await _send_error(error, scope, receive, reply)
        except Exception as error:
            # Not its message or its traceback, which may hold what the client has sent.
            LOGGER.error("a request failed: %s", type(error).__name__)
            await _send_error(_unexpected(), scope, receive, reply)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.monotonic() - begun
            self.metrics.request_done(route, reply.status, seconds)
            if self.options.log_requests:
                milliseconds = round(1000 * seconds)
                LOGGER.info("%s %s %s %d ms", scope["method"], route, reply.status, milliseconds)

    def _check(self, scope: Scope) -> None:
        """Refuse a request by its head.

        Raises:
            RequestError: a wrong host, no key, or a body that is too long.
        """
        headers = Headers(scope=scope)
        self._check_host(headers.get("host", ""))
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path not in OPEN_PATHS:
            self._check_key(headers.get("authorization", ""))
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise RequestError("the content-length is no number")
        if int(length[:20]) > self.options.max_body_bytes:
            raise _too_long(self.options.max_body_bytes)

    def _check_host(self, host: str) -> None:
        if self.options.allowed_hosts is None:
            return
        name = host.lower()
        if not name.endswith("]"):  # an address of version 6 without a port
            name = name.rpartition(":")[0] or name
        if name not in self.options.allowed_hosts:
            raise RequestError(
                "this server is not asked by that name; see --allowed-hosts",
                status=421,
                code="unknown_host",
            )

    def _check_key(self, authorization: str) -> None:
        if self.options.api_key is None:
            return
        scheme, _, key = authorization.partition(" ")
        expected = self.options.api_key.encode()
        given = key.strip().encode("latin-1", "replace")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, expected):
            raise RequestError(
                "give the server's key: Authorization: Bearer <key>",
                status=401,
                kind="authentication_error",
                code="invalid_api_key",
            )


class _LimitedBody:
    """Passes a request's body on, up to a length and a time."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._left = max_bytes
        self._max_bytes = max_bytes
        self._deadline = time.monotonic() + BODY_SECONDS
        self._is_whole = False

    async def receive(self) -> Message:
        """The next message of the client."""
        if self._is_whole:
            return await self._receive()
        seconds = max(0.0, self._deadline - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), seconds)
        except TimeoutError:
            raise HTTPException(408, "the request took too long to arrive") from None
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            self._is_whole = not message.get("more_body", False)
            if self._left < 0:
                # Of this class, since FastAPI makes others an error of parsing.
                raise HTTPException(413, str(_too_long(self._max_bytes)))
        return message


class _Reply:
    """Passes a reply on, with the headers that none lacks."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        """0 until it has begun."""

    async def send(self, message: Message) -> None:
        """Send a message to the client."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in SAFE_HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


async def _send_error(error: RequestError, scope: Scope, receive: Receive, reply: _Reply) -> None:
    if not reply.status:
        await error_response(error)(scope, receive, reply.send)


def error_response(error: RequestError) -> JSONResponse:
    """An error as a reply."""
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error_content(error), status_code=error.status, headers=headers)


def _too_long(most: int) -> RequestError:
    return RequestError(
        f"the request is longer than {most} bytes, the most that this server reads",
        status=413,
        code="request_too_large",
    )


def _unexpected() -> RequestError:
    return server_error("the server failed on this request", status=500, code="internal_error")
