"""A job over rows, as `palam classify` and `palam generate` do it: rows in, rows out, in order.

To standard output, a pipe or a device the rows go as they are done. To a file they go through a
[`Journal`], from which a run that was stopped goes on; the output appears when it is whole.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from palam.cli._columns import ResultColumns
from palam.cli._identity import run_identity
from palam.cli._journal import Journal, journal_path, journal_state, open_journal
from palam.cli._languages import check_given_language, check_row_languages
from palam.cli._options import LoadingConfig
from palam.cli._output import check_apart, check_file_writable, is_device, open_rows
from palam.cli._source import Chunk, SourceConfig, one_row, one_text, read_chunks
from palam.cli._text_notes import EncodingWatch, tell_of_empty_answers, tell_what_was_lost
from palam.errors import PalamError
from palam.inference.text_form import TextForm
from palam.scale.bridge import Bridge
from palam.scale.failures import ERROR, Failure
from palam.scale.shards import read_job
from palam.tasks.formats import Row
from palam.tasks.readers import NumberedRow
from palam.tasks.writers import (
    FLAT_FORMATS,
    check_format,
    json_line,
    output_format,
    write_rows,
)
from palam.utils.files import atomic_file, output_place
from palam.utils.locks import output_lock
from palam.utils.notes import tell
from palam.utils.progress import progress_bar

CHUNK_BATCHES = 8
"""Batches whose rows are in memory, and done, at a time: so much is lost when a run is stopped."""

Progress = Callable[[int], None]


# ------------------------------------------------------------------ the place of the output
@contextlib.contextmanager
def reserved_output(source: SourceConfig) -> Iterator[None]:
    """Refuse an output that cannot or should not be written, before any work; hold it meanwhile.

    Raises:
        PalamError: a place where no file can be written, a format without its package, a file that
            is there already, or rows of an unfinished run that are not to be gone on with.
    """
    if source.out is None:
        yield
        return
    check_apart([source.out], [Path(source.file)] if source.file else [])
    file_format = output_format(source.out)
    place = file_place(source.out)
    if place is None:
        if file_format != "jsonl":
            raise PalamError(f"{source.out} is a pipe or a device, to which only JSON lines go")
        if source.resume:
            raise PalamError(f"{source.out} is a pipe or a device; --resume needs a file")
        yield
        return
    check_file_writable(place)
    check_format(file_format, [])
    with _new_folders(place), output_lock(place):
        _check_earlier_run(place, source)
        yield


def file_place(out: Path | None) -> Path | None:
    """The file that an output is, behind links; None for standard output, a pipe or a device.

    Raises:
        PalamError: no name for a file.
    """
    if out is None or is_device(out):
        return None
    place = output_place(out)
    return place if out.is_symlink() else out


def loading_as_begun(loading: LoadingConfig, source: SourceConfig) -> LoadingConfig:
    """How to load the model: in a run that goes on, what `auto` stands for stays what it was.

    Which dtype is the faster one is measured each time, and need not come out the same.
    """
    place = file_place(source.out)
    if place is None or loading.dtype != "auto" or not (source.resume or source.is_corpus):
        return loading
    from palam.utils.device import DTYPES

    if source.is_corpus:
        job = read_job(place)
        identity = {} if job is None else job.identity
    else:
        identity = journal_state(journal_path(place)).identity or {}
    dtype = identity.get("dtype")
    return replace(loading, dtype=dtype) if dtype in DTYPES else loading


@contextlib.contextmanager
def _new_folders(place: Path) -> Iterator[None]:
    """Remove the folders that are made for an output, if nothing comes of it."""
    new = [folder for folder in place.absolute().parents if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in new:
            with contextlib.suppress(OSError):  # there is something in it
                folder.rmdir()
        raise


def _check_earlier_run(place: Path, source: SourceConfig) -> None:
    """Refuse to lose what an earlier run has written, or is still to write.

    Where an output stands beside a journal of all rows, the run was killed between the two.
    """
    journal = journal_path(place)
    state = journal_state(journal)
    if source.overwrite:
        return
    if source.resume:
        if not place.exists() or state.is_complete:
            return
        if state.num_rows:
            raise PalamError(
                f"{place} exists already; to replace it with what {journal.name} becomes, give "
                "--overwrite beside --resume"
            )
        raise PalamError(
            f"{place} is complete, there is nothing to resume; --overwrite begins anew"
        )
    if place.exists():
        raise PalamError(f"{place} exists already; give another place, or --overwrite")
    if state.num_rows:
        raise PalamError(
            f"{journal} holds {state.num_rows:,} rows of an unfinished run; --resume goes on "
            "after them, --overwrite begins anew"
        )


# ------------------------------------------------------------------ the job
class ReadAll(Protocol):
    """Reads chunks, one or several at a time."""

    def __call__(
        self, chunks: Iterable[Chunk], *, keep_errors: bool, progress: Progress | None
    ) -> Iterator[tuple[Chunk, list[Row | Failure]]]:
        """Each chunk with the results of its texts, by usual name, in order.

        Args:
            chunks: of rows.
            keep_errors: give a text that cannot be read a [`Failure`]; else it ends the reading.
            progress: called with the number of texts just read.
        """


class RowJob(NamedTuple):
    """What is done with rows.

    Attributes:
        description: for the progress: `"classifying"`.
        results: usual names of the columns that each row gets.
        identity: the options on which the results depend, by name.
        labels: whose probabilities are columns of their own in a flat format.
        uses_encoder: whether the encoder reads the texts.
        read_all: gives each text of the chunks its results, by usual name.
    """

    description: str
    results: tuple[str, ...]
    read_all: ReadAll
    identity: dict[str, Any]
    labels: tuple[str, ...] = ()
    uses_encoder: bool = True


class RowsIn(NamedTuple):
    """What a run reads.

    Attributes:
        rows: from the first.
        columns: of the first row, the user's.
        total: how many rows there are; None is not known.
    """

    rows: Iterator[NumberedRow]
    columns: tuple[str, ...]
    total: int | None


def process_rows(
    model: Bridge,
    source: SourceConfig,
    job: RowJob,
    *,
    batch_size: int,
    after_output: Callable[[], None] | None = None,
) -> None:
    """Do a job over all rows of a source, and write the results.

    Args:
        model: with the template that the job uses.
        source: the rows, and where the results go; see [`reserved_output`], within which this runs.
        job: what is done.
        batch_size: of the job; a chunk is some batches.
        after_output: called when the output of a file is there, before its journal goes; such a
            file, one of many, may have no rows.

    Raises:
        PalamError: rows that cannot be read, a language that is not known, a journal of another
            run, or an output that cannot be written. What is done stays, and the message says so.
        KeyboardInterrupt: the run was stopped; the text says how to go on.
    """
    check_given_language(model, source, uses_encoder=job.uses_encoder)
    form = TextForm.of(model.config.trained_task, source.text_column)
    chunk_size = CHUNK_BATCHES * batch_size
    place = file_place(source.out)
    file_format = "jsonl" if place is None else output_format(place)
    rows_in = _open_rows_in(source, form, accepts_empty=after_output is not None)
    labels = job.labels if file_format in FLAT_FORMATS else ()
    results = (*job.results, ERROR) if source.keep_errors else job.results
    columns = ResultColumns.beside(rows_in.columns, results, labels)
    check_format(file_format, columns.all_columns([dict.fromkeys(rows_in.columns)]))
    run = _Run(model, source, job, form, columns, chunk_size)
    if place is None:
        with open_rows(source.out) as output:
            for row in run.finished_rows(rows_in.rows, total=rows_in.total):
                output.write(row)
    else:
        identity = run_identity(model, source, form, job.identity)
        _write_file(run, rows_in, _Output(place, file_format, identity, after_output))
    if run.num_failed:
        tell(f'{run.num_failed:,} rows could not be read; their column "error" says why')
    tell_of_empty_answers(run.num_empty, run.num_answers, model.config.trained_task)
    tell_what_was_lost(model)


def _open_rows_in(source: SourceConfig, form: TextForm, *, accepts_empty: bool) -> RowsIn:
    """The rows of a source, of which the first is read already.

    Raises:
        PalamError: it has none and must have one, or the first cannot be read.
    """
    if source.text is not None:
        only = one_row(source)
        return RowsIn(iter([only]), tuple(only.row), 1)
    file = source.open()
    rows = file.rows(column=form.expected_column)
    first = next(rows, None)
    if first is None:
        if accepts_empty:
            return RowsIn(iter(()), (), 0)
        raise PalamError(f"{file.name} is empty")
    return RowsIn(chain([first], rows), tuple(first.row), file.count())


@dataclass
class _Run:
    """A job over a source's rows, under way."""

    model: Bridge
    source: SourceConfig
    job: RowJob
    form: TextForm
    columns: ResultColumns
    chunk_size: int
    num_failed: int = 0
    num_answers: int = 0
    num_empty: int = 0
    """Of the answers."""
    encodings: EncodingWatch = field(default_factory=EncodingWatch)

    def finished_rows(
        self, rows: Iterable[NumberedRow], *, total: int | None, start: int = 0
    ) -> Iterator[Row]:
        """The rows with their results.

        Args:
            rows: those that are left to do.
            total: how many rows there are in all, for the progress.
            start: how many are done.
        """
        with _row_progress(self.source, self.job.description, total, start) as advance:
            chunks = self._checked_chunks(rows, start)
            keep_errors = self.source.keep_errors
            read = self.job.read_all(chunks, keep_errors=keep_errors, progress=advance)
            for chunk, results in read:
                outcomes = chunk.with_failures(results)
                for numbered, outcome in zip(chunk.rows, outcomes, strict=True):
                    yield self.columns.with_results(numbered.row, self._result_row(outcome))

    def _result_row(self, outcome: Row | Failure) -> Row:
        """The results of a row, by usual name; those of one that failed are empty."""
        if isinstance(outcome, Failure):
            self.num_failed += 1
            return {**dict.fromkeys(self.job.results), ERROR: outcome.reason}
        if "answer" in outcome:
            self.num_answers += 1
            self.num_empty += not outcome["answer"].strip()
        return {**outcome, ERROR: None}

    def _checked_chunks(self, rows: Iterable[NumberedRow], start: int) -> Iterator[Chunk]:
        """The chunks of rows, whose columns and languages can be had."""
        known_languages: set[str | None] = set()
        for chunk in self._chunks(rows, start):
            for numbered in chunk.rows:
                self.columns.check(numbered)
            if self.job.uses_encoder and not self.source.keep_errors:
                check_row_languages(self.model, chunk, known_languages)
            self.encodings.look_at(chunk)
            yield chunk

    def _chunks(self, rows: Iterable[NumberedRow], start: int) -> Iterator[Chunk]:
        if self.source.text is not None:
            return iter([one_text(self.source, self.model.config.trained_task)])
        return read_chunks(rows, self.form, self.source, self.chunk_size, start)

    def rows_left(self, rows: Iterator[NumberedRow], journal: Journal) -> Iterator[NumberedRow]:
        """The rows that are not done yet; those that are must be the journal's.

        A chunk that is not all done is done again, so that a run that was stopped gives what one
        that was not gives, to the last digit and the last random number.

        Raises:
            PalamError: a row of the journal is another than the file's.
        """
        num_whole = journal.num_rows - journal.num_rows % self.chunk_size
        repeated = []
        # Rows of before --keep-errors have no column for errors, and no error.
        results = [name for usual, name in self.columns.names.items() if usual != ERROR]
        for number, done in enumerate(journal.rows(results)):
            numbered = next(rows, None)
            if numbered is None or json_line(numbered.row) != json_line(self.columns.own(done)):
                where = "which ends before" if numbered is None else numbered.place
                raise PalamError(
                    f"{journal.path} is of other rows: its row {number + 1} is not that of "
                    f"{self.source.file} ({where}); give the same file, or --overwrite in place "
                    "of --resume to begin anew"
                )
            if number >= num_whole:
                repeated.append(numbered)
        following = next(rows, None)
        if following is None:
            return iter(())
        journal.keep(num_whole)
        return chain(repeated, [following], rows)


