"""What a training run reads: examples found and checked."""

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple, overload

from palam.errors import PalamError
from palam.inference.task_prompt import LABEL_PROMPT
from palam.tasks.inspection import Inspection, check_trainable, inspect_texts
from palam.tasks.lexicon import Lexicon, read_lexicon
from palam.tasks.loading import native_language, task_from_file, train_and_dev
from palam.tasks.readers import RowSource, read_texts
from palam.tasks.registry import get_task
from palam.tasks.sampling import (
    a_tenth,
    balanced,
    hold_out,
    num_shared,
    sample,
    with_other_texts,
)
from palam.tasks.soft_labels import SoftlyLabelled, read_soft_labels
from palam.tasks.task import Example, Task
from palam.training.config import DataConfig
from palam.training.objectives.base import LabelledText
from palam.utils.notes import tell
from palam.utils.processes import on_main


@dataclass
class TrainingData:
    """The examples of a run, of a task or of raw text."""

    task: Task | None
    """None is raw text: each example is a text, in its field `text`, without a label."""
    train: list[Example]
    dev: list[Example]
    language: str
    """The texts' language, by the task's own code if it has one."""
    note: str
    """What the validation data are, e.g. `dev.eng_Latn`."""
    columns: dict[str, str] | None = None
    """Of a file: the user's columns by the task's fields, and by `label`."""
    soft: list[SoftlyLabelled] = field(default_factory=list)
    """Beside `train`: texts of which the labels' probabilities are learned."""
    labelled: list[LabelledText] = field(default_factory=list)
    """With raw text: rows of tasks with labels to train on."""
    labelled_dev: list[LabelledText] = field(default_factory=list)
    """And to validate on."""
    lexicon: Lexicon | None = None
    """Translations of words, of which the encoder reads some in training."""
    inspection: Inspection | None = None
    """A look at all of the data, before any sample is drawn."""

    def texts(self, examples: Sequence[Example], mode: str) -> "Sequence[str]":
        """What the encoder reads of these examples, each put together when it is asked for.

        Args:
            examples: any of `train` and `dev`.
            mode: of the template, one of [`MODES`].
        """
        return RenderedTexts(self.task, examples, mode)


