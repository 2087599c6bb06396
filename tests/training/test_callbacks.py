"""What a run shows where there is no terminal: a line a minute."""

import io
from types import SimpleNamespace

from rich.console import Console

from palam.training.callbacks import ProgressBar
from palam.utils import progress


def test_a_log_has_a_line_a_minute_with_loss_and_time_left(monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    written = io.StringIO()
    bar = ProgressBar(Console(file=written, width=200))
    state = SimpleNamespace(max_steps=1500, global_step=0)
    bar.on_train_begin(None, state, None)
    for step in range(1, 301):
        now += 1.0
        state.global_step = step
        bar.on_step_end(None, state, None)
        if step % 50 == 0:
            bar.on_log(None, state, None, {"loss": 10 / step, "eval_loss": 0.5})
    bar.stop()
    lines = written.getvalue().splitlines()
    assert lines[:2] == [
        "training: step 15 of 1,500 (1 %), 25 min left",
        "training: step 75 of 1,500 (5 %), 24 min left, loss 0.200, dev 0.500",
    ]
    assert len(lines) == 5 + 1  # the first soon, then one a minute, and the end


def test_a_resumed_run_counts_its_own_steps_for_the_time_left(monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    written = io.StringIO()
    bar = ProgressBar(Console(file=written, width=200))
    state = SimpleNamespace(max_steps=200, global_step=100)
    bar.on_train_begin(None, state, None)
    now = 61.0
    bar.on_step_end(None, state, None)
    assert written.getvalue() == "training: step 101 of 200 (50 %), 1 h 41 min left\n"
