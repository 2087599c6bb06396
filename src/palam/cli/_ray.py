"""`--engine ray`; see [`palam.scale.ray`]."""

from typing import Any

from palam.cli._identity import run_identity
from palam.cli._options import LoadingConfig
from palam.cli._output import check_writable
from palam.cli._rows import loading_as_begun
from palam.cli._scale import ScaleConfig, num_workers, reader_loading
from palam.cli._source import SourceConfig
from palam.errors import PalamError
from palam.inference.text_form import TextForm
from palam.scale.ray import RayConfig, parquet_files, read_parquet_folder
from palam.scale.reader import BridgeReader, TextColumns
from palam.scale.work import Work
from palam.scale.workers import threads_of_each


def read_with_ray(
    checkpoint: str,
    work: Work,
    source: SourceConfig,
    loading: LoadingConfig,
    scale: ScaleConfig,
    address: str | None,
) -> None:
    """Read a folder of Parquet files with Ray.

    Args:
        checkpoint, work, source, loading, scale: see [`read_source`].
        address: of a cluster, or `auto`; None is this machine.

    Raises:
        PalamError: other texts than such a folder; and see [`read_parquet_folder`].
    """
    if not source.is_corpus or source.out is None:
        raise PalamError("--engine ray needs a folder of Parquet files: --file FOLDER --out FOLDER")
    if source.overwrite:
        raise PalamError("--overwrite is not for --engine ray; give another --out")
    parquet_files(str(source.file))
    check_writable(source.out)
    loaded_as = reader_loading(loading_as_begun(loading, source))
    columns = TextColumns(source.column, source.language, source.language_column)
    reader = BridgeReader(checkpoint, work, columns=columns, loading=loaded_as)
    identity = _identity(reader, source)
    actors = num_workers(scale, loading)
    on_card = str(loaded_as.device).startswith("cuda")
    config = RayConfig(
        actors=actors,
        cores=1 if on_card else threads_of_each(actors),
        cards=1 if on_card else 0,
        address=address,
    )
    read_parquet_folder(reader, str(source.file), source.out, identity, config)


def _identity(reader: BridgeReader, source: SourceConfig) -> dict[str, Any]:
    """Of the job; the model is in this process for as long as that takes."""
    model = BridgeReader(reader.checkpoint, reader.work, loading=reader.loading).model
    form = TextForm.of(model.config.trained_task, source.column)
    return run_identity(model, source, form, reader.work.identity(model.config))
