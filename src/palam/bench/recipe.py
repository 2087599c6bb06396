"""A benchmark's recipe: methods × seeds, one training set, and what every method reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from palam.bench.baseline_registry import ENTRIES
from palam.bench.methods import (
    BaselineMethod,
    ChoiceMethod,
    Method,
    TrainedMethod,
    check_names,
    parse_methods,
)
from palam.bench.setting_values import check_count, parse_rates
from palam.errors import PalamError
from palam.inference.best_of_number import check_best_of, reading_arguments
from palam.models.guidance_scale import NO_GUIDANCE, check_guidance_scale
from palam.tasks.registry import get_task
from palam.training.config import TRAIN_SETTINGS, OptimConfig, TrainConfig, task_settings
from palam.training.pretraining import pretraining_settings

READING = "reading"
"""What is read after training on raw text, if no task is named."""


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """What every method reads.

    Raises:
        PalamError: a value that is not right.
    """

    task: str | None = None
    """A task; not set is the one that is trained on, reading after raw text, or none if `files` are
    read."""
    files: dict[str, str] | None = None
    """A labelled file for each language, with the columns and labels of the training file."""
    split: str = "test"
    """The task's split."""
    languages: tuple[str, ...] = ()
    """The languages that are read; none are all of the task's, or those of `files`."""
    limit: int | None = None
    """So many rows of each language, a seeded and label-stratified sample; not set is all."""
    batch_size: int = 32
    """Texts at a time."""
    parallel: bool | None = None
    """Whether row i has the same meaning in all `files`; of a task it is known."""
    guidance_scale: float = NO_GUIDANCE
    """Of bridges' readings: how far they keep to the text, see [`guided_scores`]."""
    best_of: int = 1
    """Of bridges' readings: of how many answers the best is taken, see [`coverage`]."""

    def __post_init__(self) -> None:
        for name in ("limit", "batch_size"):
            number = getattr(self, name)
            if number is not None:
                check_count(f"read.{name}", number)
        if self.files and not _is_text_mapping(self.files):
            raise PalamError(
                f"read.files is {self.files!r}; "
                "it must be a file for each language: {si: sinhala.csv}"
            )
        unknown_value = self.parallel not in (None, True, False)
        if unknown_value or (self.parallel is not None and not self.files):
            raise PalamError(
                "read.parallel is true or false, and stands with read.files: "
                "tasks know it of theirs"
            )
        languages = _parse_languages(self.languages)
        if self.files:
            languages = tuple(self.files)
        else:
            task = get_task(str(self.task))
            languages = languages or task.languages
        object.__setattr__(self, "languages", languages)
        self._check_decoding()

    def _check_decoding(self) -> None:
        """Refuse what cannot be done with the answers of bridges.

        Raises:
            PalamError: a value that is none, or one where no texts are said again.
        """
        scale = self.guidance_scale
        if type(scale) not in (int, float):
            raise PalamError(f"read.guidance_scale is {scale!r}; it must be a number")
        check_guidance_scale(scale)
        check_best_of(self.best_of)
        of_task = None if self.files else get_task(str(self.task))
        says_texts = bool(of_task and of_task.reference_language)
        if self.decoding() and not says_texts:
            raise PalamError(
                f"read.{next(iter(self.decoding()))} stands with a task whose texts are said "
                f"again, such as {READING}"
            )

    def decoding(self) -> dict[str, Any]:
        """How bridges' answers are decoded: arguments of [`palam.generate`]."""
        return reading_arguments(self.guidance_scale, self.best_of)

    @property
    def answer_rows(self) -> int:
        """How many rows the LLM reads for a bridge's answer to a text."""
        return self.best_of * (1 if self.guidance_scale == NO_GUIDANCE else 2)

    @classmethod
    def parse(cls, content: Mapping[str, Any], train: Mapping[str, Any]) -> "ReadConfig":
        """From a recipe's YAML; what is left empty has its default.

        Args:
            content: the recipe's `read`.
            train: the recipe's settings of training, whose task is the default.

        Raises:
            PalamError: a setting that does not exist or is not right.
        """
        names = [field.name for field in fields(cls)]
        unknown = sorted(map(str, set(content) - set(names)))
        if unknown:
            raise PalamError(
                f"read: there is no setting {', '.join(unknown)}; there are {', '.join(names)}"
            )
        settings = {name: value for name, value in content.items() if value is not None}
        if bool(settings.get("files")) != bool(train.get("file")):
            raise PalamError(
                "train.file and read.files go together: {si: sinhala.csv, ta: tamil.csv}"
            )
        trained = READING if train.get("text_file") else train.get("task")
        return cls(**{"task": trained, **settings})

    def to_dict(self) -> dict[str, Any]:
        """As a recipe's YAML has it."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**settings, "languages": list(self.languages)}


@dataclass(frozen=True)
class Published:
    """Figures of a paper, to be shown beside the measured ones."""

    accuracies: dict[str, dict[str, float]] = field(default_factory=dict)
    """By method and language, in percent; `mean` in a language's place is the mean of all."""
    note: str | None = None
    """What was different there."""

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> "Published":
        """From a recipe's YAML: methods, and the `note`."""
        accuracies = {}
        for name, figures in content.items():
            if name != "note":
                accuracies[name] = dict(figures or {})
        return cls(accuracies, content.get("note"))

    def to_dict(self) -> dict[str, Any]:
        """As a recipe's YAML has it."""
        return (
            dict(self.accuracies) if self.note is None else {"note": self.note, **self.accuracies}
        )


