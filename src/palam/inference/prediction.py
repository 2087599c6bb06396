"""What a model predicts for a task's examples: a label, a number, or a text."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict, Unpack

from palam.errors import PalamError
from palam.inference.batches import Progress
from palam.inference.generation import asked_with, generate, generate_about
from palam.inference.reading_likelihood import likeliest_of_several, num_candidates
from palam.inference.reading_metrics import (
    check_installed,
    first_line,
    row_readings,
    says_one_of,
)
from palam.inference.scoring import LabelScorer
from palam.inference.task_prompt import task_template
from palam.models.modeling import PalamModel
from palam.models.template import clean
from palam.tasks.task import VARIANTS, Example, Task, last_number

MAX_WORKING_TOKENS = 256
"""Most tokens of an answer that is worked out in words and ends in a number."""
MAX_READING_TOKENS = 64
"""Most tokens of an answer that says what a text says."""
MAX_SHORT_TOKENS = 16
"""Most tokens of an answer of a word or two."""
METHODS = ("score", "generate")


class Prediction(TypedDict):
    """What a model predicts for one example: a line of a predictions file."""

    language: NotRequired[str]
    """The task's own code; [`palam.evaluate`] sets it."""
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
    candidates: NotRequired[int]
    """Of how many texts, see [`num_candidates`]."""


class PredictionOptions(TypedDict, total=False):
    """How [`predict`] and [`palam.evaluate`] read texts; every key may be left out."""

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

    What the model is asked with is that of [`task_template`].

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
            template = task_template(model, task, task.prompt)
            self.scorer = LabelScorer(model, answers, llm_only=llm_only, template=template)

    def predict(self, examples: Sequence[Example], language: str | None) -> list[Prediction]:
        """A prediction for each example.

        Args:
            examples: of one language.
            language: its code, for encoders that must be told.
        """
        mode = self.model.processor.template.mode
        texts = [self.task.render(example, mode) for example in examples]
        languages = [language] * len(texts)
        if self.scorer is not None:
            return self._predict_by_score(self.scorer, examples, texts, languages)
        if self.task.questions:
            return self._answer_questions(examples, texts, languages)
        with asked_with(self.model, task_template(self.model, self.task, self.task.prompt)):
            if self.task.reference_language:
                return self._predict_texts(examples, texts, languages)
            if self.task.number:
                return self._predict_numbers(examples, texts, languages)
            return self._predict_by_generation(examples, texts, languages)

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
        answers = self._generate(
            texts, languages, most_answer_tokens(self.task), **self._judged_by_first_line()
        )
        likeliest = self._likeliest(references, texts, languages)
        lines = [first_line(answer) for answer in answers]
        predictions = predictions_of_readings(examples, lines, texts)
        if likeliest:
            candidates = num_candidates(references)
            for prediction, is_likeliest in zip(predictions, likeliest, strict=True):
                prediction["likeliest"] = is_likeliest
                prediction["candidates"] = candidates
        return predictions

    def _judged_by_first_line(self) -> dict[str, bool]:
        """Of several answers to a text the best is to be chosen by what is kept of it."""
        return {} if self.decoding.get("best_of", 1) == 1 else {"first_line_only": True}

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
        prompts = [self.task.prompt_of(example) for example in examples]
        templates = {
            prompt: task_template(self.model, self.task, prompt) for prompt in set(prompts)
        }
        answers = generate_about(
            self.model,
            texts,
            [templates[prompt] for prompt in prompts],
            languages,
            llm_only=self.llm_only,
            batch_size=self.batch_size,
            progress=self.progress,
            **{"max_new_tokens": most_answer_tokens(self.task), **self.decoding},
        )
        return [
            _answered(example, answer) for example, answer in zip(examples, answers, strict=True)
        ]

    def _generate(
        self,
        texts: Sequence[str],
        languages: Sequence[str | None],
        max_new_tokens: int,
        **options: Any,
    ) -> list[str]:
        return generate(
            self.model,
            texts,
            languages,
            llm_only=self.llm_only,
            batch_size=self.batch_size,
            progress=self.progress,
            **{"max_new_tokens": max_new_tokens, **options, **self.decoding},
        )


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
