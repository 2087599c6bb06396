"""What the quickstart measured: the content of its `results.json` and of its report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from palam.inference.evaluation import Evaluation
from palam.inference.layer_weights import LayerView


@dataclass(frozen=True, kw_only=True)
class LanguageResult:
    """What a method reached in one language."""

    n: int
    """How many texts."""
    accuracy: float
    """From 0 to 1."""
    ci95: list[float]
    """Its Wilson interval, from the lower to the upper end."""


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """What a method reached."""

    name: str
    """`LLM alone`, or the bridge's fusion."""
    results: dict[str, LanguageResult]
    """By language."""
    macro: float
    """The mean over the languages."""
    task: str = ""
    split: str = ""
    model: str = ""

    @classmethod
    def of(cls, name: str, evaluation: Evaluation) -> "MethodResult":
        """From an evaluation."""
        return cls.from_dict({"name": name, **evaluation.to_dict()})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "MethodResult":
        """From the JSON form."""
        results = {
            code: LanguageResult(**language) for code, language in content["results"].items()
        }
        return cls(**{**content, "results": results})

    def mean(self, codes: Sequence[str]) -> float | None:
        """The mean accuracy over those of some languages that it has read; None if it has none."""
        shares = [self.results[code].accuracy for code in codes if code in self.results]
        return sum(shares) / len(shares) if shares else None


@dataclass(frozen=True, kw_only=True)
class ReadLanguage:
    """A language that was read."""

    code: str
    name: str
    script: str


@dataclass(frozen=True, kw_only=True)
class AnsweredExample:
    """A sentence and each method's answer."""

    language: str
    text: str
    label: str
    answers: dict[str, str | None]
    """By method; None is no answer."""
    english: str | None = None
    """The sentence in English."""


@dataclass(frozen=True, kw_only=True)
class ReadSentence:
    """A sentence, and what it says in English to those who read it before any training."""

    language: str
    text: str
    english: str | None
    """What it really says."""
    bridge: str
    """Through the bridge that is part of the package."""
    llm_alone: str
    """To the LLM, which reads it itself."""


@dataclass(frozen=True, kw_only=True)
class QuickstartResult:
    """All that the report shows."""

    title: str
    data: str
    """The task: `demo` or `sib200`."""
    n_train: int
    n_test: int
    """Sentences of a language."""
    n_alone: int
    """Of them, those that the LLM alone read."""
    methods: list[MethodResult]
    """First the LLM alone, then a bridge for each fusion."""
    languages: list[ReadLanguage]
    """In the order of the table."""
    readings: list[ReadSentence] = field(default_factory=list)
    """What was read before any training, a sentence a language."""
    layers: list[LayerView] = field(default_factory=list)
    """Of the last method, on a sentence of some languages."""
    examples: list[AnsweredExample] = field(default_factory=list)
    settings: dict[str, Any]
    """Of the training."""
    seconds: dict[str, float]
    """What took how long."""
    command: str
    """That classifies a sentence with the last bridge."""
    next_steps: dict[str, str] = field(default_factory=dict)
    """What to do next in words, each with its command."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        content = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in ("methods", "languages", "readings", "examples"):
            content[name] = [asdict(item) for item in content[name]]
        content["layers"] = [view.to_dict() for view in self.layers]
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "QuickstartResult":
        """From the JSON form."""
        parts = {
            "methods": [MethodResult.from_dict(method) for method in content["methods"]],
            "languages": [ReadLanguage(**language) for language in content["languages"]],
            "readings": [ReadSentence(**one) for one in content.get("readings", ())],
            "layers": [LayerView.from_dict(view) for view in content["layers"]],
            "examples": [AnsweredExample(**example) for example in content["examples"]],
        }
        return cls(**{**content, **parts})
