"""What every baseline is given, what it comes to, and what it will need."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from palam.bench.baseline_plan import ReadingPlan
from palam.inference.prediction import Prediction
from palam.models.backbones.encoder_pair import encoders_of
from palam.models.bases import Bases
from palam.models.model_config import ModelConfig
from palam.tasks.task import Example, Task
from palam.training.config import RuntimeConfig
from palam.training.data import TrainingData
from palam.utils.device import Placement

Rows = dict[str, list[Example]]
"""What is read, by language."""


class Outcome(NamedTuple):
    """What a method came to."""

    predictions: list[Prediction]
    """Of all languages, one after the other."""
    figures: dict[str, Any]
    """What was chosen on the validation examples and measured on the way: fields and details of a
    [`Cell`]."""


@dataclass(frozen=True, kw_only=True)
class BaselineInput:
    """What a baseline is given for one run."""

    model: ModelConfig
    """The base models, the prompt, and the most tokens of a text."""
    runtime: RuntimeConfig
    """Device, dtype and seed."""
    data: TrainingData
    """To train and to validate on, as this seed has them."""
    task: Task
    """That is read."""
    rows: Rows
    """What is read."""
    batch_size: int
    """Texts that are read at a time."""
    load_bases: Callable[[], Bases]
    """The base models, loaded once for all methods of a recipe."""
    folder: Path
    """For what it needs to be resumed; a run that was stopped finds there what it has left."""
    chosen_lr: float | None = None
    """The learning rate that its run with the first seed has chosen, if there was one."""

    @property
    def encoder(self) -> PreTrainedModel:
        """The loaded encoder: of two, the first."""
        return encoders_of(self.load_bases().encoder)[0]


class Amounts(NamedTuple):
    """How much a recipe trains on and reads."""

    train: int
    """Training rows of a run."""
    dev: int
    """Validation rows of it that baselines choose by; none of raw text."""
    read: int
    """Rows that each method reads, in all languages."""
    foreign: int
    """Those in other languages than the training rows'."""
    labels: int
    """Of each row."""
    answer: int | None
    """Tokens of a free answer, at most; None of a task with labels."""
    answer_rows: int
    """How many rows the LLM reads at each token of a bridge's answer."""
    is_translated: bool
    """Whether the answer says what the text says, as a translator's does."""


class Reading(NamedTuple):
    """So many texts, and what each takes."""

    texts: int
    each: ReadingPlan


class Baseline(ABC):
    """A method that trains no bridge.

    Args:
        settings: its own, all of them.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    def check_installed(self) -> None:  # noqa: B027  most need nothing more
        """Refuse to be run where a package is missing.

        Raises:
            PalamError: it says how to get it.
        """

    @abstractmethod
    def run(self, given: BaselineInput) -> Outcome:
        """What it predicts for all rows.

        Raises:
            PalamError: rows or models that it cannot be had with.
        """

    def num_runs(self, num_seeds: int) -> int:
        """How often something is trained or read for so many seeds."""
        return num_seeds

    @abstractmethod
    def readings(
        self, model: ModelConfig, placement: Placement, amounts: Amounts, num_seeds: int
    ) -> list[Reading]:
        """What it reads in all its runs, one model's after the other; [] if no model reads a text.

        Args:
            model: names the base models.
            placement: device, dtype and attention.
            amounts: of one run.
            num_seeds: that it is run with.

        Raises:
            PalamError: a model that cannot be found or used.
        """
