"""The recipe of a general bridge: settings with other defaults than a task's.

A general bridge is trained to say English texts again. What it was trained on and what it reaches
is on the page "A general bridge".
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from palam.models.model_config import ModelConfig
from palam.models.template import SAME_IN_ENGLISH
from palam.training.config import OptimConfig

VALIDATION_LINES = 256
"""Of the text, for validation; to read them takes as long as a few steps."""


def _objectives() -> dict[str, float]:
    return {"repeat": 1.0}


@dataclass(frozen=True, kw_only=True)
class PretrainOptimConfig(OptimConfig):
    """What is learned, and how the weights are moved; set as a general bridge needs it.

    Raises:
        PalamError: see [`OptimConfig`].
    """

    epochs: float = 1.0
    """Passes over the text."""
    batch_size: int = 32
    """Texts per batch, of all processes together."""
    patience: int = 0
    """Stop after so many validations without a better loss; 0 never stops."""
    eval_steps: int | None = 250
    """Validate and save every so many steps; not set is every epoch."""
    warmup: float = 0.02
    """Share of the steps in which the learning rate rises."""
    objectives: dict[str, float] = field(default_factory=_objectives)
    """What is learned from the text, by weight: repeat (say it again, in English), continue, answer
    (needs prompts_file), label (needs label_tasks or soft_label_file)."""
    swap_words: float = 0.15
    """Probability of each word to change places with the next on the encoder's side, unless it has
    just changed places."""
    drop_words: float = 0.07
    """Share of the words that the encoder does not read."""


def with_general_prompt(model: ModelConfig) -> ModelConfig:
    """The same base models and bridge; where no prompt is set, the one that a general bridge is
    measured with."""
    return replace(model, prompt=model.prompt or SAME_IN_ENGLISH)


PRETRAIN_OPTIM = PretrainOptimConfig()


def pretraining_settings() -> dict[str, Any]:
    """The settings that a general bridge has of its own, by name."""
    usual = OptimConfig()
    settings: dict[str, Any] = {"prompt": SAME_IN_ENGLISH, "max_eval_samples": VALIDATION_LINES}
    for item in fields(PRETRAIN_OPTIM):
        value = getattr(PRETRAIN_OPTIM, item.name)
        if value != getattr(usual, item.name):
            settings[item.name] = value
    return settings
