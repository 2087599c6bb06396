"""Accuracy of a bridge on a task, language by language, with Wilson intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palam.errors import PalamError
from palam.inference.generation import generate
from palam.inference.scoring import Progress, score_labels
from palam.models.modeling import PalamModel
from palam.tasks.loading import load_split, native_language
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task, last_number

NUMBER_TOKENS = 256  # most of an answer that is worked out
METHODS = ("score", "generate")
Z95 = 1.959963984540054


def wilson(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 % by default.

    >>> [round(x, 4) for x in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass
class Evaluation:
    """Results per language, as fractions from 0 to 1, and every prediction."""

    task: str
    split: str
    model: str
    correct: dict[str, list[bool]] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)

    def accuracy(self, language: str) -> float:
        """Share of right predictions in one language."""
        return sum(self.correct[language]) / len(self.correct[language])

    @property
    def macro(self) -> float:
        """The plain mean over the languages."""
        return sum(map(self.accuracy, self.correct)) / len(self.correct)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        results = {
            code: {
                "n": len(right),
                "accuracy": self.accuracy(code),
                "ci95": list(wilson(sum(right), len(right))),
            }
            for code, right in self.correct.items()
        }
        return {
            "task": self.task,
            "split": self.split,
            "model": self.model,
            "results": results,
            "macro": self.macro,
        }


def predict(
    model: PalamModel, task: Task, examples: Sequence[Example], language: str | None, *, method: str = "score",
    llm_only: bool = False, batch_size: int = 32, progress: Progress | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """A prediction per example: `{"row", "label", "prediction", "scores" or "answer"}`; of a number, that number.

    Args:
        model, direct, batch_size, progress: see [`label_scores`].
        task: gives the text's form in the model's mode, and the labels' words.
        examples: of one language.
        language: its code, for encoders that must be told.
        method: `"score"` takes the likeliest label; `"generate"` decodes greedily and wants the label's exact words.
            A task without labels is always generated, and its last number counts.
    """
    if method not in METHODS:
        raise PalamError(f"method is {method!r}; it must be one of: {', '.join(METHODS)}")
    texts = [task.render(example, model.processor.template.mode) for example in examples]
    names, words = list(task.labels), list(task.labels.values())
    common: dict[str, Any] = {"direct": llm_only, "batch_size": batch_size, "progress": progress}
    languages = [language] * len(texts)
    if task.number:
        said = generate(model, texts, languages, max_new_tokens=NUMBER_TOKENS, **common)
        return [
            {
                "row": e.row,
                "label": last_number(e.label),
                "prediction": last_number(answer),
                "answer": answer,
            }
            for e, answer in zip(examples, said, strict=True)
        ]
    if method == "generate":
        most = max(len(model.processor.answer_ids(word)) for word in words)
        said = generate(model, texts, languages, max_new_tokens=most, **common)
        meant = dict(
            zip(reversed(words), reversed(names), strict=True)
        )  # of two labels with one word, the first
        found: list[dict[str, Any]] = [
            {"prediction": meant.get(answer), "answer": answer} for answer in said
        ]
    else:
        scores = score_labels(model, texts, words, languages, **common)
        found = [
            {"prediction": names[best], "scores": dict(zip(names, row, strict=True))}
            for best, row in zip(scores.argmax(1).tolist(), scores.tolist(), strict=True)
        ]
    return [{"row": e.row, "label": e.label, **one} for e, one in zip(examples, found, strict=True)]


def load_languages(
    task: Task, split: str, languages: Sequence[str], *,
    data_dir: str | Path | None = None, limit: int | None = None, seed: int = 0,
) -> dict[str, list[Example]]:  # fmt: skip
    """The examples of each language under the task's own code, all read before any is used.

    Args:
        task, split, data_dir: see [`load_split`].
        languages: codes, the task's own or ISO 639.
        limit, seed: a seeded, label-stratified sample of each language.
    """
    natives = dict.fromkeys(native_language(task, code, data_dir=data_dir) for code in languages)
    return {
        code: sample(load_split(task, split, code, data_dir=data_dir), limit, seed)
        for code in natives
    }


def evaluate(
    model: PalamModel,
    task: Task,
    split: str,
    examples: dict[str, list[Example]],
    *,
    name: str = "",
    **options: Any,
) -> Evaluation:
    """Accuracy on each language's examples.

    Args:
        model, task: any checkpoint on any task of its family.
        split: recorded.
        examples: per language, as [`load_languages`] gives them.
        name: of the model, recorded.
        **options: of [`predict`].

    Raises:
        PalamError: a task of another family than the bridge was trained for.
    """
    trained = model.config.task
    if trained and trained["family"] != task.family:
        known = f"{trained['family']} ({trained['name']})"
        raise PalamError(f"this bridge was trained for {known}; {task.name} is {task.family}")
    evaluation = Evaluation(task.name, split, name)
    for language, rows in examples.items():
        found = predict(model, task, rows, language, **options)
        evaluation.correct[language] = [one["prediction"] == one["label"] for one in found]
        evaluation.predictions += [{"language": language, **one} for one in found]
    return evaluation
