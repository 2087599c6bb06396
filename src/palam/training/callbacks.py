"""What a run shows and writes while it goes: a progress bar and a JSON-lines log."""

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback


class JsonLog(TrainerCallback):
    """Appends every log entry of the trainer to a file, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start = time.time()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Write one entry."""
        entry = {
            "step": state.global_step,
            "seconds": round(time.time() - self.start, 2),
            **(logs or {}),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


class ProgressBar(TrainerCallback):
    """A bar with loss, validation loss, tokens per second and time left; whoever starts the run stops `bar`."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.bar = Progress(*columns, TimeRemainingColumn(), console=console)
        self.notes: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the bar."""
        self.item = self.bar.add_task(
            "", total=state.max_steps, completed=state.global_step, note=""
        )
        self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance."""
        self.bar.update(self.item, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the newest figures."""
        forms = {
            "loss": "loss {:.3f}",
            "eval_loss": "dev {:.3f}",
            "tokens_per_second": "{:.0f} tokens/s",
        }
        for name, form in forms.items():
            if name in (logs or {}):
                self.notes[name] = form.format(logs[name])
        if self.bar.tasks:
            self.bar.update(self.item, note="  ".join(self.notes.values()))
