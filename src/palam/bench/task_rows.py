"""What a recipe reads: the rows of a task, or of files, in every language."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import NamedTuple

from palam.bench.baselines.base import Rows
from palam.bench.recipe import Recipe
from palam.errors import PalamError
from palam.inference.evaluation import load_languages
from palam.tasks.loading import task_from_file
from palam.tasks.registry import get_task
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task
from palam.training.config import DataConfig
from palam.training.data import TrainingData
from palam.utils.languages import find_language, language_name


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
    if read.files:
        assert data.task is not None  # files are read by what was trained on a file
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
    if data.task is not None and data.task.family != task.family:
        raise PalamError(_other_family(task))
    reference = task.reference_language
    if reference and {find_language(code) for code in read.languages} == {find_language(reference)}:
        raise PalamError(
            f"{task.name} counts words that do not stand in the text itself; "
            f"give read.languages others than {language_name(reference)}"
        )
    rows = load_languages(task, read.split, read.languages, data_dir=config.data, limit=read.limit)
    return TaskRows(task, rows)


def _other_family(task: Task) -> str:
    """That a task is not read by what was trained on labels of another family."""
    if task.is_answered_in_words:
        return (
            f"a bridge that is trained on labels does not answer {task.name}: train it on raw text,"
            " with train.text_file"
        )
    return f"a recipe trains on a task of the family {task.family}, which {task.name} is of"


def data_hashes(data: TrainingData, rows: Rows) -> dict[str, str]:
    """Hashes by which results on other data are recognised.

    Args:
        data: the training and validation examples, `train` and `dev`, and labelled ones beside
            them. What files hold is not among it, see [`named_input_hashes`].
        rows: what is read, by language.
    """
    hashes = {"train": _hash(data.train), "dev": _hash(data.dev)}
    if data.labelled:
        hashes["labelled"] = _hash_lines(map(repr, data.labelled))
    for code, examples in rows.items():
        hashes[code] = _hash(examples)
    return hashes


def _hash(examples: Sequence[Example]) -> str:
    return _hash_lines(json.dumps(asdict(example), sort_keys=True) for example in examples)


def _hash_lines(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
    return digest.hexdigest()[:16]
