"""Labelled examples of a task: from a data folder, this package, the hub, or a user's own file."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from palam.errors import PalamError
from palam.tasks.readers import Row, numbered_rows, shortened, text_of
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task, slots
from palam.utils.languages import language_name, resolve_language

_SPLITS = {"validation": "dev", "valid": "dev", "val": "dev"}
DataDir = str | Path | None


def load_split(task: Task, split: str, language: str, *, data_dir: DataDir = None) -> list[Example]:
    """The examples of one split in one language, in the file's order.

    Read from `<data_dir>/<task>/<split>.<language>.jsonl` (or `.csv`; or a copy of the hub's Parquet
    repository in that folder); `data_dir` defaults to the environment's PALAM_DATA. Without either: this
    package's own data, or the hub. "validation" means "dev"; ISO 639 codes find the task's own.

    Raises:
        PalamError: no such split or language (says which there are), or a row that is wrong (names its line).
    """
    split = _SPLITS.get(split, split)
    language = native_language(task, language, data_dir=data_dir)
    folder = _folder(task, data_dir)
    there = available(task, data_dir=data_dir)
    code = resolve_language(language, there.get(split, []))
    if code is None:
        listed = (
            "; ".join(f"{key} in {shortened(codes)}" for key, codes in there.items()) or "nothing"
        )
        what = f'no split "{split}" of {task.name} in {language_name(language)} ({language})'
        raise PalamError(f"{what} in {folder or (task.hub and task.hub.id)}: it has {listed}")
    if folder is None or _is_hub_copy(folder):
        return _from_hub(task, split, code, folder)
    path = _files(folder)[split, code]
    return _examples(task, numbered_rows(path), str(path), {})


def available(task: Task, *, data_dir: DataDir = None) -> dict[str, list[str]]:
    """The languages of each split that can be loaded, without asking the network."""
    folder = _folder(task, data_dir)
    if folder is None or _is_hub_copy(folder):
        return {split: list(task.languages) for split in (task.hub.splits if task.hub else ())}
    files = _files(folder)
    return {split: [language for other, language in files if other == split] for split, _ in files}


def is_local(task: Task, *, data_dir: DataDir = None) -> bool:
    """Whether its examples are looked for in a folder or this package, not on the hub."""
    return bool(data_dir or os.environ.get("PALAM_DATA") or task.packaged)


def native_language(task: Task, code: str, *, data_dir: DataDir = None) -> str:
    """The task's own code for a language; PalamError if neither the task nor its data folder has it."""
    codes = list(
        dict.fromkeys([*task.languages, *(code for _, code in _files(_folder(task, data_dir)))])
    )
    found = resolve_language(code, codes)
    if found is None:
        raise PalamError(f'{task.name} has no language "{code}": it has {shortened(codes)}')
    return found


def train_and_dev(
    task: Task, *, data_dir: DataDir = None, seed: int = 0, language: str | None = None
) -> tuple[list[Example], list[Example], str]:
    """Training and validation examples in one language (default English), and a note on the latter.

    Without a dev split in that language, a seeded, label-stratified 10 % of train is held out.
    """
    language = native_language(task, language or "en", data_dir=data_dir)
    train = load_split(task, "train", language, data_dir=data_dir)
    if resolve_language(language, available(task, data_dir=data_dir).get("dev", [])):
        return train, load_split(task, "dev", language, data_dir=data_dir), f"dev.{language}"
    if len(train) < 2:
        raise PalamError(f"{task.name}: one training row is too few to hold one out for validation")
    dev = sample(train, max(1, round(len(train) / 10)), seed)
    held = {example.row for example in dev}
    note = f"held out of train.{language}: {len(dev)} of {len(train)} rows, label-stratified, seed {seed}"
    return [example for example in train if example.row not in held], dev, note


