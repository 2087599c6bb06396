"""A kind of work that kills its process at certain texts."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palam.scale.work import Labelling


@dataclass(frozen=True)
class KillingLabelling(Labelling):
    """Labels texts; `kill` ends the process, `kill once` the first of them that reads it."""

    marks: str = ""
    """A folder in which it is noted that a process has ended."""

    def on(self, model: Any) -> Any:
        return Killing(super().on(model), Path(self.marks))


class Killing:
    def __init__(self, reader, marks):
        self.reader = reader
        self.marks = marks
        self.labels = reader.labels
        self.repeats = reader.repeats

    def read(self, texts, languages, **options):
        mark = self.marks / "killed"
        if "kill" in texts or ("kill once" in texts and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.reader.read(texts, languages, **options)
