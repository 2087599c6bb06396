"""A bar on a terminal, a line a minute in a log."""

import io

import pytest
from rich.console import Console

from palam.utils import progress
from palam.utils.progress import duration, progress_bar


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on only when it is told to."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    fake = Clock()
    monkeypatch.setattr(progress, "time", fake)
    return fake


def log_lines(clock, steps, **settings):
    """The lines of a log, of steps with so many seconds and so much done."""
    file = io.StringIO()
    with progress_bar("classifying", console=Console(file=file, width=20), **settings) as advance:
        for seconds, amount in steps:
            clock.now += seconds
            advance(amount)
    return file.getvalue().splitlines()


def test_a_log_gets_a_line_a_minute_with_the_time_left(clock):
    lines = log_lines(clock, [(20, 64)] * 10, total=20_000)
    assert lines == [
        "classifying: 64 of 20,000 (0 %), 1 h 44 min left",
        "classifying: 256 of 20,000 (1 %), 1 h 43 min left",
        "classifying: 448 of 20,000 (2 %), 1 h 42 min left",
        "classifying: 640 of 20,000 (3 %), 1 h 41 min left",
        "classifying: 640 done in 4 min",
    ]


def test_short_work_prints_nothing(clock):
    assert log_lines(clock, [(1, 10)] * 11, total=110) == []


def test_without_a_total_the_log_says_what_is_done(clock):
    assert log_lines(clock, [(60, 1024)]) == [
        "classifying: 1,024 done in 1 min",
        "classifying: 1,024 done in 1 min",
    ]


def test_what_an_earlier_run_did_is_no_part_of_the_rate(clock):
    (line, _) = log_lines(clock, [(60, 100)], total=1000, done=800)
    assert line == "classifying: 900 of 1,000 (90 %), 1 min left"


def test_a_step_longer_than_a_minute_is_one_line(clock):
    lines = log_lines(clock, [(200, 1), (200, 1)], total=2)
    assert lines[:2] == ["classifying: 1 of 2 (50 %), 4 min left", "classifying: 2 of 2 (100 %)"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "1 min"), (60, "1 min"), (61, "2 min"), (3600, "1 h 0 min"), (9000, "2 h 30 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_a_terminal_shows_a_bar_that_is_gone_at_the_end():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80)
    with progress_bar("reading [1]", total=10, console=console, done=5) as advance:
        advance(5)
        console.print("a note")
    drawn = file.getvalue()
    assert "reading [1]" in drawn
    assert "10/10" in drawn
    assert "a note\n" in drawn
