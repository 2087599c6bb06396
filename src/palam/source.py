"""What a training run reads, found and checked before any model is loaded."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from palam.errors import PalamError
from palam.settings import TrainSettings
from palam.tasks import Task, balanced, get_task, native_language, read_texts, sample, task_from_file, train_and_dev


@dataclass
class Data:
    """What a run reads: a task's examples; without a task, raw texts to continue."""

    task: Task | None
    train: list[Any]
    dev: list[Any]
    language: str
    note: str  # on the validation data

    def texts(self, rows: Sequence[Any], mode: str) -> list[str]:
        """What the encoder reads of these rows."""
        return [self.task.render(row, mode) for row in rows] if self.task else list(rows)


def read_data(settings: TrainSettings) -> Data:
    """Load the training and validation data, before any model."""
    language = settings.language or "en"
    task: Task | None = None
    if settings.text is not None:
        lines = list(read_texts(settings.text))
        if len(lines) < 2:
            raise PalamError(f"{settings.text} holds fewer than two lines of text")
        held = max(1, min(len(lines) // 20, settings.dev_limit or len(lines)))
        train, dev, note = lines[:-held], lines[-held:], f"the last {held} of {len(lines)} lines"
        if settings.limit is not None and settings.limit < len(train):
            train = random.Random(settings.seed).sample(train, settings.limit)
        return Data(None, train, dev, language, note)
    if settings.file is not None:
        columns = {"text_column": settings.text_column, "label_column": settings.label_column}
        task, rows = task_from_file(settings.file, prompt=settings.prompt, **columns)
        dev_rows = sample(rows, max(1, len(rows) // 10), settings.seed)
        held_rows = {example.row for example in dev_rows}
        train_rows = [example for example in rows if example.row not in held_rows]
        note = f"held out of {settings.file.name}: {len(dev_rows)} of {len(rows)} rows"
    else:
        task = get_task(str(settings.task))
        language = native_language(task, language, data_dir=settings.data)
        train_rows, dev_rows, note = train_and_dev(task, data_dir=settings.data, seed=settings.seed, language=language)
    if not train_rows:
        raise PalamError("there is nothing to train on once validation rows are held out; give more rows")
    dev_rows = sample(dev_rows, settings.dev_limit, settings.seed)
    train_rows = sample(train_rows, settings.limit, settings.seed)
    if task.balance if settings.balance is None else settings.balance:
        train_rows = balanced(train_rows, settings.seed)
    return Data(task, train_rows, dev_rows, language, note)
