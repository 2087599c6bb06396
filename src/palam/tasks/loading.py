"""Loading labelled examples: from a data folder, this package, the hub, or a user's own file."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from palam.errors import PalamError
from palam.tasks.examples import examples_from_rows, with_questions, with_references
from palam.tasks.folder import (
    SPLIT_NAMES,
    DataDir,
    data_root,
    find_folder,
    is_hub_copy,
    split_files,
)
from palam.tasks.formats import shortened
from palam.tasks.hub import load_hub_rows
from palam.tasks.labels import count_labels, labels_in, similar_labels
from palam.tasks.readers import RowSource, numbered_rows
from palam.tasks.sampling import a_tenth, hold_out, num_shared
from palam.tasks.task import CUSTOM_FAMILY, Example, Task
from palam.utils.languages import language_name, resolve_language
from palam.utils.notes import tell
from palam.utils.text_template import slots

Item = TypeVar("Item")
NO_LABELS = "(no label)"
"""In place of the labels of a file without any, which is then refused."""
CUSTOM_PROMPT = "{text}\nThe label of this text is"
"""The prompt of a task of one's own."""


def load_split(
    task: Task,
    split: str,
    language: str,
    *,
    data_dir: DataDir = None,
    notes: list[str] | None = None,
) -> list[Example]:
    """The examples of one split in one language, in the file's order.

    Read from `<data_dir>/<task>/<split>.<language>.jsonl` (or `.json`, `.csv`, `.tsv`, `.xlsx`,
    `.parquet`; or a copy of the hub's repository in that folder). Without a data folder: from this
    package, or the hub. Rows without a gold label are left out. In a task with a reference language
    an example's label is the text of the same row in that language; a task of questions has an
    example for each question.

    Args:
        task: a task of the registry or one's own.
        split: `train`, `dev` or `test`; `validation` means `dev`.
        language: the task's own code, or an ISO 639 code of the same language.
        data_dir: default the environment's PALAM_DATA.
        notes: gets a line about rows that are left out; see [`tell`].

    Raises:
        PalamError: no such split or language (the message lists those that there are), a row that
            is wrong (names its line), or one that has no partner in the reference language.
    """
    examples = _load_file(task, split, language, data_dir=data_dir, notes=notes)
    if task.reference_language:
        partners = _load_file(task, split, task.reference_language, data_dir=data_dir, notes=notes)
        return with_references(examples, partners)
    if task.questions:
        folder = find_folder(task, data_dir)
        path = folder and folder / task.questions
        if path is None or not path.is_file():
            raise PalamError(f"{task.name} needs the file {path or task.questions}")
        return with_questions(examples, numbered_rows(path))
    return examples


