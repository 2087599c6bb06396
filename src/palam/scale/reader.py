"""A reader of batches: columns in, the same and the results out; no files, and nothing printed.

It can be sent to another process, and loads its model there, when it is first used. Ray Data, Spark
and the workers of `palam classify` take it as it is.
"""

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from palam.errors import PalamError
from palam.inference.text_form import TextForm
from palam.scale.batches import (
    AddedColumn,
    Batch,
    column_names,
    column_values,
    num_rows,
    with_columns,
)
from palam.scale.bridge import Bridge, BridgeView
from palam.scale.failures import ERROR, Failure, results_or_failures
from palam.scale.identity import identity_together
from palam.scale.languages import check_given_language
from palam.scale.work import Labelling, Progress, TextReader, Work, probabilities
from palam.tasks.columns import free_names
from palam.tasks.formats import Row
from palam.tasks.label_scores import SCORES
from palam.tasks.readers import NumberedRow, language_of

if TYPE_CHECKING:
    from palam.models.modeling import PalamModel
    from palam.models.processing import PalamProcessor

C = TypeVar("C", bound="TextChunk")

MEMORY = 20_000
"""How many texts' results are remembered from one batch to the next."""


class TextChunk(Protocol):
    """Some texts of many."""

    @property
    def start(self) -> int:
        """The first row's number among all rows, from 0."""

    @property
    def texts(self) -> Sequence[str]:
        """What the model reads."""

    @property
    def languages(self) -> Sequence[str | None]:
        """Of each text."""


@dataclass(frozen=True)
class TextColumns:
    """Which columns of a batch are read.

    Raises:
        PalamError: both kinds of language.
    """

    column: str | None = None
    """Of the text; None is the one trained on, or `text`."""
    language: str | None = None
    """Of all texts."""
    language_column: str | None = None
    """Of each row's language, in its place."""

    def __post_init__(self) -> None:
        if self.language is not None and self.language_column is not None:
            raise PalamError("give either a language or the column of it")


@dataclass(frozen=True)
class ReaderLoading:
    """How the model is loaded where it is read with.

    What is measured elsewhere (`dtype="auto"` on a CPU) is not measured here, so that all processes
    of a job read alike.
    """

    encoder: str | None = None
    """Where the encoder is, if not where the checkpoint says."""
    second_encoder: str | None = None
    """Where the second encoder is, if there is one and it is not where the checkpoint says."""
    llm: str | None = None
    """Where the LLM is, if not where the checkpoint says."""
    revision: str | None = None
    """Of the checkpoint on the hub."""
    allow_mismatch: bool = False
    """Accept other base models than the bridge was trained with."""
    device: str | None = None
    """As torch writes it; None is the best there is."""
    dtype: str | None = None
    """`fp32`, `bf16` or `fp16`; None is bf16 on CUDA, where there is such, and else fp32."""
    load_in: str | None = None
    """`8bit`, `4bit`, or None: whole."""
    attention: str | None = None
    """transformers' `attn_implementation`; None is its own choice, on a CPU the plain one."""
    packs: bool = False
    """Pack the LLM where that makes it faster, as `palam generate` does; see [`pack_llm`]."""

    def load(self, checkpoint: str) -> "PalamModel":
        """The checkpoint's model."""
        from palam.models.backbones.packing import pack_llm
        from palam.models.modeling import PalamModel
        from palam.utils.device import Placement, pick_device, pick_dtype
        from palam.utils.quiet import silence_libraries

        silence_libraries()
        device = pick_device(self.device)
        on_cpu = device.type == "cpu"
        placement = Placement(
            device=device,
            dtype=pick_dtype(self.dtype or ("fp32" if on_cpu else "auto"), device),
            attention=self.attention or ("eager" if on_cpu else None),
            load_in=self.load_in,
        )
        model = PalamModel.from_pretrained(
            checkpoint,
            self.encoder,
            self.llm,
            second_encoder=self.second_encoder,
            revision=self.revision,
            allow_mismatch=self.allow_mismatch,
            **placement,
        )
        if self.packs and not model.config.adapter:
            pack_llm(model.llm)
        return model


