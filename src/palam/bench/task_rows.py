"""What a recipe reads: the rows of a task, or of files, in every language."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

from palam.bench.baselines import Rows
from palam.bench.recipe import Recipe
from palam.errors import PalamError
from palam.inference.evaluation import load_languages
from palam.tasks.loading import task_from_file
from palam.tasks.registry import get_task
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task
from palam.training.config import DataConfig
from palam.training.data import TrainingData


class TaskRows(NamedTuple):
    """What is read."""

    task: Task
    rows: Rows
    """By language."""


def find_rows(recipe: Recipe, config: DataConfig, data: TrainingData) -> TaskRows:
    """Load what a recipe reads.

    Args:
        recipe: names it.
        config: of the training data: the data folder, and a file's columns.
        data: the training data, whose task has the labels.

    Raises:
        PalamError: a mistake in the data, or a task of another family than is trained on.
    """
    read = recipe.read
    assert data.task is not None  # a recipe trains on labelled data
    if read.files:
        rows: Rows = {}
        for code, path in read.files.items():
            _, examples = task_from_file(
                path,
                labels=data.task.labels,
                text_column=config.text_column,
                label_column=config.label_column,
            )
            rows[code] = sample(examples, read.limit)
        return TaskRows(data.task, rows)
    task = get_task(str(read.task))
    if task.reference_language:
        raise PalamError(
            f"a recipe compares right answers, and {task.name} has none: measure each bridge with "
            f"palam evaluate --task {task.name}"
        )
    if data.task.family != task.family:
        raise PalamError(
            f"a recipe trains on a task of the family {task.family}, which {task.name} is of"
        )
    rows = load_languages(task, read.split, read.languages, data_dir=config.data, limit=read.limit)
    return TaskRows(task, rows)


def data_hashes(data: TrainingData, rows: Rows) -> dict[str, str]:
    """Hashes by which results on other data are recognised.

    Args:
        data: the training and validation examples, `train` and `dev`.
        rows: what is read, by language.
    """
    hashes = {"train": _hash(data.train), "dev": _hash(data.dev)}
    for code, examples in rows.items():
        hashes[code] = _hash(examples)
    return hashes


def _hash(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(asdict(example), sort_keys=True).encode())
    return digest.hexdigest()[:16]
