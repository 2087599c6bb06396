"""A folder of input files read in parts, by any number of processes on any machines.

Each input file becomes one output file of the same name, written aside and renamed, and a marker
beside it that says of which job it is. What is done is not done again; nothing needs to know of
other processes. It works wherever files can be renamed: in arrays of SLURM, in cron, in Kubernetes.

```text
out/part-0.parquet  out/part-1.parquet
out/_palam/job.json                        whose results these are
out/_palam/done/part-0.parquet.json        one for each file that is done
```
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from palam.errors import PalamError
from palam.scale.identity import Identity, identity_change
from palam.tasks.parquet import is_saved_dataset
from palam.utils.asides import aside_of
from palam.utils.files import atomic_file

ENDINGS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
"""Of the files of a folder that are read; each is written in the format that it has."""
NOTES = "_palam"
"""The folder in an output's in which the job is noted; other readers of folders pass over it."""
VERSION = 1
PATTERN_SIGNS = re.compile(r"[*?\[]")

State = Literal["done", "begun", "missing", "changed", "of another job"]


class CorpusFile(NamedTuple):
    """A file of a folder.

    Attributes:
        path: where it is.
        name: its path within the folder, with slashes.
    """

    path: Path
    name: str


class Shard(NamedTuple):
    """A part of a folder's files: every `out_of`-th, from the one of its number on, from 0."""

    number: int = 0
    out_of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard that `i/n` means, where `i` is from 0 to n - 1.

        Raises:
            PalamError: it means none.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if match is None or int(match[1]) >= int(match[2]):
            raise PalamError(
                f"--shard is {text!r}; give its number from 0 and how many there are: 0/8 to 7/8"
            )
        return cls(int(match[1]), int(match[2]))

    def of(self, files: list[CorpusFile]) -> list[CorpusFile]:
        """The shard's files."""
        return files[self.number :: self.out_of]


# ------------------------------------------------------------------ the files
def is_corpus(file: str) -> bool:
    """Whether files are named: a folder (but one that `datasets` saved), or a pattern."""
    path = Path(file)
    with contextlib.suppress(OSError, ValueError):
        if path.is_dir():
            return not is_saved_dataset(path)
        return PATTERN_SIGNS.search(file) is not None and not path.exists()
    return False


def corpus_files(file: str) -> list[CorpusFile]:
    """The files of a folder, those of its folders too, or that a pattern names; sorted by name.

    Names that begin with a dot or an underscore are passed over, as other readers of folders do.

    Args:
        file: a folder, or a pattern such as `corpus/*.parquet`; `**` is any folders.

    Raises:
        PalamError: there is none.
    """
    root = Path(file) if Path(file).is_dir() else _fixed_part(file)
    if root == Path(file):
        paths = list(root.rglob("*"))
    else:
        paths = list(root.glob(str(Path(file).relative_to(root))))
    files = []
    for path in paths:
        parts = path.relative_to(root).parts
        is_hidden = any(part.startswith((".", "_")) for part in parts)
        if path.suffix.lower() in ENDINGS and not is_hidden and path.is_file():
            files.append(CorpusFile(path, "/".join(parts)))
    if not files:
        raise PalamError(f"{file} holds none of these files: {', '.join(ENDINGS)}")
    return sorted(files, key=lambda each: each.name)


def _fixed_part(pattern: str) -> Path:
    """The folder that stands before a pattern's first sign."""
    fixed = pattern[: PATTERN_SIGNS.search(pattern).start()]  # type: ignore[union-attr]
    return Path(fixed).parent if not fixed.endswith(("/", os.sep)) else Path(fixed)


# ------------------------------------------------------------------ the job
class Job(NamedTuple):
    """A job as it is noted beside its outputs.

    Attributes:
        identity: what the results depend on, but for the files.
        files: the folder or pattern, as an absolute path.
    """

    identity: Identity
    files: str


def job_path(out: Path) -> Path:
    """Where the job of an output folder is noted."""
    return out / NOTES / "job.json"


def read_job(out: Path) -> Job | None:
    """The job of an output folder, if one was begun there.

    Raises:
        PalamError: what is noted is damaged.
    """
    content = _read_note(job_path(out))
    if content is None:
        return None
    return Job(content["identity"], str(content.get("files", "")))


