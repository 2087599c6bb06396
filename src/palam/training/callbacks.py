"""What a run shows and writes as it trains: a progress bar and a log of JSON lines."""

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from palam.utils.progress import ProgressLog

SHOWN_FIGURES = {
    "loss": "loss {:.3f}",
    "eval_loss": "dev {:.3f}",
    "tokens_per_second": "{:.0f} tokens/s",
}
"""What the bar shows of the log's entries, and in which form."""


class JsonLog(TrainerCallback):
    """Appends every log entry of the trainer to a file, one JSON object a line.

    Args:
        path: of the file. Its entries have the `step`, and the `seconds` since now.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start = time.time()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write one entry."""
        entry: dict[str, Any] = {
            "step": state.global_step,
            "seconds": round(time.time() - self.start, 2),
        }
        entry.update(logs or {})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


class StepLog(ProgressLog):
    """Progress as lines of a log, with the newest figures; see [`ProgressLog`].

    Attributes:
        figures: in words; empty before there are any.
    """

    figures = ""

    def _state(self, elapsed: float) -> str:
        parts = [f"step {super()._state(elapsed)}", self.figures]
        return ", ".join(part for part in parts if part)


class ProgressBar(TrainerCallback):
    """A bar with loss, validation loss, tokens per second and the time left.

    Where there is no terminal, as in a log file, it is a line a minute. It appears as training
    begins. Whoever starts the run calls `stop` at its end, also at an early one.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._log: StepLog | None = None
        self._figures: dict[str, str] = {}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Show the bar."""
        if not self._console.is_terminal:
            self._log = StepLog("training", state.max_steps, self._console, state.global_step)
            return
        self._task = self._bar.add_task(
            "", total=state.max_steps, completed=state.global_step, figures=""
        )
        self._bar.start()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Advance."""
        if self._log is not None:
            self._log.advance(1)
        else:
            self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the newest figures."""
        logs = logs or {}
        for name, form in SHOWN_FIGURES.items():
            if name in logs:
                self._figures[name] = form.format(logs[name])
        if self._log is not None:
            self._log.figures = ", ".join(self._figures.values())
        elif self._bar.tasks:
            self._bar.update(self._task, figures="  ".join(self._figures.values()))

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._log is not None:
            self._log.finish()
        elif self._bar.tasks:
            self._bar.stop()
