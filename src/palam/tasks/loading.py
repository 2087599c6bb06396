"""Loading labelled examples: from a data folder, this package, the hub, or a user's own file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from palam.errors import PalamError
from palam.tasks.examples import examples_from_rows
from palam.tasks.folder import (
    SPLIT_NAMES,
    DataDir,
    data_root,
    find_folder,
    is_hub_copy,
    split_files,
)
from palam.tasks.hub import load_hub_rows
from palam.tasks.readers import NumberedRow, numbered_rows, shortened
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task, slots
from palam.utils.languages import language_name, resolve_language


def load_split(task: Task, split: str, language: str, *, data_dir: DataDir = None) -> list[Example]:
    """The examples of one split in one language, in the file's order.

    Read from `<data_dir>/<task>/<split>.<language>.jsonl` (or `.csv`; or a copy of the hub's
    Parquet repository in that folder). Without a data folder: from this package, or the hub.

    Args:
        task: a task of the registry or one's own.
        split: `train`, `dev` or `test`; `validation` means `dev`.
        language: the task's own code, or an ISO 639 code of the same language.
        data_dir: default the environment's PALAM_DATA.

    Raises:
        PalamError: no such split or language (the message lists those that there are), or a row
            that is wrong (names its line).
    """
    split = SPLIT_NAMES.get(split, split)
    language = native_language(task, language, data_dir=data_dir)
    folder = find_folder(task, data_dir)
    splits = available(task, data_dir=data_dir)
    code = resolve_language(language, splits.get(split, []))
    if code is None:
        listed = [f"{name} in {shortened(codes)}" for name, codes in splits.items()]
        place = folder or (task.hub and task.hub.id)
        raise PalamError(
            f'no split "{split}" of {task.name} in {language_name(language)} ({language}) '
            f"in {place}: it has {'; '.join(listed) or 'nothing'}"
        )
    if folder is None or is_hub_copy(folder):
        source, rows = load_hub_rows(task, split, code, folder)
        assert task.hub is not None
        return examples_from_rows(task, rows, source, task.hub.columns)
    path = split_files(folder)[split, code]
    return examples_from_rows(task, numbered_rows(path), str(path), columns={})


def available(task: Task, *, data_dir: DataDir = None) -> dict[str, list[str]]:
    """The languages of each split that can be loaded, by split; the network is not asked."""
    folder = find_folder(task, data_dir)
    languages: dict[str, list[str]] = {}
    if folder is None or is_hub_copy(folder):
        for split in task.hub.splits if task.hub else ():
            languages[split] = list(task.languages)
        return languages
    for split, language in split_files(folder):
        languages.setdefault(split, []).append(language)
    return languages


def is_local(task: Task, *, data_dir: DataDir = None) -> bool:
    """Whether its examples are looked for in a folder or this package, not on the hub."""
    return bool(data_dir or data_root() or task.packaged)


def native_language(task: Task, code: str, *, data_dir: DataDir = None) -> str:
    """The task's own code of a language.

    Args:
        task: a task.
        code: the task's own, or an ISO 639 or FLORES code.
        data_dir: a data folder, which may have more languages than the task; default PALAM_DATA.

    Raises:
        PalamError: neither the task nor its data folder has this language.
    """
    codes = list(task.languages)
    for _, language in split_files(find_folder(task, data_dir)):
        if language not in codes:
            codes.append(language)
    native = resolve_language(code, codes)
    if native is None:
        raise PalamError(f'{task.name} has no language "{code}": it has {shortened(codes)}')
    return native


class TrainAndDev(NamedTuple):
    """A task's examples to train and to validate on.

    Attributes:
        train: training examples.
        dev: validation examples, none of them among the former.
        note: where the validation examples come from, in words.
    """

    train: list[Example]
    dev: list[Example]
    note: str


def train_and_dev(
    task: Task, *, data_dir: DataDir = None, seed: int = 0, language: str | None = None
) -> TrainAndDev:
    """Training and validation examples in one language.

    Without a dev split in that language, a label-stratified 10 % of train is held out.

    Args:
        task: a task.
        data_dir: see [`load_split`].
        seed: of what is held out.
        language: default English.

    Raises:
        PalamError: as [`load_split`] does; or a single training row, of which none can be held out.
    """
    language = native_language(task, language or "en", data_dir=data_dir)
    train = load_split(task, "train", language, data_dir=data_dir)
    dev_languages = available(task, data_dir=data_dir).get("dev", [])
    if resolve_language(language, dev_languages):
        dev = load_split(task, "dev", language, data_dir=data_dir)
        return TrainAndDev(train, dev, note=f"dev.{language}")
    if len(train) < 2:
        raise PalamError(f"{task.name}: one training row is too few to hold one out for validation")
    dev = sample(train, max(1, round(len(train) / 10)), seed)
    held_out = {example.row for example in dev}
    return TrainAndDev(
        train=[example for example in train if example.row not in held_out],
        dev=dev,
        note=(
            f"held out of train.{language}: {len(dev)} of {len(train)} rows, "
            f"label-stratified, seed {seed}"
        ),
    )


def task_from_file(
    path: str | Path,
    *,
    text_column: str = "text",
    label_column: str = "label",
    labels: Sequence[str] | Mapping[str, str] | None = None,
    prompt: str | None = None,
    name: str | None = None,
) -> tuple[Task, list[Example]]:
    """A task of the family "custom" and its examples, from one JSONL or CSV file.

    Args:
        path: the file, see [`read_rows`].
        text_column: a column's name, or a template over several: "Title: {title} Body: {body}".
        label_column: the column of the labels.
        labels: the labels, or a mapping to the words that the LLM answers; default: as they first
            appear.
        prompt: what the LLM reads, with one `{text}` slot.
        name: the task's name; default the file's.

    Raises:
        PalamError: the file cannot be read, a row is wrong (names its line), or there are fewer
            than two labels.
    """
    if "{" in text_column:
        template = text_column
        columns = {slot: slot for slot in slots(template)}
    else:
        template = "{text}"
        columns = {"text": text_column}
    rows = list(numbered_rows(path, column=label_column))
    if labels is None:
        labels = _labels_in(rows, label_column)
    if not isinstance(labels, Mapping):
        labels = {label: label for label in labels or [""]}
    task = Task(
        name=name or Path(path).stem,
        family="custom",
        labels=dict(labels),
        prompt=prompt or "{text}\nThe label of this text is",
        text=template,
        paper_text=f"{template} Label: ",
        fields=tuple(columns),
    )
    columns["label"] = label_column
    examples = examples_from_rows(task, rows, str(path), columns)
    if len(task.labels) < 2:
        only_label = next(iter(task.labels))
        raise PalamError(
            f"{path}: every row has the label {only_label!r}; a task has two labels or more"
        )
    return task, examples


def _labels_in(rows: Sequence[NumberedRow], column: str) -> list[str]:
    """The labels of a column as they first appear.

    An empty cell is a mistake, reported with its line when the examples are made, not a label.
    """
    values = [row.get(column) for _, row in rows]
    labels = [str(value) for value in values if value not in (None, "")]
    return list(dict.fromkeys(labels))
