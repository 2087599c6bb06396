"""Options of reading much, and what they come to: a reader in this process, or in several."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from palam.cli._corpus import process_corpus, reserved_folder
from palam.cli._options import (
    EngineLoadingConfig,
    LoadingConfig,
    load_model,
    load_models,
)
from palam.cli._rows import RowJob, loading_as_begun, process_rows, reserved_output
from palam.cli._several_bridges import check_bridges_alike
from palam.cli._source import SourceConfig
from palam.errors import PalamError
from palam.scale.reader import BridgeReader, ReaderLoading
from palam.scale.shards import Shard
from palam.scale.work import Labelling, Work
from palam.scale.workers import WorkerPool, devices_of_each, num_cores, threads_of_each

Reader = BridgeReader | WorkerPool


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """How many read, and which files.

    Raises:
        PalamError: a shard that is none.
    """

    workers: int | Literal["auto"] = 1
    """Processes that read, each with a share of the cores, or a graphics card in turn; auto is one
    for each of these."""
    shard: str | None = None
    """Of many files, only every n-th from number i on, as i/n: 0/8 to 7/8."""

    def __post_init__(self) -> None:
        if self.workers != "auto" and self.workers < 1:
            raise PalamError(f"--workers is {self.workers}; give 1 or more, or auto")
        if self.shard is not None:
            Shard.parse(self.shard)

    @property
    def own_shard(self) -> Shard:
        """The part of the files that this run reads."""
        return Shard() if self.shard is None else Shard.parse(self.shard)

    def check(self, source: SourceConfig) -> None:
        """Refuse what has no meaning for these texts.

        Raises:
            PalamError: several processes for one text, or a shard of one file.
        """
        if self.workers != 1 and source.file is None:
            raise PalamError("--workers needs --file")
        if self.shard is not None and not source.is_corpus:
            raise PalamError("--shard needs many files: --file FOLDER, or a pattern")


ScaleOptions = Annotated[ScaleConfig, Parameter(name="*", group=Group("Scale", sort_key=5))]
SCALE_DEFAULTS = ScaleConfig()


def read_source(
    checkpoint: str,
    work: Work,
    source: SourceConfig,
    loading: LoadingConfig,
    scale: ScaleConfig,
    others: Sequence[str] = (),
) -> None:
    """Read all texts of a source, and write the results.

    Args:
        checkpoint: the bridge.
        work: what is done with the texts.
        source: the texts, and where the results go.
        loading: how the model is loaded.
        scale: how many read, and which files.
        others: bridges that answer together with it, in this process.

    Raises:
        PalamError: see [`process_rows`].
    """
    scale.check(source)
    if others:
        labels_are_given = isinstance(work, Labelling) and work.labels is not None
        check_bridges_alike(
            [checkpoint, *others],
            source.text_column,
            same_labels=not labels_are_given,
            advice=", or --labels",
        )
    if source.is_corpus:
        source = replace(source, keep_errors=True)
        place = reserved_folder(source)
    else:
        place = reserved_output(source)
    loading = loading_as_begun(loading, source)
    with place, open_reader(checkpoint, work, loading, scale, others) as reader:
        job = row_job(reader, work)
        if source.is_corpus:
            process_corpus(reader.bridge, source, job, scale.own_shard, batch_size=work.batch_size)
        else:
            process_rows(reader.bridge, source, job, batch_size=work.batch_size)


def row_job(reader: Reader, work: Work) -> RowJob:
    """What a reader does with rows."""
    config = reader.bridge.config
    return RowJob(
        description=work.description,
        results=work.results,
        read_all=reader.read_all,
        identity=work.identity(config),
        labels=work.label_names(config),
        uses_encoder=work.uses_encoder(config),
    )


@contextlib.contextmanager
def open_reader(
    checkpoint: str,
    work: Work,
    loading: LoadingConfig,
    scale: ScaleConfig,
    others: Sequence[str] = (),
) -> Iterator[Reader]:
    """What reads texts within the block: the model in this process, or several that load it.

    Args:
        checkpoint, work, loading, scale, others: see [`read_source`].

    Raises:
        PalamError: a model that cannot be loaded, or bridges that cannot answer together.
    """
    if others:
        first, *rest = load_models([checkpoint, *others], loading)
        yield BridgeReader.of_model(first, work, *rest)
        return
    count = num_workers(scale, loading)
    if count == 1:
        yield BridgeReader.of_model(load_model(checkpoint, loading), work)
        return
    reader = BridgeReader(checkpoint, work, loading=reader_loading(loading), memory=0)
    device = str(reader.loading.device)
    readers = [reader.on_device(own) for own in devices_of_each(count, device)]
    with WorkerPool(readers, threads_of_each(count)) as pool:
        yield pool


def reader_loading(loading: LoadingConfig) -> ReaderLoading:
    """How other processes load the model: what is measured is measured once, here."""
    from palam.utils.device import dtype_name

    if loading.device_map is not None:
        raise PalamError(
            "--device-map spreads the LLM of one process; leave it or --workers and --engine out"
        )
    placement: Any = loading.placement()
    return ReaderLoading(
        encoder=loading.encoder,
        second_encoder=loading.second_encoder,
        llm=loading.llm,
        allow_mismatch=loading.allow_mismatch,
        device=str(placement["device"]),
        dtype=dtype_name(placement["dtype"]),
        load_in=loading.load_in,
        attention=placement["attention"],
        packs=isinstance(loading, EngineLoadingConfig) and loading.engine == "palam",
    )


def num_workers(scale: ScaleConfig, loading: LoadingConfig) -> int:
    """How many processes read."""
    if scale.workers != "auto":
        return scale.workers
    import torch

    from palam.utils.device import pick_device

    if pick_device(loading.device).type == "cuda":
        return torch.cuda.device_count()
    return num_cores()
