"""Options that several commands share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from palam.cli._engine import EngineName, attach_engine
from palam.inference.best_of_number import MOST_ANSWERS
from palam.models.guidance_scale import MOST_GUIDANCE, NO_GUIDANCE
from palam.models.model_config import ModelConfig
from palam.scale.languages import check_language as check_language
from palam.training.config import (
    DataConfig,
    OptimConfig,
    PlacementConfig,
    RuntimeConfig,
    TrainRuntimeConfig,
)
from palam.utils.names import NameList as NameList
from palam.utils.quiet import silence_libraries as silence_libraries

if TYPE_CHECKING:
    from palam.models.modeling import PalamModel
    from palam.utils.device import Placement

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
Checkpoint = Annotated[str, Parameter(help="A bridge: folder, hub id or starter:bridge.")]
Checkpoints = Annotated[
    list[str],
    Parameter(help="A bridge: folder, hub id or starter:bridge; or several that answer together."),
]
GuidanceScale = Annotated[float, Parameter(validator=Number(gte=NO_GUIDANCE, lte=MOST_GUIDANCE))]
"""Of free answers, see [`guided_scores`]."""
BestOf = Annotated[int, Parameter(validator=Number(gte=1, lte=MOST_ANSWERS))]
"""Of free answers: how many are made to a text, see [`answers_to_each`]."""


@dataclass(frozen=True, kw_only=True)
class LoadingConfig(PlacementConfig):
    """How a checkpoint's model is loaded."""

    encoder: str | None = None
    """Where the encoder is, if not where the checkpoint says."""
    second_encoder: str | None = None
    """Where the second encoder is, if the bridge has one and it is not where the checkpoint
    says."""
    llm: str | None = None
    """Where the LLM is, if not where the checkpoint says."""
    allow_mismatch: bool = False
    """Accept other base models than the bridge was trained with."""
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = None
    """Spread the LLM over the devices of this machine, as transformers does; auto fills them
    evenly. The encoder and the bridge stay on --device."""

    def placement(self) -> "Placement":
        """The placement that this means here.

        Raises:
            PalamError: no such device.
        """
        from palam.utils.device import resolve_placement

        placement = resolve_placement(self.device, self.dtype, self.load_in)
        placement["device_map"] = self.device_map
        return placement

    def base_models(self) -> dict[str, Any]:
        """The base models that are loaded, as arguments of [`PalamModel.from_pretrained`]."""
        return {
            "encoder": self.encoder,
            "second_encoder": self.second_encoder,
            "llm": self.llm,
            "allow_mismatch": self.allow_mismatch,
        }


@dataclass(frozen=True, kw_only=True)
class SeededLoadingConfig(LoadingConfig, RuntimeConfig):
    """How the models are loaded, and the seed, of a command that draws something."""


@dataclass(frozen=True, kw_only=True)
class EngineLoadingConfig(LoadingConfig):
    """How the models are loaded, and what runs the LLM, of a command that lets it answer freely."""

    engine: EngineName = "palam"
    """What makes free answers. vllm, which is installed apart, is faster."""


@dataclass(frozen=True, kw_only=True)
class SeededEngineLoadingConfig(EngineLoadingConfig, SeededLoadingConfig):
    """How the models are loaded, what runs the LLM, and the seed, of a command that draws."""


LoadingOptions = Annotated[LoadingConfig, Parameter(name="*", group=RUN)]
LOADING_DEFAULTS = LoadingConfig()
SeededLoadingOptions = Annotated[SeededLoadingConfig, Parameter(name="*", group=RUN)]
SEEDED_LOADING_DEFAULTS = SeededLoadingConfig()
EngineLoadingOptions = Annotated[EngineLoadingConfig, Parameter(name="*", group=RUN)]
ENGINE_LOADING_DEFAULTS = EngineLoadingConfig()
SeededEngineLoadingOptions = Annotated[SeededEngineLoadingConfig, Parameter(name="*", group=RUN)]
SEEDED_ENGINE_LOADING_DEFAULTS = SeededEngineLoadingConfig()


def load_model(checkpoint: str, loading: LoadingConfig) -> "PalamModel":
    """The checkpoint's model, in evaluation mode."""
    from palam.models.modeling import PalamModel

    silence_libraries()
    model = PalamModel.from_pretrained(checkpoint, **loading.base_models(), **loading.placement())
    if isinstance(loading, EngineLoadingConfig):
        attach_engine([model], loading.engine)
    return model


def load_models(checkpoints: Sequence[str], loading: LoadingConfig) -> "list[PalamModel]":
    """The checkpoints' models, in evaluation mode; those of the same base models share them.

    Raises:
        PalamError: a model that cannot be loaded.
    """
    from palam.models.shared_bases import load_models

    silence_libraries()
    return load_models(checkpoints, loading.placement(), **loading.base_models())
