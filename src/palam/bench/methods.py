"""What a recipe compares: methods that are trained, baselines, and choices among the former."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from palam.bench.baseline_registry import BASELINES, ENTRIES, BaselineEntry
from palam.bench.setting_values import parse_rates
from palam.errors import PalamError
from palam.training.config import TRAIN_SETTINGS

if TYPE_CHECKING:
    from palam.bench.baselines.base import Baseline


def check_names(names: Any, known: Any) -> None:
    """Refuse settings that do not exist.

    Raises:
        PalamError: the message lists those that do not.
    """
    unknown = sorted(map(str, set(names) - set(known)))
    if unknown:
        raise PalamError(f"there is no setting {', '.join(unknown)}")


@dataclass(frozen=True)
class TrainedMethod:
    """A bridge, or a LoRA on the LLM, that is trained on the recipe's data."""

    settings: dict[str, Any] = field(default_factory=dict)
    """What it changes of the recipe's settings of training, by name, without the learning rate."""
    learning_rates: tuple[float, ...] = ()
    """Those to choose from, by the validation loss of the first seed; none are the recipe's."""

    def __post_init__(self) -> None:
        check_names(self.settings, TRAIN_SETTINGS - {"lr"})

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> "TrainedMethod":
        """From a recipe's YAML: settings by name, of which `lr` may be a list."""
        settings = dict(content)
        rates = parse_rates(settings.pop("lr")) if "lr" in settings else ()
        return cls(settings, rates)

    def to_dict(self) -> dict[str, Any]:
        """As a recipe's YAML has it."""
        if not self.learning_rates:
            return dict(self.settings)
        return {**self.settings, "lr": list(self.learning_rates)}


@dataclass(frozen=True)
class BaselineMethod:
    """A method that trains no bridge."""

    baseline: str
    """Its name in the registry."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The baseline's own; what is not given has its default."""

    def __post_init__(self) -> None:
        if str(self.baseline) not in ENTRIES:
            listed = ", ".join(ENTRIES)
            raise PalamError(f"baseline is {self.baseline!r}; it must be one of: {listed}")
        check_names(self.settings, self.entry.defaults)
        object.__setattr__(self, "settings", self.entry.with_defaults(self.settings))

    @property
    def entry(self) -> BaselineEntry:
        """What is known of it."""
        return ENTRIES[self.baseline]

    def built(self) -> "Baseline":
        """The baseline with its settings."""
        return BASELINES[self.baseline](self.settings)

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> "BaselineMethod":
        """From a recipe's YAML: `{baseline: head, layers: mean}`."""
        settings = dict(content)
        return cls(settings.pop("baseline"), settings)

    def to_dict(self) -> dict[str, Any]:
        """As a recipe's YAML has it."""
        return {"baseline": self.baseline, **self.settings}


@dataclass(frozen=True)
class ChoiceMethod:
    """Of several trained methods the one with the lowest validation loss, for each seed.

    Nothing is run for it: the report looks up the results.
    """

    best_of: tuple[str, ...]
    """The names of trained methods of the recipe."""

    @classmethod
    def parse(cls, content: Mapping[str, Any], trained: list[str]) -> "ChoiceMethod":
        """From a recipe's YAML: `{best_of: [last, mean]}`.

        Args:
            content: of the method.
            trained: the recipe's trained methods.

        Raises:
            PalamError: other settings beside it, or no list of trained methods.
        """
        names = content["best_of"]
        is_list = isinstance(names, list) and bool(names)
        if len(content) > 1 or not is_list or not all(name in trained for name in names):
            listed = ", ".join(trained)
            raise PalamError(f"best_of stands alone and is a list of trained methods, of: {listed}")
        return cls(tuple(names))

    def to_dict(self) -> dict[str, Any]:
        """As a recipe's YAML has it."""
        return {"best_of": list(self.best_of)}


Method = TrainedMethod | BaselineMethod | ChoiceMethod


def parse_methods(content: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Method]:
    """A recipe's methods by name.

    Raises:
        PalamError: a name that cannot be a file's, or a method that is not right; it is named.
    """
    contents = {name: method or {} for name, method in content.items()}
    trained = [
        name
        for name, method in contents.items()
        if "baseline" not in method and "best_of" not in method
    ]
    methods: dict[str, Method] = {}
    for name, method in contents.items():
        if set(str(name)) & set("/\\,"):
            raise PalamError(f"method {name}: a name holds no comma and no slash")
        try:
            methods[name] = _parse_method(method, trained)
        except PalamError as error:
            raise PalamError(f"method {name}: {error}") from None
    return methods


def _parse_method(content: Mapping[str, Any], trained: list[str]) -> Method:
    if "best_of" in content:
        return ChoiceMethod.parse(content, trained)
    if content.get("baseline"):
        return BaselineMethod.parse(content)
    return TrainedMethod.parse(content)