class LazyTexts(Sequence[str], ABC):
    """A text of each example, put together when it is asked for and not kept.

    Args:
        examples: of any task.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._render(example) for example in self.examples[index]]
        return self._render(self.examples[index])

    @abstractmethod
    def _render(self, example: Example) -> str: ...


class RenderedTexts(LazyTexts):
    """What the encoder reads of examples.

    Args:
        task: renders them; None is raw text.
        examples: of the task.
        mode: of the template.
    """

    def __init__(self, task: Task | None, examples: Sequence[Example], mode: str) -> None:
        super().__init__(examples)
        self.task = task
        self.mode = mode

    def _render(self, example: Example) -> str:
        if self.task is None:
            return example.fields["text"]
        return self.task.render(example, self.mode)


class JoinedTexts(LazyTexts):
    """All fields of each example as one text."""

    def _render(self, example: Example) -> str:
        return "\n".join(example.fields.values())


def read_training_data(
    data: DataConfig,
    *,
    seed: int,
    prompt: str | None = None,
    notes: list[str] | None = None,
) -> TrainingData:
    """Read the training and validation examples; no model is needed.

    Args:
        data: what to read, and how much of it.
        seed: of the samples.
        prompt: of the task that a file of one's own makes; None is the usual one.
        notes: gets a line about what is doubtful in the data; see [`tell`].

    Raises:
        PalamError: data that are missing, wrong or too few.
    """
    lexicon = _read_lexicon(data, notes)
    if data.text_file is not None:
        return _with_lexicon(_read_raw_text(data, seed, notes), lexicon)
    if data.file is not None:
        labelled = _read_labelled_file(data.file, data, seed, prompt, notes)
    else:
        assert data.task is not None  # a DataConfig has exactly one of the three
        labelled = _read_task(get_task(data.task), data, seed, notes)
    chosen = _with_lexicon(_chosen(labelled, data, seed), lexicon)
    if data.file is not None:
        chosen.columns = data.columns
    if data.soft_label_file is not None:
        soft = _read_soft_labels(data.soft_label_file, labelled.task, chosen.columns or {})
        chosen.soft = _not_validated(soft, labelled.dev, data.soft_label_file, notes)
    chosen.inspection = _inspect(labelled, notes or ())
    return chosen


def _with_lexicon(data: TrainingData, lexicon: Lexicon | None) -> TrainingData:
    """The same with a lexicon.

    Raises:
        PalamError: none of its words is in the texts to train on, so it would change nothing.
    """
    if lexicon is None:
        return data
    texts = chain(JoinedTexts(data.train), (row.text for row in data.labelled))
    if not any(lexicon.has_word_of(text) for text in texts):
        raise PalamError(
            "no word of the lexicon is in the texts to train on: its column word must hold words "
            "of their language, and translation those of other languages"
        )
    return replace(data, lexicon=lexicon)


def _read_lexicon(data: DataConfig, notes: list[str] | None = None) -> Lexicon | None:
    """The lexicon that is configured, if any; see [`read_lexicon`]."""
    if data.lexicon is None:
        return None
    return read_lexicon(RowSource(data.lexicon), notes)


def _read_soft_labels(
    path: Path, task: Task | None, columns: Mapping[str, str]
) -> list[SoftlyLabelled]:
    """The texts of a file with soft labels, whose text columns are the task's or the user's own."""
    fields = ("text",) if task is None else task.fields
    text_columns = {name: columns.get(name, name) for name in fields}
    rows = list(read_soft_labels(RowSource(path), text_columns, task))
    if not rows:
        raise PalamError(f"{path} holds no text with labels")
    return rows


def _not_validated(
    soft: Sequence[SoftlyLabelled],
    dev: Sequence[Example],
    path: Path,
    notes: list[str] | None,
) -> list[SoftlyLabelled]:
    """The softly labelled texts that are none of the validation texts."""
    kept = with_other_texts(soft, dev)
    left_out = len(soft) - len(kept)
    if not kept:
        raise PalamError(f"{path} holds validation texts alone, which are not learned; give others")
    if left_out:
        tell(
            f"{path.name}: {left_out} of {len(soft)} texts are for validation, and not learned",
            notes,
        )
    return kept


def first_reads(read: Callable[[], TrainingData]) -> TrainingData:
    """Read in the first process, for all of them.

    The others get the labelled examples to train on not as they are but tokenised, see
    [`AnswerDataset`].

    Args:
        read: what reads.
    """
    whole: list[TrainingData] = []

    def read_and_share() -> TrainingData:
        data = read()
        whole.append(data)
        return data if data.task is None else replace(data, train=[])

    shared = on_main(read_and_share)
    return whole[0] if whole else shared


def training_data_of(
    task: Task, examples: Sequence[Example], data: DataConfig, *, seed: int
) -> TrainingData:
    """Training and validation examples of those that are in memory: a tenth is for validation.

    Args:
        task: of the examples.
        examples: all of them.
        data: their language, how many are taken, and whether equally many of each label.
        seed: of the samples.

    Raises:
        PalamError: too few examples.
    """
    chosen = _chosen(_held_out(task, examples, data, seed, source=task.name), data, seed)
    return _with_lexicon(chosen, _read_lexicon(data))


def _chosen(labelled: "_Labelled", data: DataConfig, seed: int) -> TrainingData:
    """As many of the examples as the configuration wants."""
    if not labelled.train:
        raise PalamError(
            "there is nothing to train on once validation rows are held out; give more rows"
        )
    dev = sample(labelled.dev, data.max_eval_samples, seed)
    train = sample(labelled.train, data.max_train_samples, seed)
    balance = data.balance
    if balance is None:
        balance = labelled.task.balance
    if balance:
        train = balanced(train, seed)
    return TrainingData(
        task=labelled.task,
        train=train,
        dev=dev,
        language=labelled.language,
        note=labelled.note,
    )


class _Labelled(NamedTuple):
    """All examples of a task; see [`TrainingData`]."""

    source: str
    task: Task
    train: list[Example]
    dev: list[Example]
    language: str
    note: str


def _inspect(labelled: _Labelled, notes: Iterable[str]) -> Inspection:
    """A look at all of the examples; see [`inspect_texts`]."""
    examples = [*labelled.train, *labelled.dev]
    task = labelled.task
    labels = None
    if not task.has_free_answers:
        labels = [example.label for example in examples]
    inspection = inspect_texts(
        labelled.source,
        JoinedTexts(examples),
        labels,
        language=labelled.language,
        notes=notes,
    )
    inspection.held_out = len(labelled.dev)
    inspection.shared = num_shared(labelled.train, labelled.dev)
    return inspection


def raw_texts(data: DataConfig, source: RowSource) -> Iterator[str]:
    """The raw texts of a file, from its beginning; see [`read_texts`].

    Args:
        data: says which column of a table they are.
        source: of `data`; a pipe is read a single time.
    """
    return read_texts(source, column=data.text_column, option="--text-column")


def _read_raw_text(data: DataConfig, seed: int, notes: list[str] | None) -> TrainingData:
    """The lines of a file; a twentieth of them are for validation.

    Args:
        data: what to read, and how much of it.
        seed: of the samples.
        notes: lines about what was found while the data were read.
    """
    lines = []
    source = data.source()
    for row, text in enumerate(raw_texts(data, source)):
        lines.append(Example(row, {"text": text}, label=""))
    if len(lines) < 2:
        raise PalamError(f"{source.name} holds fewer than two lines of text")
    most = data.max_eval_samples or len(lines)
    parts = hold_out(lines, max(1, min(len(lines) // 20, most)), seed)
    train, dev = parts.train, parts.dev
    note = f"{len(dev)} of {len(lines)} lines"
    if parts.num_repeated:
        note = f"{note}; {parts.note}"
    limit = data.max_train_samples
    if limit is not None and limit < len(train):
        train = random.Random(seed).sample(train, limit)
    labelled, labelled_dev = _read_label_tasks(data, seed)
    if data.soft_label_file is not None:
        labelled += _read_soft_texts(data.soft_label_file, data.text_column, labelled_dev, notes)
    texts = [line.fields["text"] for line in lines]
    inspection = inspect_texts(source.name, texts, language=data.text_language, notes=notes or ())
    inspection.held_out = len(dev)
    return TrainingData(
        task=None,
        train=train,
        dev=dev,
        language=data.text_language,
        note=note,
        labelled=labelled,
        labelled_dev=labelled_dev,
        inspection=inspection,
    )


def hold_out_labels(data: TrainingData, max_samples: int | None, seed: int) -> TrainingData:
    """The same with a twentieth of the labelled texts to validate on, unless a task has some.

    It is for runs on raw text that learn labels alone, which nothing else validates.

    Args:
        data: of a run on raw text.
        max_samples: at most so many texts are held out; None is no limit.
        seed: of which ones.

    Raises:
        PalamError: fewer than two different texts.
    """
    if data.labelled_dev:
        return data
    count = max(1, min(len(data.labelled) // 20, max_samples or len(data.labelled)))
    examples = []
    for number, row in enumerate(data.labelled):
        examples.append(Example(number, {"text": row.text}, label=""))
    parts = hold_out(examples, count, seed)
    return replace(
        data,
        labelled=[data.labelled[example.row] for example in parts.train],
        labelled_dev=[data.labelled[example.row] for example in parts.dev],
        note=f"{data.note}, in whose place {len(parts.dev)} of {len(examples)} labelled texts are",
    )


def _read_soft_texts(
    path: Path, column: str, dev: Sequence[LabelledText], notes: list[str] | None
) -> list[LabelledText]:
    """The texts of a file with soft labels but for those of `dev`, as they are learned."""
    soft = _read_soft_labels(path, None, {"text": column})
    validated = [Example(row, {"text": each.text}, label="") for row, each in enumerate(dev)]
    kept = _not_validated(soft, validated, path, notes)
    return [LabelledText(row.fields["text"], LABEL_PROMPT, row.answer) for row in kept]


def _read_label_tasks(data: DataConfig, seed: int) -> tuple[list[LabelledText], list[LabelledText]]:
    """The rows of the tasks whose labels are learned beside raw text, to train and to validate on.

    Of each task at most as many rows as the smallest has, so that none is learned much more often
    than another.
    """
    tasks = []
    for name in data.label_tasks or ():
        tasks.append(_read_task(get_task(name), data, seed, notes=None))
    fewest = min((len(each.train) for each in tasks), default=0)
    train: list[LabelledText] = []
    dev: list[LabelledText] = []
    for each in tasks:
        train += [_labelled_text(each.task, row) for row in sample(each.train, fewest, seed)]
        most = data.max_eval_samples
        dev += [_labelled_text(each.task, row) for row in sample(each.dev, most, seed)]
    return train, dev


def _labelled_text(task: Task, example: Example) -> LabelledText:
    """A row of a task as the objective label learns it."""
    return LabelledText(
        text=task.render(example),
        prompt=task.prompt,
        answer=task.answer(example.label),
        passage_words=task.passage_words,
    )


def _read_labelled_file(
    path: Path,
    data: DataConfig,
    seed: int,
    prompt: str | None,
    notes: list[str] | None,
) -> _Labelled:
    """A task made from a file; a tenth of its rows are for validation."""
    task, examples = task_from_file(
        data.source(),
        text_column=data.text_column,
        label_column=data.label_column,
        prompt=prompt,
        merge_labels=data.merge_labels,
        notes=notes,
    )
    check_trainable(path.name, Counter(example.label for example in examples))
    return _held_out(task, examples, data, seed, source=path.name)


def _held_out(
    task: Task, examples: Sequence[Example], data: DataConfig, seed: int, *, source: str
) -> _Labelled:
    """A tenth of the examples is for validation; `source` is what they are called in the note."""
    parts = hold_out(examples, a_tenth(examples), seed)
    note = f"held out of {source}: {len(parts.dev)} of {len(examples)} rows"
    if parts.num_repeated:
        note = f"{note}; {parts.note}"
    return _Labelled(source, task, parts.train, parts.dev, data.text_language, note)


def _read_task(task: Task, data: DataConfig, seed: int, notes: list[str] | None) -> _Labelled:
    folder = data.data
    language = native_language(task, data.text_language, data_dir=folder)
    parts = train_and_dev(task, data_dir=folder, seed=seed, language=language, notes=notes)
    return _Labelled(task.name, task, parts.train, parts.dev, language, parts.note)