class BridgeReader:
    """Reads texts with a bridge, a batch of columns at a time.

    A row that cannot be read has empty results, and says why in its `error`; it does not end the
    job. Repeated texts are read once: those of one batch, and those of earlier ones as far as they
    are remembered.

    Args:
        checkpoint: a bridge: folder, hub id or `starter:bridge`.
        work: what is done: [`Labelling`], by default with the labels trained on, or [`Answering`].
        columns: which columns are read.
        loading: how the model is loaded.
        memory: how many texts' results are remembered; sampled answers never are.
    """

    def __init__(
        self,
        checkpoint: str,
        work: Work | None = None,
        *,
        columns: TextColumns | None = None,
        loading: ReaderLoading | None = None,
        memory: int = MEMORY,
    ) -> None:
        self.checkpoint = str(checkpoint)
        self.work = work or Labelling()
        self.columns = columns or TextColumns()
        self.loading = loading or ReaderLoading()
        self.memory = memory
        self._loaded: _Loaded | None = None

    @classmethod
    def of_model(cls, model: "PalamModel", work: Work, *others: "PalamModel") -> "BridgeReader":
        """A reader with a model that is loaded already; it remembers nothing.

        Args:
            model: of the bridge.
            work: what is done.
            *others: models that answer together with it; for labels alone.
        """
        reader = cls(str(model.config.name_or_path), work, memory=0)
        reader._loaded = _Loaded(model, work, others)
        return reader

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_loaded": None}

    def on_device(self, device: str) -> "BridgeReader":
        """The same reader, whose model is to be loaded on a device."""
        reader = copy.copy(self)
        reader.loading = replace(self.loading, device=device)
        return reader

    def load_processor(self) -> "PalamProcessor":
        """The processor alone, which asks as the work wants it."""
        from palam.models.backbones.loading import load_config
        from palam.models.processing import PalamProcessor

        loading = self.loading
        processor = PalamProcessor.from_pretrained(
            self.checkpoint,
            encoder=loading.encoder,
            llm=loading.llm,
            second_encoder=loading.second_encoder,
            revision=loading.revision,
        )
        located = load_config(self.checkpoint, "checkpoint", loading.revision)
        self.work.set_template(processor, located.config)
        return processor

    @property
    def model(self) -> "PalamModel":
        """The model; it is loaded when it is first asked for."""
        return self._ready().model

    def _ready(self) -> "_Loaded":
        if self._loaded is None:
            model = self.loading.load(self.checkpoint)
            self._loaded = _Loaded(model, self.work)
        return self._loaded

    # ------------------------------------------------------------------ texts
    def read(
        self,
        texts: Sequence[str],
        languages: Sequence[str | None],
        *,
        start: int = 0,
        progress: Progress | None = None,
    ) -> list[Row]:
        """The results of texts, all of which can be read; see [`TextReader.read`].

        Raises:
            PalamError: one that cannot.
        """
        return self._ready().reader.read(texts, languages, start=start, progress=progress)

    def read_each(
        self, texts: Sequence[str], languages: Sequence[str | None], *, start: int = 0
    ) -> list[Row | Failure]:
        """The results of each text, or why there are none; see [`TextReader.read`]."""
        loaded = self._ready()
        results: list[Row | Failure | None] = [None] * len(texts)
        remembers = self.memory > 0 and loaded.reader.repeats
        keys = [_digest(*pair) for pair in zip(texts, languages, strict=True)] if remembers else []
        if remembers:
            results = [loaded.remembered.get(key) for key in keys]
        unknown = [row for row, result in enumerate(results) if result is None]

        def read_rows(rows: list[int]) -> list[Row]:
            return loaded.reader.read(
                [texts[row] for row in rows], [languages[row] for row in rows], start=start
            )

        for row, result in zip(unknown, results_or_failures(read_rows, unknown), strict=True):
            results[row] = result
            if remembers and not isinstance(result, Failure):
                loaded.remember(keys[row], result, self.memory)
        return [result for result in results if result is not None]

    # ------------------------------------------------------------------ chunks of rows
    @property
    def bridge(self) -> Bridge:
        """What is read with; several bridges that answer together are one."""
        return self._ready().bridge

    def read_all(
        self, chunks: Iterable[C], *, keep_errors: bool, progress: Progress | None
    ) -> Iterator[tuple[C, list[Row | Failure]]]:
        """Each chunk with the results of its texts, in order.

        Args:
            chunks: of texts.
            keep_errors: give a text that cannot be read a [`Failure`]; else it ends the reading.
            progress: called with the number of texts just read.

        Raises:
            PalamError: a text that cannot be read.
        """
        for chunk in chunks:
            yield chunk, self.read_chunk(chunk, keep_errors=keep_errors, progress=progress)

    def read_chunk(
        self, chunk: TextChunk, *, keep_errors: bool, progress: Progress | None = None
    ) -> list[Row | Failure]:
        """The results of a chunk's texts; see `read_all`."""
        if not keep_errors:
            return list(
                self.read(chunk.texts, chunk.languages, start=chunk.start, progress=progress)
            )
        results = self.read_each(chunk.texts, chunk.languages, start=chunk.start)
        if progress:
            progress(len(results))
        return results

    # ------------------------------------------------------------------ columns
    def __call__(self, batch: Batch) -> Batch:
        """The batch with the results in columns of their own.

        For labels: `prediction`, `confidence`, and for each label a column with its probability;
        else `answer`. Then `error`: why a row could not be read. Names that the batch has already
        get `palam_` in front.

        Args:
            batch: a mapping of lists or numpy arrays by column, or a table or record batch of
                pyarrow.

        Returns:
            One of the same kind.

        Raises:
            PalamError: a column that is missing, or names that cannot be had.
        """
        loaded = self._ready()
        self._check_language(loaded)
        form = TextForm.of(loaded.model.config.trained_task, self.columns.column)
        rows = self._rows(batch, form)
        pairs = [row for row in rows if not isinstance(row, Failure)]
        results = self.read_each([text for text, _ in pairs], [language for _, language in pairs])
        remaining = iter(results)
        outcomes = [row if isinstance(row, Failure) else next(remaining) for row in rows]
        return with_columns(batch, self._added(batch, outcomes, loaded.reader))

    def _check_language(self, loaded: "_Loaded") -> None:
        if not loaded.is_checked:
            uses_encoder = self.work.uses_encoder(loaded.model.config)
            check_given_language(loaded.model, self.columns, uses_encoder=uses_encoder)
            loaded.is_checked = True

    def _rows(self, batch: Batch, form: TextForm) -> list["tuple[str, str | None] | Failure"]:
        """The text and the language of each row.

        Raises:
            PalamError: a column is missing.
        """
        names = column_names(batch)
        language_column = self.columns.language_column
        needed = [*form.columns.values(), *([language_column] if language_column else [])]
        for name in needed:
            if name not in names:
                raise PalamError(f'the batch has no column "{name}" among {", ".join(names)}')
        values = {name: column_values(batch, name) for name in needed}
        rows: list[tuple[str, str | None] | Failure] = []
        for number in range(num_rows(batch)):
            row = {name: values[name][number] for name in needed}
            rows.append(self._text_and_language(NumberedRow(f"row {number}", row), form))
        return rows

    def _text_and_language(
        self, numbered: NumberedRow, form: TextForm
    ) -> "tuple[str, str | None] | Failure":
        for value in numbered.row.values():
            if isinstance(value, Failure):
                return value
        language = self.columns.language
        try:
            if self.columns.language_column is not None:
                language = language_of(numbered.row, self.columns.language_column, numbered.place)
            return form.text(numbered), language
        except PalamError as error:
            return Failure(str(error))

    def _added(
        self, batch: Batch, outcomes: list[Row | Failure], reader: TextReader
    ) -> list[AddedColumn]:
        """The columns of the results."""
        usual = [name for name in self.work.results if name != SCORES]
        own = column_names(batch)
        names = free_names(own, [*usual, ERROR])
        label_names = free_names([*own, *names.values()], reader.labels)
        added = []
        for name in usual:
            values = [None if isinstance(row, Failure) else row[name] for row in outcomes]
            kind: Any = "number" if name == "confidence" else "text"
            added.append(AddedColumn(names[name], kind, values))
        shares = [_shares(row, reader) for row in outcomes]
        for number, label in enumerate(reader.labels):
            column = [share[number] for share in shares]
            added.append(AddedColumn(label_names[label], "number", column))
        errors = [row.reason if isinstance(row, Failure) else None for row in outcomes]
        return [*added, AddedColumn(names[ERROR], "text", errors)]