class _Output(NamedTuple):
    """The file that a run writes.

    Attributes:
        place: where it is.
        file_format: of it.
        identity: of the run.
        when_written: called before its journal goes.
    """

    place: Path
    file_format: str
    identity: dict[str, Any]
    when_written: Callable[[], None] | None


def _write_file(run: _Run, rows_in: RowsIn, output: _Output) -> None:
    """Do the rows that are left, and write the output when all are done."""
    path = journal_path(output.place)
    with open_journal(path, output.identity, resume=run.source.resume) as journal:
        rows = run.rows_left(rows_in.rows, journal)
        with _telling_how_to_go_on(journal, rows_in.total):
            start = journal.num_rows
            for row in run.finished_rows(rows, total=rows_in.total, start=start):
                journal.append(row)
            journal.finish()
            _write_output(journal, run.columns, output.place, output.file_format)
            if output.when_written is not None:
                output.when_written()
    path.unlink(missing_ok=True)


def _write_output(journal: Journal, columns: ResultColumns, place: Path, file_format: str) -> None:
    names = []
    rows = map(columns.completed, journal.rows())
    if file_format in FLAT_FORMATS:
        names = columns.all_columns(rows)
        rows = map(columns.flat, map(columns.completed, journal.rows()))
    with atomic_file(place) as file:
        write_rows(rows, names, file, file_format)


@contextlib.contextmanager
def _telling_how_to_go_on(journal: Journal, total: int | None) -> Iterator[None]:
    """Say, when the block is stopped, what is done and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if not journal.num_rows:
            raise
        raise KeyboardInterrupt(f"after {_advice(journal, total)}") from None
    except (PalamError, OSError) as error:
        if not journal.num_rows:
            raise
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise PalamError(f"{reason}; stopped after {_advice(journal, total)}") from None
    except Exception as error:
        if journal.num_rows:
            error.add_note(f"palam: stopped after {_advice(journal, total)}")
        raise


def _advice(journal: Journal, total: int | None) -> str:
    done = f"{journal.num_rows:,}" if total is None else f"{journal.num_rows:,} of {total:,}"
    return f"{done} rows; to go on, give the same command with --resume"


def _row_progress(
    source: SourceConfig, description: str, total: int | None, done: int
) -> AbstractContextManager[Progress | None]:
    """A progress bar, but not where the rows are printed to the terminal themselves."""
    prints_to_terminal = source.out is None and sys.stdout is not None and sys.stdout.isatty()
    if source.text is not None or prints_to_terminal:
        return nullcontext()
    return progress_bar(description, total, done=done)
