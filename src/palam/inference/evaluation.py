"""What a bridge reaches on a task, language by language, with intervals.

That is the accuracy where a task has right answers, and content-word recall where the answer is to
say what the text says.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict, Unpack

from palam.errors import PalamError
from palam.inference.generation import asked_with, generate, generate_about
from palam.inference.label_prompt import label_template
from palam.inference.metrics import ClassificationMetrics
from palam.inference.reading_likelihood import likeliest_of_several
from palam.inference.reading_metrics import (
    ReadingMetrics,
    check_installed,
    row_readings,
    says_one_of,
)
from palam.inference.scoring import LabelScorer, Progress
from palam.models.modeling import PalamModel
from palam.models.template import Template, clean
from palam.tasks.loading import load_split, native_language
from palam.tasks.sampling import sample
from palam.tasks.task import VARIANTS, Example, Task, last_number

MAX_WORKING_TOKENS = 256
"""Most tokens of an answer that is worked out in words and ends in a number."""
MAX_READING_TOKENS = 64
"""Most tokens of an answer that says what a text says."""
MAX_SHORT_TOKENS = 16
"""Most tokens of an answer of a word or two."""
METHODS = ("score", "generate")
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


class Prediction(TypedDict):
    """What a model predicts for one example: a line of a predictions file."""

    language: NotRequired[str]
    """The task's own code; [`evaluate`] sets it."""
    row: int
    """The example's row in its file, from 0."""
    label: str | None
    """The right label; of a task without labels, the right number or text."""
    prediction: str | None
    """The predicted label, number or text; None for a generated answer that holds none."""
    scores: NotRequired[dict[str, float]]
    """Each label's score, of the method `"score"`."""
    answer: NotRequired[str]
    """The generated text, of the method `"generate"`."""
    recall: NotRequired[float | None]
    """Of an answer that is compared with a text, see [`RowReading`]; so are the next two."""
    chrf: NotRequired[float]
    identified: NotRequired[bool]
    likeliest: NotRequired[bool]
    """Whether the LLM finds the right text the likeliest, see [`likeliest_of_several`]."""


class PredictionOptions(TypedDict, total=False):
    """How [`predict`] and [`evaluate`] read texts; every key may be left out."""

    method: str
    """`"score"` (default) takes the label with the highest score, see [`LabelScorer`];
    `"generate"` decodes greedily and takes the label whose exact words the answer is. A task
    without labels is always generated, and the last number of the answer counts."""
    llm_only: bool
    """The LLM reads the text itself instead of through the bridge; default no."""
    batch_size: int
    """Texts at a time; default 32."""
    progress: Progress | None
    """Called with the number of texts just read."""
    decoding: Mapping[str, Any]
    """Arguments of [`generate`] for free answers, e.g. `no_repeat_ngram_size`."""
    likelihood_seed: int | None
    """Of a task whose answers are compared with a text: also find out whether the LLM finds it the
    likeliest of several, which are drawn with this seed; default no. It takes long."""