class MethodSeeds(NamedTuple):
    """A method and the seeds that it is run with."""

    method: str
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to compare.

    Raises:
        PalamError: a value that is not right, in any of its parts.
    """

    methods: dict[str, Method]
    """By name."""
    train: dict[str, Any]
    """Settings of every training run, see [`TrainConfig`]; `lr` may be a list to choose from."""
    read: ReadConfig
    """What every method reads."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The first chooses the learning rate; in a results folder, the first that it began with."""
    curve: tuple[int, ...] = ()
    """Step counts after which a run's bridge is evaluated too; 0 is its start."""
    against: str = ""
    """The method that the others are tested against; not set is the first."""
    title: str = ""
    """Of the report."""
    published: Published = field(default_factory=Published)
    """Figures of a paper."""

    def __post_init__(self) -> None:
        if not self.methods or not self.seeds:
            raise PalamError("a recipe needs methods and seeds")
        if not self.against:
            object.__setattr__(self, "against", next(iter(self.methods)))
        if self.against not in self.methods:
            listed = ", ".join(self.methods)
            raise PalamError(f"against is {self.against!r}, which is no method: there are {listed}")
        for name, method in self.methods.items():
            if isinstance(method, BaselineMethod) and not self._has_labels:
                _check_learns_no_labels(name, method)
            if isinstance(method, TrainedMethod):
                for rate in self.learning_rates(name):
                    self.config(name, rate)

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> "Recipe":
        """From a recipe's YAML; what is left empty has its default.

        Raises:
            PalamError: a part that does not have its form, or a value that is not right.
        """
        check_mappings(content)
        settings = {name: value for name, value in content.items() if value is not None}
        for name in ("seeds", "curve"):
            if name in settings:
                settings[name] = _parse_whole_numbers(name, settings[name])
        if settings.get("seeds") == ():
            raise PalamError("a recipe needs methods and seeds")
        train = settings.get("train", {})
        try:
            check_names(train, TRAIN_SETTINGS)
        except PalamError as error:
            raise PalamError(f"train: {error}") from None
        if not any(train.get(name) for name in ("task", "file", "text_file")):
            raise PalamError("train needs a task, a file of labelled rows, or a text_file")
        settings["train"] = train
        settings["methods"] = parse_methods(settings["methods"])
        settings["read"] = ReadConfig.parse(settings.get("read", {}), train)
        settings["published"] = Published.parse(settings.get("published", {}))
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """As YAML has it; `parse` gives this recipe back."""
        return {
            "methods": {name: method.to_dict() for name, method in self.methods.items()},
            "train": self.train,
            "seeds": list(self.seeds),
            "read": self.read.to_dict(),
            "curve": list(self.curve),
            "against": self.against,
            "title": self.title,
            "published": self.published.to_dict(),
        }

    @property
    def choices(self) -> dict[str, ChoiceMethod]:
        """The methods for which nothing is run."""
        return {
            name: method
            for name, method in self.methods.items()
            if isinstance(method, ChoiceMethod)
        }

    def learning_rates(self, method: str | None = None) -> tuple[float, ...]:
        """Those that a trained method chooses from; None are those that the recipe gives to all.

        Where the recipe gives none it is the task's own, or the default.
        """
        trained = self.methods.get(method) if method is not None else None
        if isinstance(trained, TrainedMethod) and trained.learning_rates:
            return trained.learning_rates
        given = self._given(method)
        of_task = task_settings(given).get("lr", OptimConfig.lr)
        return parse_rates(given.get("lr", of_task))

    def _given(self, method: str | None) -> dict[str, Any]:
        """The settings that the recipe gives a method, its learning rates aside; see `config`."""
        trained = self.methods.get(method) if method is not None else None
        changes = trained.settings if isinstance(trained, TrainedMethod) else {}
        given = {**self.train, **changes}
        return {**pretraining_settings(), **given} if self.trains_on_text else given

    @property
    def _has_labels(self) -> bool:
        """Whether what is trained on, and what is read, has labels or numbers to be right."""
        if self.trains_on_text:
            return False
        task = get_task(str(self.read.task)) if self.read.task else None
        return task is None or not task.is_answered_in_words

    @property
    def trains_on_text(self) -> bool:
        """Whether general bridges are trained, on raw text, as `palam pretrain` does."""
        return bool(self.train.get("text_file"))

    def config(
        self, method: str | None = None, lr: float | None = None, seed: int = 0
    ) -> TrainConfig:
        """The configuration of one run.

        Args:
            method: that is trained; None, or a baseline, has the settings that all share.
            lr: its learning rate; None is the first of those to choose from.
            seed: of the run.
        """
        rate = self.learning_rates(method)[0] if lr is None else lr
        return TrainConfig.from_settings({**self._given(method), "lr": rate, "seed": seed})

    def runs(self, first_seed: int) -> list[MethodSeeds]:
        """Each method that is run, with its seeds.

        Args:
            first_seed: of the results; most baselines are run with it alone.
        """
        runs = []
        for name, method in self.methods.items():
            if isinstance(method, BaselineMethod) and not method.entry.has_seeds:
                runs.append(MethodSeeds(name, (first_seed,)))
            elif not isinstance(method, ChoiceMethod):
                runs.append(MethodSeeds(name, self.seeds))
        return runs


