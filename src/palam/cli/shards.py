"""`palam shards`."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from palam.cli._output import print_text, print_values
from palam.errors import PalamError
from palam.scale.shards import State, corpus_files, is_finished, read_job, state_of
from palam.utils.texts import printable

STATES: tuple[State, ...] = ("done", "begun", "missing", "changed", "of another job")


def shards(
    action: Annotated[Literal["status"], Parameter(help="status: what is done, and what is not.")],
    folder: Annotated[Path, Parameter(help="The folder --out of a run over many files.")],
    /,
    *,
    file: str | None = None,
) -> int:
    """Look at a run over many files.

    Says how many files are done, and names those that are not. The exit code is 0 if all are done,
    else 1.

    Args:
        file: The files, if they are not where the run has found them.
    """
    job = read_job(folder)
    if job is None:
        raise PalamError(f"{folder} is no output of a run over many files")
    if job.identity.get("engine") == "ray":
        return _ray_status(folder, file or job.files)
    states = {
        each.name: state_of(folder, each, job.identity) for each in corpus_files(file or job.files)
    }
    for name, state in states.items():
        if state != "done":
            print_text(f"{printable(name)}: {state}\n")
    counts = Counter(states.values())
    print_values({state: f"{counts[state]:,}" for state in STATES if counts[state]})
    return 0 if counts["done"] == len(states) else 1


def _ray_status(folder: Path, files: str) -> int:
    """How many rows a run with Ray has written, of how many; the exit code."""
    from palam.scale.ray import parquet_files, rows_written
    from palam.tasks.parquet import count_parquet

    total = sum(count_parquet(file.path) for file in parquet_files(files))
    written = rows_written(folder)
    print_values({"rows written": f"{written:,} of {total:,}"})
    return 0 if is_finished(folder) else 1
