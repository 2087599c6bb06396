"""Options that several commands share."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter, Token

from palam.errors import PalamError
from palam.models.model_config import ModelConfig
from palam.training.config import (
    DataConfig,
    OptimConfig,
    PlacementConfig,
    RuntimeConfig,
    TrainRuntimeConfig,
)
from palam.utils.languages import find_language

if TYPE_CHECKING:
    from palam.models.modeling import PalamModel

DATA = Group("Data", sort_key=1)
MODEL = Group("Model", sort_key=2)
OPTIMISATION = Group("Optimisation", sort_key=3)
RUN = Group("Run", sort_key=4)

ModelOptions = Annotated[ModelConfig, Parameter(name="*", group=MODEL)]
DataOptions = Annotated[
    DataConfig | None,
    Parameter(name="*", group=DATA, negative_bool="no-"),  # its flag may be unset: --no-balance
]
OptimOptions = Annotated[OptimConfig, Parameter(name="*", group=OPTIMISATION)]
RuntimeOptions = Annotated[RuntimeConfig, Parameter(name="*", group=RUN)]
TrainRuntimeOptions = Annotated[TrainRuntimeConfig, Parameter(name="*", group=RUN)]

MODEL_DEFAULTS = ModelConfig()
OPTIM_DEFAULTS = OptimConfig()
RUNTIME_DEFAULTS = RuntimeConfig()
TRAIN_RUNTIME_DEFAULTS = TrainRuntimeConfig()

ConfigFile = Annotated[Path | None, Parameter(help="YAML file of these options, `name: value`.")]
Checkpoint = Annotated[str, Parameter(help="A bridge: folder or hub id.")]


def _split_names(_: Any, tokens: tuple[Token, ...]) -> list[str]:
    """The names in a comma-separated text, or in a configuration file's list, each once."""
    texts = [token.value for token in tokens]
    if tokens[-1].source == "cli":  # of an option that is given twice, the last counts
        texts = texts[-1:]
    names = [name.strip() for name in ",".join(texts).split(",")]
    return [name for name in dict.fromkeys(names) if name]


NameList = Annotated[list[str] | None, Parameter(converter=_split_names, metavar="A,B")]


@dataclass(frozen=True, kw_only=True)
class LoadingConfig(PlacementConfig):
    """How a checkpoint's model is loaded."""

    encoder: str | None = None
    """Where the encoder is, if not where the checkpoint says."""
    llm: str | None = None
    """Where the LLM is, if not where the checkpoint says."""
    allow_mismatch: bool = False
    """Accept other base models than the bridge was trained with."""


@dataclass(frozen=True, kw_only=True)
class SeededLoadingConfig(LoadingConfig, RuntimeConfig):
    """Also the seed, of a command that draws something."""


LoadingOptions = Annotated[LoadingConfig, Parameter(name="*", group=RUN)]
LOADING_DEFAULTS = LoadingConfig()
SeededLoadingOptions = Annotated[SeededLoadingConfig, Parameter(name="*", group=RUN)]
SEEDED_LOADING_DEFAULTS = SeededLoadingConfig()


def silence_libraries() -> None:
    """Silence what the libraries print on their own, their progress bars too."""
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bars()


def load_model(checkpoint: str, loading: LoadingConfig) -> "PalamModel":
    """The checkpoint's model, in evaluation mode."""
    from palam.models.modeling import PalamModel
    from palam.utils.device import resolve_placement

    silence_libraries()
    placement = resolve_placement(loading.device, loading.dtype, loading.load_in)
    return PalamModel.from_pretrained(
        checkpoint,
        loading.encoder,
        loading.llm,
        allow_mismatch=loading.allow_mismatch,
        **placement,
    )


def check_language(model: "PalamModel", language: str | None) -> None:
    """Refuse a language that nobody knows; an encoder that must be told it checks its own.

    Raises:
        PalamError: an unknown language code.
    """
    if language is None or hasattr(model.processor.encoder_tokenizer, "src_lang"):
        return
    if find_language(language) is None:
        raise PalamError(
            f"language is {language!r}, which is unknown; give a code such as si or sin_Sinh"
        )