@dataclass
class _Loaded:
    """A model, and what reads with it."""

    model: "PalamModel"
    work: Work
    others: "Sequence[PalamModel]" = ()
    """That answer together with the model."""
    remembered: "OrderedDict[bytes, Row]" = field(default_factory=OrderedDict)
    is_checked: bool = False
    reader: TextReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = self.work.on(self.model, *self.others)

    @cached_property
    def bridge(self) -> Bridge:
        """See [`BridgeReader.bridge`]; the identity of several is found once."""
        if not self.others:
            return self.model
        identity = identity_together([self.model, *self.others])
        return BridgeView(self.model.config, self.model.processor, identity)

    def remember(self, key: bytes, result: Row, most: int) -> None:
        """Keep a text's results, and forget the oldest where they become too many."""
        self.remembered[key] = result
        while len(self.remembered) > most:
            self.remembered.popitem(last=False)


def _digest(text: str, language: str | None) -> bytes:
    """What stands for a text in its language: as short for a long one."""
    content = f"{language or ''}\0{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).digest()


def _shares(result: Row | Failure, reader: TextReader) -> list[float | None]:
    """The probability of each label; none of a row that failed, or where no labels are scored."""
    if isinstance(result, Failure) or not reader.labels:
        return [None] * len(reader.labels)
    return list(probabilities(result[SCORES].values()))
