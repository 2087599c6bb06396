"""`palam classify`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.types import PositiveInt

from palam.cli._options import (
    LOADING_DEFAULTS,
    Checkpoints,
    ConfigFile,
    LoadingOptions,
    NameList,
)
from palam.cli._scale import ScaleConfig, read_source
from palam.cli._source import SourceConfig, SourceOptions
from palam.errors import PalamError
from palam.scale.work import Labelling


@dataclass(frozen=True, kw_only=True)
class ClassifyScaleConfig(ScaleConfig):
    """How a corpus is shared out, and what runs the processes that read it."""

    engine: Literal["palam", "ray"] = "palam"
    """What runs the processes; ray is for a folder of Parquet files, and workers are its actors."""
    address: str | None = None
    """Of a Ray cluster, or auto; not set is one of this machine that is started for the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine != "ray" and self.address is not None:
            raise PalamError("--address needs --engine ray")
        if self.engine == "ray" and self.shard is not None:
            raise PalamError("--shard is not for --engine ray, which gives out the files itself")

    def check_one_process(self) -> None:
        """Refuse several processes, as several bridges answer together in one.

        Raises:
            PalamError: there are to be several.
        """
        if self.engine == "palam" and self.workers == 1:
            return
        option = "--workers" if self.engine == "palam" else "--engine ray"
        raise PalamError(f"{option} is for one bridge; several answer together in one process")


ClassifyScaleOptions = Annotated[
    ClassifyScaleConfig, Parameter(name="*", group=Group("Scale", sort_key=5))
]
SCALE_DEFAULTS = ClassifyScaleConfig()


def classify(
    checkpoints: Checkpoints,
    /,
    *,
    source: SourceOptions = None,
    labels: NameList = None,
    prompt: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    batch_size: PositiveInt = 32,
    config: ConfigFile = None,
    loading: LoadingOptions = LOADING_DEFAULTS,
    scale: ClassifyScaleOptions = SCALE_DEFAULTS,
) -> None:
    """Label texts.

    Each row comes out, in input order, with its prediction, how sure that is, and a log-probability
    for each label; in a spreadsheet, with a probability for each label in a column of its own. Of
    many files, each becomes one of the folder --out; what is done there is not done again. Several
    bridges with the same labels answer together: the mean of their log-probabilities counts.

    Args:
        labels: Labels, e.g. good,bad; not set is those the bridge was trained on.
        prompt: What asks for the label, with one {text} slot; not set is as the bridge was trained,
            or "{text}, a new line, Topic:" if it was trained on raw text.
        batch_size: Texts at a time.
    """
    source = source or SourceConfig()
    work = Labelling(None if labels is None else tuple(labels), batch_size, prompt)
    checkpoint, *others = checkpoints
    if others:
        scale.check_one_process()
    if scale.engine == "ray":
        from palam.cli._ray import read_with_ray

        read_with_ray(checkpoint, work, source, loading, scale, scale.address)
    else:
        read_source(checkpoint, work, source, loading, scale, others)
