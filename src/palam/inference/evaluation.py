"""What a bridge reaches on a task, language by language, with intervals.

That is the accuracy where a task has right answers, and content-word recall where the answer is to
say what the text says.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from palam.errors import PalamError
from palam.inference.metrics import ClassificationMetrics
from palam.inference.prediction import Prediction, PredictionOptions, Predictor
from palam.inference.reading_likelihood import check_candidates
from palam.inference.reading_metrics import ReadingMetrics
from palam.models.modeling import PalamModel
from palam.tasks.label_scores import normalised
from palam.tasks.loading import load_split, native_language
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task

Z95 = 1.959963984540054
"""The normal distribution's quantile for two-sided 95 %."""


def wilson(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 % by default.

    >>> [round(x, 4) for x in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    shrinkage = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrinkage
    variance = share * (1 - share) / n + z * z / (4 * n * n)
    half = z / shrinkage * math.sqrt(variance)
    return max(0.0, centre - half), min(1.0, centre + half)


class UncertainPrediction(NamedTuple):
    """A prediction, and by how much it was more probable than the next one."""

    row: Prediction
    confidence: float
    """The prediction's probability among the labels."""
    runner_up: str
    """The label with the next highest probability."""
    margin: float
    """The difference of the two probabilities."""

    @classmethod
    def of(cls, row: Prediction) -> "UncertainPrediction":
        """From a prediction with scores, which are log-probabilities."""
        scores = row["scores"]
        probabilities = dict(zip(scores, normalised(scores.values()), strict=True))
        first, second = sorted(probabilities, key=lambda label: -probabilities[label])[:2]
        return cls(
            row=row,
            confidence=probabilities[first],
            runner_up=second,
            margin=probabilities[first] - probabilities[second],
        )


@dataclass
class Evaluation:
    """Results per language, as fractions from 0 to 1, and every prediction."""

    task: str
    """The task's name."""
    split: str
    """The split's name, or the file."""
    model: str
    """The model's name."""
    correct: dict[str, list[bool]] = field(default_factory=dict)
    """By language, whether each prediction is right; of an answer that is compared with a text,
    whether this is the nearest one."""
    predictions: list[Prediction] = field(default_factory=list)
    """Of all languages, one after the other."""
    labels: tuple[str, ...] = ()
    """The task's; none of a task of free answers."""
    is_reading: bool = False
    """Whether answers are compared with a text, so that the figures are [`ReadingMetrics`]."""
    references: dict[str, "Evaluation"] = field(default_factory=dict)
    """By name, what else is shown beside these results, in the same languages."""
    decoding: Mapping[str, Any] = field(default_factory=dict)
    """How free answers were decoded, see [`PredictionOptions`]; empty is greedily, as they come."""

    @classmethod
    def of_task(cls, task: Task, split: str, name: str = "") -> "Evaluation":
        """One without results yet; split and model's name are recorded."""
        is_reading = task.reference_language is not None
        return cls(task.name, split, name, labels=tuple(task.labels), is_reading=is_reading)

    def add(self, language: str, predictions: Iterable[Prediction]) -> None:
        """Add the predictions of one language."""
        correct = []
        for prediction in predictions:
            is_label = prediction["prediction"] == prediction["label"]
            correct.append(prediction.get("identified", is_label))
            self.predictions.append({"language": language, **prediction})
        self.correct[language] = correct

    def accuracy(self, language: str) -> float:
        """Share of right predictions in one language."""
        correct = self.correct[language]
        return sum(correct) / len(correct)

    def of_language(self, language: str) -> list[Prediction]:
        """The predictions in one language."""
        start = 0
        for other, correct in self.correct.items():
            if other == language:
                break
            start += len(correct)
        return self.predictions[start : start + len(self.correct[language])]

    def metrics(self, language: str) -> ClassificationMetrics:
        """Macro-F1, figures by label and the confusion of labels in one language."""
        rows = self.of_language(language)
        return ClassificationMetrics(
            labels=self.labels,
            gold=[str(row["label"]) for row in rows],
            predictions=[row["prediction"] for row in rows],
        )

    def reading(self, language: str) -> ReadingMetrics:
        """Content-word recall and the other figures of answers that are compared with a text."""
        return ReadingMetrics.of(self.of_language(language))

    @property
    def averaged(self) -> list[str]:
        """The languages of which means are: of readings those with a recall, if any has one.

        So all figures of a mean are of the same languages.
        """
        languages = list(self.correct)
        if not self.is_reading:
            return languages
        measured = []
        for code in languages:
            if any(row.get("recall") is not None for row in self.of_language(code)):
                measured.append(code)
        return measured or languages

    @property
    def mean_reading(self) -> ReadingMetrics:
        """The plain mean of the figures of [`Evaluation.reading`], see [`Evaluation.averaged`]."""
        return self.mean_reading_of(self.averaged)

    def mean_reading_of(self, languages: Iterable[str]) -> ReadingMetrics:
        """The plain mean of some languages' figures of [`Evaluation.reading`]."""
        return ReadingMetrics.mean([self.reading(language) for language in languages])

    @property
    def measure(self) -> str:
        """The name of the main figure: `accuracy` or `recall`."""
        return "recall" if self.is_reading else "accuracy"

    @property
    def label_loss(self) -> float:
        """The mean over the languages of the cross-entropy of the right labels, in nats a row.

        A label's probability is that among all labels.

        Raises:
            PalamError: the answers were generated, so that nothing is known of their probability.
        """
        losses = []
        for language in self.correct:
            rows = self.of_language(language)
            losses.append(sum(map(_label_loss, rows)) / len(rows))
        return sum(losses) / len(losses)

    @property
    def macro_f1(self) -> float:
        """The plain mean of the languages' macro-F1."""
        scores = [self.metrics(language).macro_f1 for language in self.correct]
        return sum(scores) / len(scores)

    @property
    def macro(self) -> float | None:
        """The plain mean of the languages' accuracies, or of their content-word recall.

        It is None where the recall is known of no language.
        """
        if self.is_reading:
            return self.mean_reading.recall
        accuracies = [self.accuracy(language) for language in self.correct]
        return sum(accuracies) / len(accuracies)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `task`, `split`, `model`, `results`, `macro`, and `decoding` if it is set.

        The results have, by language, `n` (examples), `accuracy` and `ci95` (its Wilson interval);
        of answers that are compared with a text, `n` and [`ReadingMetrics.to_dict`], whose means
        over the languages of [`Evaluation.averaged`] are `means`.
        """
        results: dict[str, dict[str, Any]] = {}
        for language, correct in self.correct.items():
            if self.is_reading:
                results[language] = {"n": len(correct), **self.reading(language).to_dict()}
                continue
            results[language] = {
                "n": len(correct),
                "accuracy": self.accuracy(language),
                "ci95": list(wilson(sum(correct), len(correct))),
            }
        content = {
            "task": self.task,
            "split": self.split,
            "model": self.model,
            "results": results,
            "macro": self.macro,
        }
        if self.is_reading:
            content["means"] = self.mean_reading.to_dict()
        if self.decoding:
            content["decoding"] = dict(self.decoding)
        return content

    def to_report(self) -> dict[str, Any]:
        """The JSON form with more: macro-F1, figures by label, and the confusion of labels.

        Of answers that are compared with a text, it has all of them, and the references. It is
        [`Evaluation.to_dict`] for other tasks without labels.
        """
        report = self.to_dict()
        if self.is_reading:
            report["answers"] = self.predictions
            if self.references:
                report["references"] = self._references_content()
        if not self.labels:
            return report
        for language, result in report["results"].items():
            result.update(self.metrics(language).to_dict())
        report["macro_f1"] = self.macro_f1
        return report

    def _references_content(self) -> dict[str, dict[str, Any]]:
        """The JSON form of the references, by name; their means are of the same languages."""
        languages = self.averaged
        contents = {}
        for name, reference in self.references.items():
            means = reference.mean_reading_of(languages)
            contents[name] = {**reference.to_dict(), "means": means.to_dict()}
        return contents

    def least_certain(self, most: int) -> list[UncertainPrediction]:
        """The predictions that were the closest to another, the closest first.

        Args:
            most: how many at most.

        Raises:
            PalamError: the answers were generated, so that nothing is known of their probability.
        """
        uncertain = []
        for row in self.predictions:
            if "scores" not in row:
                raise PalamError(
                    "which rows are the least certain is known of the method score alone"
                )
            uncertain.append(UncertainPrediction.of(row))
        uncertain.sort(key=lambda prediction: prediction.margin)
        return uncertain[:most]


def _label_loss(row: Prediction) -> float:
    """How many nats the right label's log-probability is below that of all labels together."""
    if "scores" not in row:
        raise PalamError("the loss of labels is known of the method score alone")
    scores = row["scores"]
    highest = max(scores.values())
    total = sum(math.exp(score - highest) for score in scores.values())
    return highest + math.log(total) - scores[str(row["label"])]


def load_languages(
    task: Task,
    split: str,
    languages: Sequence[str],
    *,
    data_dir: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, list[Example]]:
    """The examples of each language under the task's own code, all loaded before any is used.

    Args:
        task, split, data_dir: see [`load_split`].
        languages: codes, the task's own or ISO 639; of two that mean the same, the first counts.
        limit, seed: a seeded, label-stratified sample of each language; None is all rows.

    Raises:
        PalamError: a language or a split that is not there.
    """
    codes = [native_language(task, code, data_dir=data_dir) for code in languages]
    examples = {}
    for code in dict.fromkeys(codes):
        rows = load_split(task, split, code, data_dir=data_dir)
        examples[code] = sample(rows, limit, seed)
    return examples


def evaluate(
    model: PalamModel,
    task: Task,
    split: str,
    examples: dict[str, list[Example]],
    *,
    name: str = "",
    **options: Unpack[PredictionOptions],
) -> Evaluation:
    """Accuracy on each language's examples, or what [`Evaluation`] has in its place.

    Args:
        model, task: any checkpoint on any task of its family.
        split: recorded.
        examples: by language, as [`load_languages`] gives them.
        name: of the model, recorded.
        **options: see [`PredictionOptions`].

    Raises:
        PalamError: a task of another family than the bridge was trained for, an unknown method, or
            a likelihood among sentences that are all alike.
    """
    trained = model.config.trained_task
    if trained is not None and trained.family != task.family:
        known = f"{trained.family} ({trained.name})"
        raise PalamError(f"this bridge was trained for {known}; {task.name} is {task.family}")
    if task.reference_language and options.get("likelihood_seed") is not None:
        check_candidates(examples)
    evaluation = Evaluation.of_task(task, split, name)
    if task.has_free_answers:
        evaluation.decoding = options.get("decoding") or {}
    predictor = Predictor(model, task, **options)
    for language, rows in examples.items():
        evaluation.add(language, predictor.predict(rows, language))
    return evaluation
