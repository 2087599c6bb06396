"""Rows of a task's data set on the Hugging Face hub, or of a local copy of its repository."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from palam.errors import PalamError
from palam.tasks.formats import Row
from palam.tasks.readers import NumberedRow
from palam.tasks.task import Hub, Task
from palam.utils.texts import first_line

CARD_FILE = "README.md"
"""What `datasets` asks a repository for first."""
FOLDER_HINT = "give --data DIR or set PALAM_DATA to read it from a folder"


class HubRows(NamedTuple):
    """The rows of one split in one language.

    Attributes:
        source: the data set with its configuration and split, for messages.
        rows: the rows, each with its place for messages; labels by name.
    """

    source: str
    rows: Iterator[NumberedRow]


def load_hub_rows(task: Task, split: str, language: str, copy: Path | None) -> HubRows:
    """Load one split in one language.

    Args:
        task: one that says where it is on the hub.
        split: train, dev or test.
        language: the task's own code.
        copy: a folder with a copy of the hub's repository, which is read in its place.

    Raises:
        PalamError: the extra `datasets` is not installed, or the data cannot be loaded.
    """
    assert task.hub is not None
    hub = task.hub
    code = hub.codes.get(language, language)
    config = hub.config and hub.config.format(language=code)
    hub_split = hub.splits[split].format(language=code)
    path = hub.id if copy is None else str(copy)
    revision = hub.revision if copy is None else None
    source = f"{path} ({config or 'default'}, {hub_split})"
    datasets = _import_datasets(task.name)
    if copy is None and not Path(path).is_dir():
        _ask_hub(source, path, revision)
    data = _load_dataset(datasets, source, path, config, split=hub_split, revision=revision)
    label_column = hub.columns.get("label", task.label_column)
    label_names = _label_names(data, label_column, hub)
    rows = _with_label_names(data, label_column, label_names)
    return HubRows(source, _numbered(rows, source))


def _import_datasets(task_name: str) -> Any:
    """The datasets library.

    Raises:
        PalamError: it is not installed; the message says how to get it.
    """
    try:
        import datasets
    except ImportError:
        needs = f'{task_name} on the hub needs datasets: pip install "palam[hub]"'
        raise PalamError(f"{needs}, or {FOLDER_HINT}") from None
    return datasets


def _ask_hub(source: str, name: str, revision: str | None) -> None:
    """Refuse a data set that neither the hub nor the cache gives.

    Args:
        source: for messages.
        name, revision: of the data set's repository.

    Raises:
        PalamError: why it does not; it is a [`HubUnreachable`] where the hub does not answer.
    """
    from palam.utils.hub import HUB, HubFile, HubOffline  # not needed to look at a file's rows

    try:
        HUB.is_only_cached(HubFile(name, CARD_FILE, revision, "dataset"))
    except HubOffline:
        return  # `datasets` has a cache of its own
    except PalamError as error:
        raise type(error)(f"cannot load {source}: {error}; {FOLDER_HINT}") from None


def _load_dataset(
    datasets: Any, source: str, path: str, config: str | None, **options: str | None
) -> Any:
    """What `datasets` loads; its errors as one line."""
    try:
        return datasets.load_dataset(path, config, **options)
    except Exception as error:  # whatever the network, the hub or the data set's files say
        raise PalamError(f"cannot load {source}: {first_line(error)}; {FOLDER_HINT}") from error


def _label_names(data: Any, column: str, hub: Hub) -> dict[object, str]:
    """The labels by integer: a `ClassLabel`'s own names, else the order that `hub` gives."""
    own_names = getattr(data.features.get(column), "names", None)
    return dict(enumerate(own_names or hub.labels))


def _with_label_names(rows: Iterable[Row], column: str, names: dict[object, str]) -> Iterator[Row]:
    """The rows, with the label's name where it is an integer."""
    for row in rows:
        label = row.get(column)
        if isinstance(label, int | float) and label in names:
            row = {**row, column: names[label]}
        yield row


def _numbered(rows: Iterable[Row], source: str) -> Iterator[NumberedRow]:
    for number, row in enumerate(rows):
        yield NumberedRow(f"{source}, row {number}", row)
