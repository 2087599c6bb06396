"""A job of the engine, as a coroutine of the server sees it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import NamedTuple, TypeVar

from starlette.requests import Request

from palam.serving.engine import Engine
from palam.serving.errors import RequestError
from palam.serving.jobs import (
    Classified,
    Event,
    Failed,
    Finished,
    Job,
    LayersRead,
    Started,
    TextDelta,
)

Result = TypeVar("Result", Classified, LayersRead)
CLIENT_GONE = 499
"""The status of a request whose client has hung up; nobody reads it."""


class Answer(NamedTuple):
    """A whole answer."""

    text: str
    reason: str
    prompt_tokens: int
    completion_tokens: int
    cut_texts: int


class JobStream:
    """Submits a job, and gives its events to the coroutine that made it.

    Args:
        engine: that does the job.
        job: its `deliver` and `deadline` are set here.
        request: whose client may hang up; the job is then cancelled.

    Raises:
        RequestError: the engine does not take it.
    """

    def __init__(self, engine: Engine, job: Job, request: Request) -> None:
        self._engine = engine
        self._job = job
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._begun = time.monotonic()
        self._ended = False
        job.deliver = self._deliver
        job.deadline = self._begun + engine.limits.timeout
        engine.submit(job)
        self._watcher = asyncio.ensure_future(self._cancel_when_gone(request))

    def _deliver(self, event: Event) -> None:
        """Called in the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def _cancel_when_gone(self, request: Request) -> None:
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                self.cancel()
                gone = RequestError("the client has hung up", status=CLIENT_GONE)
                self._events.put_nowait(Failed(gone))
                return

    def cancel(self) -> None:
        """Give the job's place back."""
        self._job.cancel()

    def end(self) -> None:
        """Stop listening; a job that is not finished is cancelled."""
        if self._ended:
            return
        self._ended = True
        self.cancel()
        self._watcher.cancel()
        self._engine.finished(time.monotonic() - self._begun)

    # ------------------------------------------------------------------ what comes
    async def _next(self) -> Event:
        event = await self._events.get()
        if isinstance(event, Failed):
            raise event.error
        return event

    async def started(self) -> Started:
        """Wait until the prompt is accepted.

        Raises:
            RequestError: it is not.
        """
        try:
            event = await self._next()
        except BaseException:
            self.end()
            raise
        assert isinstance(event, Started)
        return event

    async def rest(self) -> AsyncIterator[TextDelta | Finished]:
        """What comes after the start: pieces of the answer, then its end.

        Raises:
            RequestError: the answer cannot be finished.
        """
        try:
            while True:
                event = await self._next()
                assert isinstance(event, TextDelta | Finished)
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            self.end()

    async def answer(self) -> Answer:
        """The whole answer.

        Raises:
            RequestError: it cannot be had.
        """
        started = await self.started()
        pieces = []
        async for event in self.rest():
            if isinstance(event, TextDelta):
                pieces.append(event.text)
            else:
                finished = event
        return Answer(
            "".join(pieces),
            finished.reason,
            started.prompt_tokens,
            finished.completion_tokens,
            started.cut_texts,
        )

    async def result(self, kind: type[Result]) -> Result:
        """The one event of a classification or a layer view.

        Args:
            kind: the event's class.

        Raises:
            RequestError: it cannot be had.
        """
        try:
            event = await self._next()
        finally:
            self.end()
        assert isinstance(event, kind)
        return event