def unescaped(text: str) -> str:
    r"""The text with escapes such as `\u2019` (also pairs of them) as the characters they stand for."""
    units = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def task_from_file(
    path: str | Path, *, text_column: str = "text", label_column: str = "label",
    labels: Sequence[str] | Mapping[str, str] | None = None, prompt: str | None = None, name: str | None = None,
) -> tuple[Task, list[Example]]:  # fmt: skip
    """A task of the family "custom" and its examples, from one JSONL or CSV file (see `read_rows`).

    Args:
        path: the file.
        text_column: a column's name, or a template over several: "Title: {title} Body: {body}".
        label_column: the column of the labels.
        labels: the labels, or a mapping to the words that the LLM answers; default: as they first appear.
        prompt: what the LLM reads, with one `{text}` slot.
        name: the task's name; default the file's.
    """
    text = text_column if "{" in text_column else "{text}"
    columns = {slot: slot for slot in slots(text)} if text == text_column else {"text": text_column}
    rows = list(numbered_rows(path, column=label_column))
    if labels is None:  # an empty cell is a mistake that its line reports, not a label
        labels = [
            str(row[label_column]) for _, row in rows if row.get(label_column) not in (None, "")
        ]
    task = Task(
        name=name or Path(path).stem, family="custom",
        labels=dict(labels) if isinstance(labels, Mapping) else {label: label for label in labels or [""]},
        prompt=prompt or "{text}\nThe label of this text is", text=text, paper_text=f"{text} Label: ",
        fields=tuple(columns),
    )  # fmt: skip
    examples = _examples(task, rows, str(path), columns | {"label": label_column})
    if len(task.labels) < 2:
        raise PalamError(
            f"{path}: every row has the label {next(iter(task.labels))!r}; a task has two labels or more"
        )
    return task, examples


def _folder(task: Task, data_dir: DataDir) -> Path | None:
    """The local folder of the task's files, or None if the hub has them."""
    packaged = Path(__file__).parents[1] / task.packaged if task.packaged else None
    root = data_dir or os.environ.get("PALAM_DATA")
    if root and (Path(root) / task.name).is_dir():
        return Path(root) / task.name
    if (packaged and not data_dir) or (task.hub and not root):
        return packaged
    if not root:
        raise PalamError(f"{task.name} is not on the hub: give --data DIR or set PALAM_DATA")
    source = root if data_dir else f"{root} (PALAM_DATA)"
    raise PalamError(f'no folder "{task.name}" in the data folder {source}')


def _files(folder: Path | None) -> dict[tuple[str, str], Path]:
    """The files `<split>.<language>.jsonl` and `.csv` by split and language, in the order of their names."""
    paths = sorted(folder.iterdir()) if folder and folder.is_dir() else []
    parts = [(path, path.name.split(".")) for path in paths if path.suffix in (".jsonl", ".csv")]
    return {
        (_SPLITS.get(part[0], part[0]), part[1]): path for path, part in parts if len(part) == 3
    }


def _is_hub_copy(folder: Path) -> bool:
    return not _files(folder) and any(folder.rglob("*.parquet"))


def _from_hub(task: Task, split: str, language: str, copy: Path | None) -> list[Example]:
    """Load from the hub, or from a local copy of its repository."""
    assert task.hub is not None
    help_ = "give --data DIR or set PALAM_DATA to read it from a folder"
    try:
        import datasets
    except ImportError:
        raise PalamError(
            f"{task.name} on the hub needs datasets: install palam[hub], or {help_}"
        ) from None
    code = task.hub.codes.get(language, language)
    config = task.hub.config and task.hub.config.format(language=code)
    named = task.hub.splits[split].format(language=code)
    path = str(copy or task.hub.id)
    where = f"{path} ({config or 'default'}, {named})"
    try:
        data = datasets.load_dataset(
            path, config, split=named, revision=None if copy else task.hub.revision
        )
    except Exception as error:  # whatever the network, the hub or the data set's files say
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise PalamError(f"cannot load {where}: {said}; {help_}") from error
    column = task.hub.columns.get("label", task.label_column)
    # a ClassLabel's own names are surer than our order of integers
    names = dict(enumerate(getattr(data.features.get(column), "names", None) or task.hub.labels))
    labelled = (row for row in data if row.get(column) != -1)
    rows = (
        {**row, column: names.get(row[column], row[column])} if names else row for row in labelled
    )
    return _examples(
        task, ((f"{where}, row {i}", row) for i, row in enumerate(rows)), where, task.hub.columns
    )


def _examples(
    task: Task, rows: Iterable[tuple[str, Row]], source: str, columns: Mapping[str, str]
) -> list[Example]:
    column = columns.get("label", task.label_column)
    examples = []
    for number, (where, row) in enumerate(rows):
        fields = {field: text_of(row, columns.get(field, field), where) for field in task.fields}
        if task.escaped:
            fields = {field: unescaped(text) for field, text in fields.items()}
        if column not in row:
            raise PalamError(f'{where}: no column "{column}" among {shortened(row)}')
        label = task.label_of(row[column])
        if label is None:
            raise PalamError(
                f"{where}: label {str(row[column])[:40]!r} is none of {shortened(task.labels)}"
            )
        examples.append(Example(number, fields, label))
    if not examples:
        raise PalamError(f"{source} is empty")
    return examples
