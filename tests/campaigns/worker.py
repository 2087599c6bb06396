"""A command in a process of its own, made quickly: forked from one that has imported everything."""

import io
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from forked import context

MAX_SECONDS = 20
"""Of the processor, not of the clock: other processes may be busy too."""
MAX_WAITING = 180
"""Seconds of the clock."""
STARTING_SECONDS = 40
"""The first process imports everything."""
FUSE_BYTES = 6e9
"""Of address space beside what the process began with: the machine is to survive a fault."""


class Overdue(BaseException):
    """The time is over; no `except` of the package catches it."""


class Outcome(NamedTuple):
    """What became of a command.

    Attributes:
        code: its exit code; None if it did not end by itself.
        out, err: what it wrote.
        failure: a traceback, or that it did not end.
        memory: bytes, at most, beside what the process began with.
        seconds: of the processor that it took.
        exitcode: of the process: 0, or minus the signal that ended it.
    """

    code: int | None = None
    out: str = ""
    err: str = ""
    failure: str = ""
    memory: int = 0
    seconds: float = 0.0
    exitcode: int | None = 0


def run_apart(arguments: list[Any], before: Callable[..., None] | None = None, *given) -> Outcome:
    """Run the command in a process of its own.

    Args:
        arguments: of the command.
        before: is called in the process first, with what is `given`; a function of a module.
        given: for it.
    """
    receiver, sender = context.Pipe(duplex=False)
    command = [str(argument) for argument in arguments]
    process = context.Process(target=_run, args=(sender, command, before, given))
    process.start()
    sender.close()
    outcome = Outcome(failure="it did not end", seconds=MAX_WAITING)
    try:
        if receiver.poll(MAX_WAITING + STARTING_SECONDS):
            outcome = receiver.recv()
        else:
            process.kill()
    except EOFError:  # it was killed
        outcome = Outcome(failure="it was killed")
    process.join()
    return outcome._replace(exitcode=process.exitcode)


def _run(
    sender: Connection, command: list[str], before: Callable[..., None] | None, given: tuple
) -> None:
    """In the new process: run the command, and send what became of it."""
    import torch

    from palam.cli.main import run

    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pages, resident_pages = map(int, Path("/proc/self/statm").read_text().split()[:2])
    limit = int(pages * resource.getpagesize() + FUSE_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.stdin = io.TextIOWrapper(io.BytesIO(b""))
    sys.stdout, sys.stderr = _captured(), _captured()
    code = None
    failure = ""
    began = time.process_time()
    signal.signal(signal.SIGALRM, _overdue)
    signal.alarm(MAX_WAITING)
    try:
        if before is not None:
            before(*given)
        code = run(command)
    except BaseException:
        failure = traceback.format_exc()
    signal.alarm(0)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = max(0, peak - resident_pages * resource.getpagesize())
    sender.send(Outcome(code, _text(sys.stdout), _text(sys.stderr), failure, memory, seconds))


def _overdue(*_: Any) -> None:
    raise Overdue


def _captured() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode("utf-8", "surrogateescape")
