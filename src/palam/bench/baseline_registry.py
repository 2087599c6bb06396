"""Which baselines there are, in what a recipe and its report say of them.

A new one is a file of `palam.bench.baselines`, and an entry here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from palam.bench.setting_values import check_count, check_rates, check_text
from palam.errors import PalamError
from palam.utils.registry import Registry

if TYPE_CHECKING:
    from palam.bench.baselines.base import Baseline


@dataclass(frozen=True, kw_only=True)
class BaselineEntry:
    """What is known of a baseline without its code."""

    where: str
    """Its class: `"package.module:Class"`."""
    words: str
    """What it is, in words, with its settings in their slots."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Its own settings, with their defaults."""
    checks: Mapping[str, Callable[[str, Any], None]] = field(default_factory=dict)
    """Of settings that are free: what refuses a value that is not right, given name and value."""
    choices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of settings that are not free: their values, each with its words."""
    has_seeds: bool = False
    """Whether it is run with every seed; else it comes to the same with each."""
    learns_labels: bool = True
    """Whether it cannot stand beside what is trained without labels."""

    def with_defaults(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """All of its settings.

        Raises:
            PalamError: a value that is not right, or none of its choices.
        """
        complete = {**self.defaults, **settings}
        for name, check in self.checks.items():
            check(name, complete[name])
        for name, words in self.choices.items():
            if complete[name] not in words:
                listed = ", ".join(words)
                raise PalamError(f"{name} is {complete[name]!r}; it must be one of: {listed}")
        return complete


ENTRIES: dict[str, BaselineEntry] = {
    "majority": BaselineEntry(
        where="palam.bench.baselines.majority:Majority",
        words="Always the most frequent label of the training data",
    ),
    "llm_only": BaselineEntry(
        where="palam.bench.baselines.llm_only:LLMOnly",
        words="The LLM reads the text itself, without a bridge",
        learns_labels=False,
    ),
    "translate": BaselineEntry(
        where="palam.bench.baselines.translate:Translate",
        words="The LLM reads a translation into English, by {translator}",
        defaults={"translator": "facebook/nllb-200-distilled-600M"},
        checks={"translator": check_text},
        learns_labels=False,
    ),
    "head": BaselineEntry(
        where="palam.bench.baselines.head:Head",
        words="Logistic regression on {layers}, without an LLM",
        defaults={"layers": "last"},
        choices={
            "layers": {
                "last": "the encoder's last layer",
                "mean": "the mean of the encoder's layers",
            }
        },
    ),
    "finetune": BaselineEntry(
        where="palam.bench.baselines.finetune:Finetune",
        words="The encoder, all of it trained with a head on top for {epochs} epochs, without an "
        "LLM; learning rates to choose from: {lr}",
        defaults={"lr": [1e-5, 3e-5, 1e-4, 3e-4], "epochs": 3},
        checks={"lr": check_rates, "epochs": check_count},
        has_seeds=True,
    ),
}

BASELINES: "Registry[Baseline]" = Registry(
    "baseline", {name: entry.where for name, entry in ENTRIES.items()}
)
"""The baselines' classes."""
