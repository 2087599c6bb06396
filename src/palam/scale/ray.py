"""A folder of Parquet files read with Ray Data, on one machine or on a cluster.

The files go through `read_parquet`, [`BridgeReader`] in a pool of actors, and `write_parquet`. Each
row has an id of its file and its place there (`row_hash`), by which Ray keeps account of the rows
that are written: a run that was killed goes on with the others, and each row is there once. That
account is in `<out>.partial` until all are. Rows come out in any order.

Ray runs its actors at niceness 15 unless `RAY_worker_niceness` says otherwise: beside other work,
they come last.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palam.errors import PalamError
from palam.scale.reader import BridgeReader
from palam.scale.shards import CorpusFile, Job, claim_job, corpus_files, is_finished, note_finished
from palam.tasks.parquet import count_parquet
from palam.utils.texts import first_line

ROW_ID = "row_hash"
"""The column of each row's id."""
BATCH_ROWS = 256
"""How many rows an actor gets at a time."""
MAX_BLOCK_ROWS = 5000
"""How many rows are written at a time, at most: so many are lost where an actor is killed."""
BLOCKS_PER_ACTOR = 4
"""How many times each actor gets rows, at least: all are to end at about the same time."""
OTHER_TASKS = 3
"""Cores of a cluster of one machine beside the actors': reading, writing, and rows done before."""


@dataclass(frozen=True)
class RayConfig:
    """Where the actors are, and how many.

    Raises:
        PalamError: no actor.
    """

    actors: int = 1
    """How many read at the same time, each with a model of its own."""
    cores: int = 1
    """Of each actor, and so many threads."""
    cards: float = 0
    """Graphics cards of each actor, or a part of one."""
    address: str | None = None
    """Of a cluster, or `auto`; None starts one of this machine, for as long as the run goes."""

    def __post_init__(self) -> None:
        if self.actors < 1 or self.cores < 1:
            raise PalamError("a run with Ray needs at least one actor, and a core for each")


def read_parquet_folder(
    reader: BridgeReader,
    files: str,
    out: str | Path,
    identity: dict[str, Any],
    config: RayConfig | None = None,
) -> None:
    """Read the rows of Parquet files with Ray, and write them with the results beside them.

    Args:
        reader: what reads.
        files: a folder, or a pattern.
        out: the folder of the results, which gets Parquet files; those of the same job, killed
            before its end, are gone on with.
        identity: of the job, see [`model_identity`].
        config: where, and with how many actors.

    Raises:
        PalamError: Ray is missing, other files than Parquet, a column `row_hash`, or another job in
            the folder.
    """
    config = config or RayConfig()
    out = Path(out).absolute()
    inputs = parquet_files(files)
    job = Job({**identity, "engine": "ray", "files": _paths_and_sizes(inputs)}, _absolute(files))
    claim_job(out, job)
    if is_finished(out):
        return
    account = out.with_name(f"{out.name}.partial")
    with _cluster(config) as ray:
        _run(ray, reader, inputs, out, account, config)
    check_rows(inputs, out)
    note_finished(out, job.identity)
    shutil.rmtree(account, ignore_errors=True)


def parquet_files(files: str) -> list[CorpusFile]:
    """The files of a folder or a pattern, all of them Parquet.

    Raises:
        PalamError: there are others, or a column `row_hash`.
    """
    inputs = corpus_files(files)
    for file in inputs:
        if file.path.suffix.lower() != ".parquet":
            raise PalamError(f"{file.path} is no Parquet file, which --engine ray reads alone")
    import pyarrow.parquet

    if ROW_ID in pyarrow.parquet.read_schema(inputs[0].path).names:
        raise PalamError(f'{inputs[0].path} has a column "{ROW_ID}", which Ray needs; rename it')
    return inputs


def rows_of_each(num_rows: int, actors: int) -> int:
    """How many rows are read, and written to a file, at a time."""
    share = num_rows // (BLOCKS_PER_ACTOR * actors)
    return min(MAX_BLOCK_ROWS, max(BATCH_ROWS, share))


def rows_written(out: Path) -> int:
    """How many rows an output folder has."""
    return sum(count_parquet(path) for path in out.glob("*.parquet"))


def check_rows(inputs: list[CorpusFile], out: Path) -> None:
    """See that as many rows came out as went in.

    Raises:
        PalamError: they did not.
    """
    expected = sum(count_parquet(file.path) for file in inputs)
    written = rows_written(out)
    if written != expected:
        raise PalamError(f"{out} has {written:,} rows, its input {expected:,}; read it anew")


def _absolute(files: str) -> str:
    return str(Path(files).absolute())


def _paths_and_sizes(inputs: list[CorpusFile]) -> list[list[Any]]:
    """What the rows' ids depend on."""
    return [[str(file.path.absolute()), file.path.stat().st_size] for file in inputs]


@contextmanager
def _cluster(config: RayConfig) -> Iterator[Any]:
    """Ray, connected to its cluster within the block.

    Raises:
        PalamError: it is missing, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError:
        raise PalamError('--engine ray needs Ray: pip install "palam[ray]"') from None
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if config.address is None:
        num_cores = config.actors * config.cores + OTHER_TASKS
        options.update(num_cpus=num_cores, include_dashboard=False)
    is_connected = ray.is_initialized()
    try:
        if not is_connected:
            ray.init(config.address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise PalamError(f"no Ray cluster at {config.address!r}: {first_line(error)}") from None
    try:
        yield ray
    finally:
        if not is_connected:
            ray.shutdown()


def _run(
    ray: Any,
    reader: BridgeReader,
    inputs: list[CorpusFile],
    out: Path,
    account: Path,
    config: RayConfig,
) -> None:
    """Read the rows that are not written yet, and write them."""
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.checkpoint import CheckpointConfig

    context = DataContext.get_current()
    before = context.checkpoint_config, context.enable_progress_bars
    context.checkpoint_config = CheckpointConfig(
        id_column=ROW_ID, checkpoint_path=str(account), delete_checkpoint_on_success=False
    )
    context.enable_progress_bars = os.isatty(2)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        rows = ray.data.read_parquet(
            [str(file.path.absolute()) for file in inputs],
            include_row_hash=True,
        )
        num_rows = sum(count_parquet(file.path) for file in inputs)
        rows = rows.repartition(target_num_rows_per_block=rows_of_each(num_rows, config.actors))
        rows = rows.map_batches(
            BridgeReader,
            fn_constructor_args=(reader.checkpoint, reader.work),
            fn_constructor_kwargs={
                "columns": reader.columns,
                "loading": reader.loading,
                "memory": reader.memory,
            },
            batch_size=BATCH_ROWS,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=config.actors),
            num_cpus=config.cores,
            num_gpus=config.cards,
        )
        rows.write_parquet(str(out))
    finally:
        context.checkpoint_config, context.enable_progress_bars = before
