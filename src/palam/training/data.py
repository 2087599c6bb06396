"""What a training run reads: examples found and checked, and then tokenised."""

import hashlib
import random
import re
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple, overload

from torch.utils.data import Dataset

from palam.errors import PalamError
from palam.models.processing import IGNORE, TEXT_SLOT, PalamProcessor
from palam.tasks.inspection import Inspection, check_trainable, inspect_texts
from palam.tasks.loading import native_language, task_from_file, train_and_dev
from palam.tasks.readers import read_texts
from palam.tasks.registry import get_task
from palam.tasks.sampling import balanced, hold_out, num_shared, passage, sample
from palam.tasks.task import Example, Task
from palam.training.config import DataConfig, TrainConfig
from palam.training.token_table import RaggedArray, TokenTable, batched
from palam.utils.processes import num_processes, on_main

Features = dict[str, Any]
"""A row's unpadded lists, as [`PalamProcessor.features`] gives them, and its number as `row`."""
CHUNK_ROWS = 4096
"""So many rows are tokenised at a time."""
MEMORY_ROWS = 50_000
"""The tokens of at most so many rows are kept in memory."""


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
    inspection: Inspection | None = None
    """A look at all of the data, before any sample is drawn."""

    def texts(self, examples: Sequence[Example], mode: str) -> "Sequence[str]":
        """What the encoder reads of these examples, each put together when it is asked for.

        Args:
            examples: any of `train` and `dev`.
            mode: of the template, one of [`MODES`].
        """
        return RenderedTexts(self.task, examples, mode)


class RenderedTexts(Sequence[str]):
    """The texts of examples, none of them kept.

    Args:
        task: renders them; None is raw text.
        examples: of the task.
        mode: of the template.
    """

    def __init__(self, task: Task | None, examples: Sequence[Example], mode: str) -> None:
        self.task = task
        self.examples = examples
        self.mode = mode

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

    def _render(self, example: Example) -> str:
        if self.task is None:
            return example.fields["text"]
        return self.task.render(example, self.mode)


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
    if data.text_file is not None:
        return _read_raw_text(data, seed)
    if data.file is not None:
        labelled = _read_labelled_file(data.file, data, seed, prompt, notes)
    else:
        assert data.task is not None  # a DataConfig has exactly one of the three
        labelled = _read_task(get_task(data.task), data, seed, notes)
    chosen = _chosen(labelled, data, seed)
    chosen.inspection = _inspect(labelled, notes or ())
    if data.file is not None:
        chosen.columns = data.columns
    return chosen


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
    return _chosen(_held_out(task, examples, data, seed, source=task.name), data, seed)


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
    if not task.number:
        labels = [example.label for example in examples]
    inspection = inspect_texts(
        labelled.source,
        ["\n".join(example.fields.values()) for example in examples],
        labels,
        language=labelled.language,
        notes=notes,
    )
    inspection.held_out = len(labelled.dev)
    inspection.shared = num_shared(labelled.train, labelled.dev)
    return inspection