class Predictor:
    """Predicts a task's labels, for any number of languages, with one [`LabelScorer`].

    A model that was trained for no task, and whose own prompt asks nothing, is asked with the
    task's; for a text or for answers to questions, every model without a task is.

    Args:
        model: any checkpoint.
        task: gives the text's form in the model's mode, and the labels' words.
        method, llm_only, batch_size, progress, decoding, likelihood_seed: see
            [`PredictionOptions`].

    Attributes:
        scorer: of the labels; None where answers are generated.

    Raises:
        PalamError: an unknown method.
    """

    def __init__(
        self,
        model: PalamModel,
        task: Task,
        *,
        method: str = "score",
        llm_only: bool = False,
        batch_size: int = 32,
        progress: Progress | None = None,
        decoding: Mapping[str, Any] | None = None,
        likelihood_seed: int | None = None,
    ) -> None:
        if method not in METHODS:
            raise PalamError(f"method is {method!r}; it must be one of: {', '.join(METHODS)}")
        self.model = model
        self.task = task
        self.llm_only = llm_only
        self.batch_size = batch_size
        self.progress = progress
        self.decoding = dict(decoding or {})
        self.likelihood_seed = likelihood_seed
        if task.reference_language:
            check_installed()
        self.scorer: LabelScorer | None = None
        if method == "score" and not task.has_free_answers:
            # Several labels may have the same words, which are then one answer.
            answers = list(dict.fromkeys(task.labels.values()))
            with asked_with(model, self._template_of_labels()):
                self.scorer = LabelScorer(model, answers, llm_only=llm_only)

    def predict(self, examples: Sequence[Example], language: str | None) -> list[Prediction]:
        """A prediction for each example.

        Args:
            examples: of one language.
            language: its code, for encoders that must be told.
        """
        mode = self.model.processor.template.mode
        texts = [self.task.render(example, mode) for example in examples]
        languages = [language] * len(texts)
        if self.task.reference_language:
            return self._predict_texts(examples, texts, languages)
        if self.task.questions:
            return self._answer_questions(examples, texts, languages)
        with asked_with(self.model, self._template_of_labels()):
            if self.task.number:
                return self._predict_numbers(examples, texts, languages)
            if self.scorer is None:
                return self._predict_by_generation(examples, texts, languages)
            return self._predict_by_score(self.scorer, examples, texts, languages)

    def _predict_by_score(
        self,
        scorer: LabelScorer,
        examples: Sequence[Example],
        texts: Sequence[str],
        languages: Sequence[str | None],
    ) -> list[Prediction]:
        """The label with the highest score; of labels with the same words, the first."""
        names = list(self.task.labels)
        answer_scores = scorer.score(
            texts,
            languages,
            batch_size=self.batch_size,
            progress=self.progress,
        )
        column_of = {words: column for column, words in enumerate(scorer.labels)}
        columns = [column_of[words] for words in self.task.labels.values()]
        scores = answer_scores[:, columns]
        best = scores.argmax(1).tolist()
        rows = scores.tolist()
        predictions = []
        for example, index, row in zip(examples, best, rows, strict=True):
            prediction = Prediction(
                row=example.row,
                label=example.label,
                prediction=names[index],
                scores=dict(zip(names, row, strict=True)),
            )
            predictions.append(prediction)
        return predictions

    def _predict_by_generation(
        self,
        examples: Sequence[Example],
        texts: Sequence[str],
        languages: Sequence[str | None],
    ) -> list[Prediction]:
        """The label whose exact words are generated."""
        labels = self.task.labels
        answer_ids = self.model.processor.answer_ids
        longest = max(len(answer_ids(words)) for words in labels.values())
        answers = self._generate(texts, languages, longest)
        label_of: dict[str, str] = {}
        for label, words in labels.items():
            # In the form that the LLM learned; of two labels with the same words, the first.
            label_of.setdefault(clean(words), label)
        return [
            Prediction(
                row=example.row,
                label=example.label,
                prediction=label_of.get(clean(answer)),
                answer=answer,
            )
            for example, answer in zip(examples, answers, strict=True)
        ]

    def _predict_numbers(
        self,
        examples: Sequence[Example],
        texts: Sequence[str],
        languages: Sequence[str | None],
    ) -> list[Prediction]:
        """The number that the generated working ends in."""
        answers = self._generate(texts, languages, most_answer_tokens(self.task))
        return [
            _worked_out(example, answer, language)
            for example, answer, language in zip(examples, answers, languages, strict=True)
        ]

    def _predict_texts(
        self,
        examples: Sequence[Example],
        texts: Sequence[str],
        languages: Sequence[str | None],
    ) -> list[Prediction]:
        """The first line of what the LLM says, compared with the example's text."""
        references = [example.label for example in examples]
        with asked_with(self.model, self._template(self.task.prompt)):
            answers = self._generate(texts, languages, most_answer_tokens(self.task))
            likeliest = self._likeliest(references, texts, languages)
        lines = [first_line(answer) for answer in answers]
        predictions = predictions_of_readings(examples, lines, texts)
        for prediction, is_likeliest in zip(predictions, likeliest, strict=False):
            prediction["likeliest"] = is_likeliest
        return predictions

    def _likeliest(
        self,
        references: Sequence[str],
        texts: Sequence[str],
        languages: Sequence[str | None],
    ) -> list[bool]:
        """Whether the LLM finds each text's reference the likeliest; [] if that is not asked."""
        if self.likelihood_seed is None:
            return []
        return likeliest_of_several(
            self.model,
            texts,
            references,
            languages,
            llm_only=self.llm_only,
            seed=self.likelihood_seed,
            progress=self.progress,
        )

    def _answer_questions(
        self,
        examples: Sequence[Example],
        texts: Sequence[str],
        languages: Sequence[str | None],
    ) -> list[Prediction]:
        """The right answers, where the LLM's own says one of them."""
        templates = [self._template(self.task.prompt_of(example)) for example in examples]
        answers = generate_about(
            self.model,
            texts,
            templates,
            languages,
            llm_only=self.llm_only,
            batch_size=self.batch_size,
            progress=self.progress,
            **{"max_new_tokens": most_answer_tokens(self.task), **self.decoding},
        )
        return [
            _answered(example, answer) for example, answer in zip(examples, answers, strict=True)
        ]

    def _template_of_labels(self) -> Template | None:
        """What asks for a label or a number: the task's own prompt, where the model's asks nothing,
        see [`label_template`]; None is as it was trained."""
        model = self.model
        if label_template(model.processor, model.config) is None:
            return None
        return self._template(self.task.prompt)

    def _template(self, prompt: str) -> Template:
        """What stands around a text that the LLM is asked about with this prompt."""
        if self.model.config.task and not self.task.questions:
            return self.model.processor.template
        return prompted_template(self.model, prompt)

    def _generate(
        self,
        texts: Sequence[str],
        languages: Sequence[str | None],
        max_new_tokens: int,
    ) -> list[str]:
        return generate(
            self.model,
            texts,
            languages,
            llm_only=self.llm_only,
            batch_size=self.batch_size,
            progress=self.progress,
            **{"max_new_tokens": max_new_tokens, **self.decoding},
        )