def claim_job(out: Path, job: Job, *, overwrite: bool = False) -> None:
    """Note the job of an output folder, or see that it is the one that is noted.

    Of several processes that begin at the same moment one notes it, and the others see that.

    Args:
        out: the folder.
        job: that is to be done.
        overwrite: let it take the place of another.

    Raises:
        PalamError: another job is noted; the message says in what it differs.
    """
    path = job_path(out)
    content = {"palam_job": VERSION, **job._asdict()}
    if read_job(out) is None:
        _write_new_note(path, content)
    noted = read_job(out)
    change = identity_change(noted.identity, job.identity) if noted else None
    if change is None:
        return
    if not overwrite:
        raise PalamError(
            f"{out} is of another job: {change}; give the same options, another --out, or "
            "--overwrite to do its files anew"
        )
    _write_note(path, content)


# ------------------------------------------------------------------ markers
def marker_path(out: Path, file: CorpusFile) -> Path:
    """Where it is noted that a file is done."""
    return out / NOTES / "done" / f"{file.name}.json"


def file_facts(path: Path) -> dict[str, Any]:
    """What a file is recognised by: its size, the time of its last change, and its SHA-256."""
    from palam.training.checksums import file_sha256

    status = path.stat()
    return {"size": status.st_size, "changed": status.st_mtime_ns, "sha256": file_sha256(path)}


def mark_done(out: Path, file: CorpusFile, identity: Identity, facts: Mapping[str, Any]) -> None:
    """Note that a file's output is there.

    Args:
        out: the output folder.
        file: the input.
        identity: of the job.
        facts: of the input as it was read, see [`file_facts`].
    """
    content = {"palam_done": VERSION, "identity": identity, "input": dict(facts)}
    _write_note(marker_path(out, file), content)


def state_of(out: Path, file: CorpusFile, identity: Identity) -> State:
    """What has become of a file.

    Args:
        out: the output folder.
        file: the input.
        identity: of the job.

    Returns:
        `done` if its output and its marker are there, the marker is of this job and of the file as
        it is now; else in what that fails. `begun` is that some rows are done.

    Raises:
        PalamError: what is noted is damaged.
    """
    marker = _read_note(marker_path(out, file))
    output = out / file.name
    if marker is None or not output.is_file():
        return "begun" if output.with_name(f"{output.name}.partial").exists() else "missing"
    if identity_change(marker["identity"], identity) is not None:
        return "of another job"
    return "done" if _is_as_read(file.path, marker.get("input", {})) else "changed"


def _is_as_read(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a file is still what was read; where its time of change tells it, it is not read."""
    try:
        status = path.stat()
        if status.st_size != facts.get("size"):
            return False
        if status.st_mtime_ns == facts.get("changed"):
            return True
        return bool(file_facts(path)["sha256"] == facts.get("sha256"))
    except OSError:
        return False


# ------------------------------------------------------------------ notes
def _read_note(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PalamError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("identity"), dict):
        raise PalamError(f"{path} is damaged; delete it")
    return content


def _write_note(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_file(path) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")


def _write_new_note(path: Path, content: Mapping[str, Any]) -> None:
    """Write a note that is not there yet; one that another process writes meanwhile stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside_of(path) as aside:
            try:
                aside.write_bytes(json.dumps(content, indent=1).encode() + b"\n")
                os.link(aside, path)
            finally:
                aside.unlink(missing_ok=True)
    except FileExistsError:
        return
    except OSError as error:
        if path.parent.is_dir() and not path.exists() and error.errno is not None:
            _write_note(path, content)  # a disk without links
            return
        raise PalamError(f"{path} cannot be written: {error.strerror or error}") from None


# ------------------------------------------------------------------ jobs that are not done by file
def is_finished(out: Path) -> bool:
    """Whether all of a job is done; see [`note_finished`]."""
    return _read_note(out / NOTES / "finished.json") is not None


def note_finished(out: Path, identity: Identity) -> None:
    """Note that all of a job is done."""
    _write_note(out / NOTES / "finished.json", {"palam_done": VERSION, "identity": identity})