def _check_learns_no_labels(name: str, method: BaselineMethod) -> None:
    """Refuse a baseline that learns labels where there are none.

    Raises:
        PalamError: the message says which baseline there is.
    """
    if method.entry.learns_labels:
        listed = " and ".join(name for name, entry in ENTRIES.items() if not entry.learns_labels)
        raise PalamError(
            f"method {name}: {method.baseline} needs labels, and here are none; "
            f"the baselines beside texts are {listed}"
        )


def check_mappings(content: Mapping[str, Any]) -> None:
    """Refuse a recipe's content whose parts are not names and values, or which has no methods.

    Raises:
        PalamError: the first such part.
    """
    for name in ("methods", "train", "read", "published"):
        _check_mapping(name, content.get(name))
    methods = content.get("methods")
    if not methods:
        raise PalamError("a recipe needs methods and seeds")
    for name, method in methods.items():
        _check_mapping(name, method)
    for name, figures in (content.get("published") or {}).items():
        if name != "note":
            _check_mapping(name, figures)


def _check_mapping(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, dict):
        raise PalamError(f"{name} is {value!r}; it must be `name: value` lines")


def _parse_whole_numbers(name: str, value: Any) -> tuple[int, ...]:
    """A list of numbers from 0, each taken once."""
    if not isinstance(value, list) or any(type(item) is not int or item < 0 for item in value):
        raise PalamError(f"{name} is {value!r}; it must be a list of whole numbers, such as [0, 1]")
    return tuple(dict.fromkeys(value))


def _is_text_mapping(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return all(isinstance(text, str) for text in [*value, *value.values()])


def _parse_languages(value: Any) -> tuple[str, ...]:
    """Language codes, of a list or of a text with commas."""
    codes = value.split(",") if isinstance(value, str) else value
    if not isinstance(codes, list | tuple) or not all(isinstance(code, str) for code in codes):
        raise PalamError(
            f"read.languages is {value!r}; it must be a list of codes, such as [si, ta, 'no']"
        )
    return tuple(codes)
