"""Progress: one bar for the whole package, and a line a minute where there is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LOG_INTERVAL = 60
"""Seconds between two lines of a log."""
FIRST_LINE_AFTER = 15
"""Seconds after which the first is printed: it is soon known whether it takes minutes or hours."""


class ProgressLog:
    """Progress as lines of a log, at most one a minute, the first after some seconds.

    Args:
        description: stands first, e.g. `"classifying"`.
        total: how much there is to do; None is not known.
        console: where to print.
        done: how much of it was done before.
    """

    def __init__(self, description: str, total: int | None, console: Console, done: int) -> None:
        self._description = description
        self._total = total
        self._console = console
        self._done_before = done
        self._done = done
        self._start = time.monotonic()
        self._next_line = self._start + FIRST_LINE_AFTER
        self._has_lines = False

    def advance(self, amount: int) -> None:
        """Count what has been done; print a line if the last one is a minute old."""
        self._done += amount
        now = time.monotonic()
        if now < self._next_line:
            return
        self._next_line = now + LOG_INTERVAL
        self._has_lines = True
        self._print(self._state(now - self._start))

    def finish(self) -> None:
        """Print how much has been done in which time, where there were lines before."""
        if self._has_lines:
            elapsed = time.monotonic() - self._start
            self._print(f"{self._done:,} done in {duration(elapsed)}")

    def _state(self, elapsed: float) -> str:
        """What is done, of how much, and the time left at the rate so far."""
        if not self._total:
            return f"{self._done:,} done in {duration(elapsed)}"
        percent = 100 * self._done // self._total
        state = f"{self._done:,} of {self._total:,} ({percent} %)"
        done_now = self._done - self._done_before
        num_left = self._total - self._done
        if done_now > 0 and num_left > 0:
            state += f", {duration(elapsed / done_now * num_left)} left"
        return state

    def _print(self, state: str) -> None:
        line = f"{self._description}: {state}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(20), duration(61), duration(9000)
    ('1 min', '2 min', '2 h 30 min')
    """
    minutes = max(1, -int(-seconds // 60))
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@contextmanager
def progress_bar(
    description: str,
    total: int | None = None,
    console: Console | None = None,
    *,
    done: int = 0,
) -> Iterator[Callable[[int], None]]:
    """Show what is done, the total and the time left, until the block ends.

    On a terminal this is a bar; elsewhere, as in a log file, a line a minute:
    `classifying: 1,024 of 20,000 (5 %), 41 min left`.

    Args:
        description: stands before the bar, e.g. `"classifying"`.
        total: how much there is to do; None is not known.
        console: where to draw; None is standard error.
        done: how much of the total was done before, by a run that is resumed.

    Yields:
        The function that advances the bar, by so much as it is called with.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        log = ProgressLog(description, total, console, done)
        yield log.advance
        log.finish()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=total, completed=done)

        def advance(amount: int) -> None:
            bar.advance(task, amount)

        yield advance