def _load_file(
    task: Task, split: str, language: str, *, data_dir: DataDir, notes: list[str] | None
) -> list[Example]:
    """The examples of one split in one language, as they are stored; see [`load_split`]."""
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
        return examples_from_rows(task, rows, source, task.hub.columns, notes=notes)
    path = split_files(folder)[split, code]
    return examples_from_rows(task, numbered_rows(path), str(path), columns={}, notes=notes)


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
        note: where the validation examples come from, in words; and whether texts are repeated.
    """

    train: list[Example]
    dev: list[Example]
    note: str


def train_and_dev(
    task: Task,
    *,
    data_dir: DataDir = None,
    seed: int = 0,
    language: str | None = None,
    notes: list[str] | None = None,
) -> TrainAndDev:
    """Training and validation examples in one language.

    Without a dev split in that language, a label-stratified 10 % of train is held out, with all the
    rows of each text.

    Args:
        task: a task.
        data_dir: see [`load_split`].
        seed: of what is held out.
        language: default English.
        notes: gets a line about rows that are left out or stand in both splits; see [`tell`].

    Raises:
        PalamError: as [`load_split`] does; or a single training text, of which none can be held
            out.
    """
    language = native_language(task, language or "en", data_dir=data_dir)
    train = load_split(task, "train", language, data_dir=data_dir, notes=notes)
    dev_languages = available(task, data_dir=data_dir).get("dev", [])
    if resolve_language(language, dev_languages):
        dev = load_split(task, "dev", language, data_dir=data_dir, notes=notes)
        note = f"dev.{language}"
        shared = num_shared(train, dev)
        if shared:
            warning = f"{shared} of its {len(dev)} rows have a text that is trained on"
            tell(f"{task.name}: {note}: {warning}", notes)
            note = f"{note}; {warning}"
        return TrainAndDev(train, dev, note)
    if len(train) < 2:
        raise PalamError(f"{task.name}: one training row is too few to hold one out for validation")
    parts = hold_out(train, a_tenth(train), seed)
    note = (
        f"held out of train.{language}: {len(parts.dev)} of {len(train)} rows, "
        f"label-stratified, seed {seed}"
    )
    if parts.num_repeated:
        note = f"{note}; {parts.note}"
    return TrainAndDev(parts.train, parts.dev, note)


def task_from_file(
    path: str | Path | RowSource,
    *,
    text_column: str = "text",
    label_column: str = "label",
    labels: Sequence[str] | Mapping[str, str] | None = None,
    prompt: str | None = None,
    name: str | None = None,
    merge_labels: bool = False,
    notes: list[str] | None = None,
) -> tuple[Task, list[Example]]:
    """A task of the family "custom" and its examples, from one file of labelled rows.

    Args:
        path: the file, see [`RowSource`].
        text_column: a column's name, or a template over several: "Title: {title} Body: {body}".
        label_column: the column of the labels.
        labels: the labels, or a mapping to the words that the LLM answers; default: as they first
            appear.
        prompt: what the LLM reads, with one `{text}` slot.
        name: the task's name; default the file's.
        merge_labels: of labels that differ only in case or space, take the most
            frequent one for all of them. Else they are different labels, which a note names.
        notes: gets a line about rows without a gold label and about such labels; see [`tell`].

    Raises:
        PalamError: the file cannot be read, a row is wrong (names its line), or there are fewer
            than two labels.
    """
    source = path if isinstance(path, RowSource) else RowSource(path)
    if "{" in text_column:
        template = text_column
        columns = {slot: slot for slot in slots(template)}
    else:
        template = "{text}"
        columns = {"text": text_column}
    rows = list(source.rows(column=label_column))
    if labels is None:
        values = [row.get(label_column) for _, row in rows]
        labels = labels_in(values, merge=merge_labels)
        if not merge_labels:
            _tell_similar_labels(values, source.name, notes)
    if not isinstance(labels, Mapping):
        labels = {label: label for label in labels or [NO_LABELS]}
    task = Task(
        name=name or Path(source.path).stem,
        family=CUSTOM_FAMILY,
        labels=dict(labels),
        prompt=prompt or CUSTOM_PROMPT,
        text=template,
        paper_text=f"{template} Label: ",
        fields=tuple(columns),
    )
    columns["label"] = label_column
    examples = examples_from_rows(task, drained(rows), source.name, columns, notes=notes)
    if len(task.labels) < 2:
        only_label = next(iter(task.labels))
        raise PalamError(
            f"{source.name}: every row has the label {only_label!r}; a task has two labels or more"
        )
    return task, examples


def drained(items: list[Item]) -> Iterator[Item]:
    """The items of a list in their order, each taken out of it as it is asked for.

    What is made of very many rows then never stands in memory together with all of them.
    """
    items.reverse()
    while items:
        yield items.pop()


def _tell_similar_labels(values: Sequence[object], source: str, notes: list[str] | None) -> None:
    """Name the labels that may well be meant as one."""
    counts = count_labels(values)
    for group in similar_labels(counts):
        listed = ", ".join(f"{label!r} ({counts[label]} rows)" for label in group)
        tell(
            f"{source}: labels that differ only in case or space are taken for different ones: "
            f"{listed}; --merge-labels makes them one",
            notes,
        )
