"""Many files, each of which becomes one of an output folder; see [`palam.scale.shards`]."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from palam.cli._identity import run_identity
from palam.cli._journal import journal_path, journal_state
from palam.cli._output import check_writable
from palam.cli._rows import RowJob, process_rows, reserved_output
from palam.cli._source import SourceConfig
from palam.errors import PalamError
from palam.inference.text_form import TextForm
from palam.scale.bridge import Bridge
from palam.scale.identity import Identity, identity_change
from palam.scale.shards import (
    CorpusFile,
    Job,
    Shard,
    claim_job,
    corpus_files,
    file_facts,
    mark_done,
    read_job,
    state_of,
)
from palam.scale.workers import WorkersLost

MAX_NAMED = 3
"""How many of the files that could not be read a message names."""


@contextlib.contextmanager
def reserved_folder(source: SourceConfig) -> Iterator[None]:
    """Refuse a folder that cannot be written or is not of such a job, before any work.

    Raises:
        PalamError: it is so.
    """
    assert source.out is not None
    check_writable(source.out)
    read_job(source.out)
    yield


def process_corpus(
    bridge: Bridge, source: SourceConfig, job: RowJob, shard: Shard, *, batch_size: int
) -> None:
    """Do a job over the files of a shard that are not done yet.

    A file that cannot be read does not keep the others from it.

    Args:
        bridge: what is read with.
        source: the files, and the output folder.
        job: what is done.
        shard: which of the files.
        batch_size: of the job.

    Raises:
        PalamError: another job is in the output folder, or files that could not be read; the
            others are done.
    """
    out = source.out
    assert out is not None
    form = TextForm.of(bridge.config.trained_task, source.column)
    identity = run_identity(bridge, source, form, job.identity)
    claimed = Job(identity, str(Path(str(source.file)).absolute()))
    claim_job(out, claimed, overwrite=source.overwrite)
    files = shard.of(corpus_files(str(source.file)))
    failures = []
    for number, file in enumerate(files, 1):
        if state_of(out, file, identity) == "done":
            continue
        described = job._replace(
            description=f"{job.description} {file.name} ({number} of {len(files)})"
        )
        try:
            _process_file(bridge, source, described, file, identity, batch_size)
        except WorkersLost:
            raise
        except (PalamError, UnicodeError) as error:
            failures.append(f"{file.name}: {error}")
    if failures:
        raise PalamError(_of_failures(failures, len(files)))


def _process_file(
    bridge: Bridge,
    source: SourceConfig,
    job: RowJob,
    file: CorpusFile,
    identity: Identity,
    batch_size: int,
) -> None:
    """Do a job over one file; its marker follows when its output is there."""
    assert source.out is not None
    output = source.out / file.name
    journal = journal_state(journal_path(output))
    if output.exists() and journal.identity is None and not source.overwrite:
        known = state_of(source.out, file, identity)
        if known == "missing":
            raise PalamError(f"{output} exists already, and is of no such job; move it away")
    is_ours = journal.identity is not None and not identity_change(journal.identity, identity)
    resume = is_ours or not source.overwrite
    options: dict[str, Any] = {"file": str(file.path), "out": output}
    file_source = replace(source, resume=resume, overwrite=True, **options)
    facts = file_facts(file.path)

    def mark() -> None:
        assert source.out is not None
        mark_done(source.out, file, identity, facts)

    with reserved_output(file_source):
        process_rows(bridge, file_source, job, batch_size=batch_size, after_output=mark)


def _of_failures(failures: list[str], num_files: int) -> str:
    """One line on the files that could not be read."""
    more = len(failures) - MAX_NAMED
    named = "; ".join(failures[:MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")
    return f"{len(failures)} of {num_files} files are not done, the others are: {named}"