def _read_raw_text(data: DataConfig, seed: int) -> TrainingData:
    """The lines of a file; the last twentieth of them are for validation."""
    lines = []
    source = data.source()
    for row, text in enumerate(read_texts(source)):
        lines.append(Example(row, {"text": text}, label=""))
    if len(lines) < 2:
        raise PalamError(f"{source.name} holds fewer than two lines of text")
    most = data.max_eval_samples or len(lines)
    held_out = max(1, min(len(lines) // 20, most))
    train, dev = lines[:-held_out], lines[-held_out:]
    note = f"the last {held_out} of {len(lines)} lines"
    shared = num_shared(train, dev)
    if shared:
        note = f"{note}; {shared} of them have a text that is trained on"
    texts = [line.fields["text"] for line in lines]
    inspection = inspect_texts(source.name, texts, language=data.text_language)
    inspection.held_out = len(dev)
    inspection.shared = shared
    limit = data.max_train_samples
    if limit is not None and limit < len(train):
        train = random.Random(seed).sample(train, limit)
    return TrainingData(
        task=None,
        train=train,
        dev=dev,
        language=data.text_language,
        note=note,
        inspection=inspection,
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
    parts = hold_out(examples, max(1, len(examples) // 10), seed)
    note = f"held out of {source}: {len(parts.dev)} of {len(examples)} rows"
    if parts.num_repeated:
        note = f"{note}; {parts.note}"
    return _Labelled(source, task, parts.train, parts.dev, data.text_language, note)


def _read_task(task: Task, data: DataConfig, seed: int, notes: list[str] | None) -> _Labelled:
    folder = data.data
    language = native_language(task, data.text_language, data_dir=folder)
    parts = train_and_dev(task, data_dir=folder, seed=seed, language=language, notes=notes)
    return _Labelled(task.name, task, parts.train, parts.dev, language, parts.note)


def seeded_number(*key: object) -> int:
    """A large number that depends on the key alone: the same in every process and resumed run."""
    text = "/".join(map(str, key))
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big")


class TrainingDataset(Dataset[Features], ABC):
    """Tokenised rows, which may be other ones in each epoch.

    Attributes:
        lengths: of the rows, to batch them by.
        epoch: whose rows they are.
    """

    lengths: Sequence[int]
    epoch: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's rows."""

    @abstractmethod
    def content(self) -> Iterator[tuple[str | None, ...]]:
        """Row by row what it was made of, the same in every epoch."""

    @abstractmethod
    def repeated_encoder_ids(self) -> RaggedArray | None:
        """The encoder's token ids of the texts that it reads again in every epoch, if any."""


class AnswerDataset(TrainingDataset):
    """Input → answer pairs, tokenised once (passages: once an epoch), a chunk at a time.

    Args:
        processor: makes the features.
        texts, answers: what is read and what is to be answered.
        languages: one code per text, or None.
        passage_words: read a passage of whole sentences with at least so many words in place of
            each text, another one in every epoch; None is the text itself.
        seed: of the passages.
        llm_only: see [`PalamProcessor.features`].
        folder: where the tokens are kept, memory-mapped; None is in memory. Several processes need
            one: the first of them tokenises, and only it needs texts and answers.
    """

    def __init__(
        self,
        processor: PalamProcessor,
        texts: Sequence[str],
        answers: Sequence[str],
        languages: Sequence[str | None] | None = None,
        *,
        passage_words: int | None = None,
        seed: int = 0,
        llm_only: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.processor = processor
        self.texts = texts
        self.answers = answers
        self.languages = languages
        self.passage_words = passage_words
        self.seed = seed
        self.llm_only = llm_only
        self.folder = folder
        self._tokenize(0, count=True)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's passages."""
        if self.passage_words is not None and epoch != self.epoch:
            self._tokenize(epoch, count=False)

    def current_texts(self, rows: Sequence[int]) -> Sequence[str]:
        """What is read of these rows in this epoch."""
        texts = [self.texts[row] for row in rows]
        if self.passage_words is None:
            return texts
        passages = []
        for row, text in zip(rows, texts, strict=True):
            number = seeded_number(self.seed, self.epoch, row)
            passages.append(passage(text, self.passage_words, number))
        return passages

    def content(self) -> Iterator[tuple[str | None, ...]]:
        """See [`TrainingDataset.content`]: text, answer and language."""
        languages = self.languages or repeat(None, len(self.texts))
        yield from zip(self.texts, self.answers, languages, strict=True)

    def repeated_encoder_ids(self) -> RaggedArray | None:
        """See [`TrainingDataset.repeated_encoder_ids`]; none if these are passages."""
        if self.passage_words is not None:
            return None
        return self.rows.encoder_input_ids

    def _tokenize(self, epoch: int, *, count: bool) -> None:
        """Make the epoch's rows; `count` adds them to the processor's statistics."""
        self.epoch = epoch
        if self.folder is None:
            self.rows = TokenTable.build(self._chunks(count))
        else:
            folder = self.folder / f"epoch-{epoch}"
            on_main(lambda: self._write_rows(folder, count))
            self.rows = TokenTable.open(folder)
        self.lengths: Any = self.rows.lengths()

    def _write_rows(self, folder: Path, count: bool) -> None:
        """Make the epoch's rows, in place of another epoch's."""
        for other in folder.parent.glob("epoch-*"):
            shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(parents=True)
        TokenTable.build(self._chunks(count), folder)

    def _chunks(self, count: bool) -> Iterator[list[Features]]:
        for rows in batched(range(len(self.texts)), CHUNK_ROWS):
            languages = self.languages
            if languages is not None:
                languages = [languages[row] for row in rows]
            yield self.processor.features(
                self.current_texts(rows),
                [self.answers[row] for row in rows],
                languages,
                llm_only=self.llm_only,
                count=count,
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Features:
        return {**self.rows[index], "row": index}


class Cut(NamedTuple):
    """A text in two parts."""

    beginning: str
    """What the encoder reads."""
    rest: str
    """What the LLM continues with; it begins with its space."""


class PrefixDataset(TrainingDataset):
    """Prefix language modelling on raw English (LangBridge).

    The encoder reads the beginning of a text and the LLM continues it. The cut lies between two
    words, and depends on seed, epoch and row alone.

    Args:
        processor: makes the features; its template is not used.
        texts: raw texts; those of fewer than two words are left out.
        seed: of the cuts.
        language: of the texts, for encoders that must be told.
        max_answer: most tokens that the LLM is to continue.
        distill: give each row `teacher_ids` too: what the LLM reads where it reads the beginning
            itself.

    Attributes:
        prompted: by row, the features of a prompt about the whole text and its answer, with
            `teacher_ids`. They take the place of the continuation in two of three epochs, drawn
            like the cuts.
    """

    def __init__(
        self,
        processor: PalamProcessor,
        texts: Sequence[str],
        *,
        seed: int = 0,
        language: str | None = None,
        max_answer: int = 128,
        distill: bool = False,
    ) -> None:
        self.processor = processor
        self.texts = [text.strip() for text in texts if len(text.split()) > 1]
        self.lengths = [len(text) for text in self.texts]
        self.seed = seed
        self.language = language
        self.max_answer = max_answer
        self.distill = distill
        self.epoch = 0
        self.prompted: dict[int, Features] = {}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's cuts."""
        self.epoch = epoch

    def content(self) -> Iterator[tuple[str | None, ...]]:
        """See [`TrainingDataset.content`]: text and language."""
        for text in self.texts:
            yield text, self.language

    def repeated_encoder_ids(self) -> None:
        """None: see [`TrainingDataset.repeated_encoder_ids`]."""

    def cut(self, index: int) -> Cut:
        """The two parts of a row in this epoch."""
        text = self.texts[index]
        spaces = [space.start() for space in re.finditer(r"\s+", text)]
        number = seeded_number(self.seed, self.epoch, index)
        place = spaces[number % len(spaces)]
        return Cut(text[:place], text[place:])

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Features:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Features]:
        """Several rows at once; the data loader calls it."""
        rows = {}
        continued = []
        for index in indices:
            if self._is_prompted(index):
                rows[index] = self.prompted[index]
            else:
                continued.append(index)
        for row in self._continuations(continued):
            rows[row["row"]] = row
        return [rows[index] for index in indices]

    def _is_prompted(self, index: int) -> bool:
        """Whether this epoch's row is the prompt's answer and not the continuation."""
        if index not in self.prompted:
            return False
        number = seeded_number("ask", self.seed, self.epoch, index)
        return number % 3 != 0

    def _continuations(self, indices: Sequence[int]) -> list[Features]:
        processor = self.processor
        cuts = [self.cut(index) for index in indices]
        beginnings = [cut.beginning for cut in cuts]
        languages = [self.language] * len(cuts)
        with truncating_left(processor.encoder_tokenizer):  # a long text is read up to its cut
            encoded = processor.encode_texts(beginnings, languages)
        before = [*processor.prefix_ids(), TEXT_SLOT]
        rows = []
        for index, cut, tokens in zip(indices, cuts, encoded, strict=True):
            answer = processor.continuation_ids(cut.rest, self.max_answer)
            row: Features = {
                "encoder_input_ids": tokens["input_ids"],
                "input_ids": before + answer,
                "labels": [IGNORE] * len(before) + answer,
                "row": index,
            }
            rows.append(row)
        if self.distill:
            teacher_rows = processor.features(beginnings, llm_only=True)
            for row, teacher_row in zip(rows, teacher_rows, strict=True):
                answer = row["input_ids"][len(before) :]
                row["teacher_ids"] = teacher_row["input_ids"] + answer
        return rows


@contextmanager
def truncating_left(tokenizer: Any) -> Iterator[None]:
    """Within the block, a tokenizer cuts long texts at their beginning."""
    side = tokenizer.truncation_side
    tokenizer.truncation_side = "left"
    try:
        yield
    finally:
        tokenizer.truncation_side = side


def build_dataset(
    config: TrainConfig,
    data: TrainingData,
    examples: Sequence[Example],
    processor: PalamProcessor,
    folder: Path | None = None,
) -> AnswerDataset | PrefixDataset:
    """Tokenise examples as a run's configuration wants them.

    Args:
        config: of the run.
        data: what it reads.
        examples: `data.train` or `data.dev`.
        processor: the model's.
        folder: where the tokens may be kept, see [`AnswerDataset`]; they are if there are several
            processes, or more than `MEMORY_ROWS` examples.

    Raises:
        PalamError: raw text of too few lines with two words or more.
    """
    texts = data.texts(examples, config.model.mode)
    seed = config.runtime.seed
    if data.task is None:
        dataset = PrefixDataset(
            processor,
            texts,
            seed=seed,
            language=data.language,
            distill=config.optim.distill,
        )
        if not len(dataset):
            raise PalamError(
                f"{config.data.text_file} has too few lines of two words or more "
                "to train on and to validate"
            )
        return dataset
    passage_words = config.optim.passage_words
    if passage_words is None:
        passage_words = data.task.passage_words
    if num_processes() == 1 and len(examples) <= MEMORY_ROWS:
        folder = None
    return AnswerDataset(
        processor,
        texts,
        [data.task.answer(example.label) for example in examples],
        [data.language] * len(texts),
        passage_words=passage_words or None,
        seed=seed,
        llm_only=config.optim.llm_only,
        folder=folder,
    )