def first_line(answer: str) -> str:
    """An answer up to its first line break: what an LLM adds after it is no longer the answer."""
    return answer.strip().partition("\n")[0].strip()


def prompted_template(model: PalamModel, prompt: str) -> Template:
    """What stands around a text that is asked about with a prompt, in the model's mode.

    Args:
        model: any.
        prompt: with a `{text}` slot.
    """
    own = model.processor.template
    mode = "prompt" if own.mode == "paper" else own.mode
    return own.with_prompt(mode, prompt, model.processor.llm_tokenizer)


def _worked_out(example: Example, answer: str, language: str | None) -> Prediction:
    """The number that an answer ends in."""
    return Prediction(
        row=example.row,
        label=last_number(example.label),  # data sets write it as in English
        prediction=last_number(answer, language),
        answer=answer,
    )


def _answered(example: Example, answer: str) -> Prediction:
    """The right answer to a question, if that is what is said."""
    line = first_line(answer)
    wrong = example.fields.get("wrong", "")
    is_right = says_one_of(
        line, example.label.split(VARIANTS), wrong.split(VARIANTS) if wrong else ()
    )
    return Prediction(
        row=example.row,
        label=example.label,
        prediction=example.label if is_right else None,
        answer=line,
    )


def judged(
    task: Task, example: Example, text: str, answer: str, language: str | None
) -> Prediction:
    """What a free answer to one example comes to.

    Args:
        task: one without labels.
        example: of the task.
        text: what the encoder read.
        answer: of the LLM.
        language: of the text, in whose digits the answer may be.

    Returns:
        The prediction; of a text that is said again, identified among itself alone.

    Raises:
        PalamError: snowballstemmer or sacrebleu is needed and not installed.
    """
    if task.number:
        return _worked_out(example, answer, language)
    if task.questions:
        return _answered(example, answer)
    return predictions_of_readings([example], [first_line(answer)], [text])[0]


def most_answer_tokens(task: Task) -> int:
    """How long a free answer may be, in the LLM's tokens."""
    if task.number:
        return MAX_WORKING_TOKENS
    return MAX_SHORT_TOKENS if task.questions else MAX_READING_TOKENS


def predictions_of_readings(
    examples: Sequence[Example], answers: Sequence[str], sources: Sequence[str]
) -> list[Prediction]:
    """Answers that are compared with the examples' texts in the reference language.

    Args:
        examples: of one language.
        answers: to each.
        sources: each one's text, as the encoder reads it.
    """
    references = [example.label for example in examples]
    readings = row_readings(answers, references, sources)
    return [
        Prediction(
            row=example.row,
            label=example.label,
            prediction=answer,
            recall=reading.recall,
            chrf=reading.chrf,
            identified=reading.identified,
        )
        for example, answer, reading in zip(examples, answers, readings, strict=True)
    ]


def predict(
    model: PalamModel,
    task: Task,
    examples: Sequence[Example],
    language: str | None,
    **options: Unpack[PredictionOptions],
) -> list[Prediction]:
    """A prediction for each example of one language.

    Args:
        model, task: see [`Predictor`].
        examples: of one language.
        language: its code, for encoders that must be told.
        **options: see [`PredictionOptions`].

    Raises:
        PalamError: an unknown method.
    """
    return Predictor(model, task, **options).predict(examples, language)


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
        highest = max(scores.values())
        weights = {label: math.exp(score - highest) for label, score in scores.items()}
        total = sum(weights.values())
        first, second = sorted(weights, key=lambda label: -weights[label])[:2]
        return cls(
            row=row,
            confidence=weights[first] / total,
            runner_up=second,
            margin=(weights[first] - weights[second]) / total,
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
    def mean_reading(self) -> ReadingMetrics:
        """The plain mean of the languages' figures of [`Evaluation.reading`]."""
        return ReadingMetrics.mean([self.reading(language) for language in self.correct])

    @property
    def measure(self) -> str:
        """The name of the main figure: `accuracy` or `recall`."""
        return "recall" if self.is_reading else "accuracy"

    @property
    def macro_f1(self) -> float:
        """The plain mean of the languages' macro-F1."""
        scores = [self.metrics(language).macro_f1 for language in self.correct]
        return sum(scores) / len(scores)

    @property
    def macro(self) -> float:
        """The plain mean of the languages' accuracies, or of their content-word recall."""
        if self.is_reading:
            return self.mean_reading.recall or 0.0
        accuracies = [self.accuracy(language) for language in self.correct]
        return sum(accuracies) / len(accuracies)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `task`, `split`, `model`, `results` and `macro`.

        The results have, by language, `n` (examples), `accuracy` and `ci95` (its Wilson interval);
        of answers that are compared with a text, `n` and [`ReadingMetrics.to_dict`].
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
                report["references"] = {
                    name: reference.to_dict() for name, reference in self.references.items()
                }
        if not self.labels:
            return report
        for language, result in report["results"].items():
            result.update(self.metrics(language).to_dict())
        report["macro_f1"] = self.macro_f1
        return report

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
        PalamError: a task of another family than the bridge was trained for, or an unknown method.
    """
    trained = model.config.task
    if trained and trained["family"] != task.family:
        known = f"{trained['family']} ({trained['name']})"
        raise PalamError(f"this bridge was trained for {known}; {task.name} is {task.family}")
    evaluation = Evaluation(
        task.name,
        split,
        name,
        labels=tuple(task.labels),
        is_reading=task.reference_language is not None,
    )
    predictor = Predictor(model, task, **options)
    for language, rows in examples.items():
        evaluation.add(language, predictor.predict(rows, language))
    return evaluation
