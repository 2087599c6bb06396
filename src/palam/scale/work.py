"""What is done with texts: labels are scored, or an answer is written.

Its description is small and can be sent to another process. Bound to a model it becomes a reader of
texts, which reads a text that is given several times once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

from palam.errors import PalamError
from palam.inference.best_of_number import check_best_of, reading_arguments
from palam.inference.temperature import is_greedy
from palam.models.guidance_scale import NO_GUIDANCE
from palam.tasks.formats import Row
from palam.tasks.label_scores import SCORES, normalised

if TYPE_CHECKING:
    from palam.inference.ensemble import EnsembleScorer
    from palam.models.modeling import PalamModel
    from palam.models.processing import PalamProcessor
    from palam.models.task_record import TaskRecord

T = TypeVar("T")
Progress = Callable[[int], object]
"""Called with the number of texts just read."""

DIGITS = 6
"""Of a probability, after the point."""
SCORE_DIGITS = 4
"""Of a log-probability, after the point."""


def probabilities(scores: Iterable[float]) -> list[float]:
    """The probability of each label, as it is written; see [`normalised`]."""
    return [round(probability, DIGITS) for probability in normalised(scores)]


class TextReader(Protocol):
    """What reads texts with a model."""

    labels: tuple[str, ...]
    """Those that are scored; none where an answer is written."""
    repeats: bool
    """Whether a text gets the same results whenever it is read."""

    def read(
        self,
        texts: Sequence[str],
        languages: Sequence[str | None],
        *,
        start: int = 0,
        progress: Progress | None = None,
    ) -> list[Row]:
        """The results of each text.

        Args:
            texts: in their order.
            languages: of each; None is not known.
            start: the number of the first among all texts, from which sampling draws its numbers.
            progress: called with the number of texts just read.
        """


@dataclass(frozen=True)
class Labelling:
    """Each text gets the label that the LLM finds likeliest, and how likely all are.

    Raises:
        PalamError: fewer than two labels.
    """

    labels: tuple[str, ...] | None = None
    """Any labels; None is those that the bridge was trained on."""
    batch_size: int = 32
    """Texts at a time."""
    prompt: str | None = None
    """What asks for the label, with one {text} slot; None is as the bridge was trained, or
    see [`label_template`]."""
    description: ClassVar[str] = "classifying"
    results: ClassVar[tuple[str, ...]] = ("prediction", "confidence", SCORES)
    """Usual names of what each text gets."""

    def __post_init__(self) -> None:
        if self.labels is None:
            return
        object.__setattr__(self, "labels", tuple(self.labels))
        if len(self.labels) < 2:
            given = ",".join(self.labels)
            raise PalamError(f"--labels {given!r} holds fewer than two labels; give e.g. good,bad")

    def words_by_label(self, task: "TaskRecord | None") -> dict[str, str]:
        """Each label with the words that the LLM answers.

        Args:
            task: that the bridge was trained on.

        Raises:
            PalamError: it has no labels, and none are given.
        """
        if self.labels is not None:
            return {label: label for label in self.labels}
        if task is None or not task.words_by_label:
            raise PalamError(
                "this bridge was not trained on a task with labels; give --labels, "
                "e.g. --labels good,bad"
            )
        return dict(task.words_by_label)

    def label_names(self, config: Any) -> tuple[str, ...]:
        """The labels that are scored, with a bridge of this configuration."""
        return tuple(self.words_by_label(config.trained_task))

    def uses_encoder(self, config: Any) -> bool:
        """Whether the encoder reads the texts."""
        return not config.llm_only

    def identity(self, config: Any) -> dict[str, Any]:
        """The options on which the results depend, by name.

        Args:
            config: of the bridge.
        """
        pairs = self.words_by_label(config.trained_task).items()
        return {"command": "classify", "labels": [list(pair) for pair in pairs]}

    def set_template(self, processor: "PalamProcessor", config: Any) -> None:
        """Let a model ask so, where that is not as its bridge was trained.

        Args:
            processor: the model's; its template is changed.
            config: of the bridge.
        """
        from palam.inference.task_prompt import label_template

        own = processor.template
        if self.prompt is None:
            processor.template = label_template(processor, config) or own
            return
        processor.template = own.asking(self.prompt, processor.llm_tokenizer)

    def on(self, model: "PalamModel", *others: "PalamModel") -> TextReader:
        """What reads texts so with a model, whose template is set; or with several together.

        Raises:
            PalamError: models that cannot answer together, see [`check_same_labels`].
        """
        from palam.inference.ensemble import EnsembleScorer, check_same_labels
        from palam.inference.scoring import LabelScorer

        models = [model, *others]
        if self.labels is None:
            check_same_labels([each.config for each in models], advice=", or --labels")
        words_by_label = self.words_by_label(model.config.trained_task)
        # Priors are measured with the bridge's own prompt.
        calibrated = self.prompt is None
        scorers = []
        for each in models:
            self.set_template(each.processor, each.config)
            words = list(words_by_label.values())
            scorers.append(LabelScorer(each, words, calibrated=calibrated))
        return _LabelReader(EnsembleScorer(scorers), tuple(words_by_label), self.batch_size)


def _has_chat(processor: "PalamProcessor") -> bool:
    """Whether the LLM has a chat template."""
    return bool(getattr(processor.llm_tokenizer, "chat_template", None))


class _LabelReader:
    repeats = True

    def __init__(self, scorer: "EnsembleScorer", labels: tuple[str, ...], batch_size: int) -> None:
        self.labels = labels
        self._batch_size = batch_size
        self._scorer = scorer

    def read(
        self,
        texts: Sequence[str],
        languages: Sequence[str | None],
        *,
        start: int = 0,
        progress: Progress | None = None,
    ) -> list[Row]:
        """See [`TextReader.read`]."""
        distinct = Distinct.of(list(zip(texts, languages, strict=True)))
        scores = self._scorer.score(
            [text for text, _ in distinct.items],
            [language for _, language in distinct.items],
            batch_size=self._batch_size,
            progress=progress,
        )
        if progress and distinct.num_repeated:
            progress(distinct.num_repeated)
        best_labels = scores.argmax(1).tolist()
        pairs = zip(best_labels, scores.tolist(), strict=True)
        return distinct.spread([self._row(best, values) for best, values in pairs])

    def _row(self, best: int, scores: list[float]) -> Row:
        rounded = [round(score, SCORE_DIGITS) for score in scores]
        return {
            "prediction": self.labels[best],
            "confidence": probabilities(rounded)[best],
            SCORES: dict(zip(self.labels, rounded, strict=True)),
        }


@dataclass(frozen=True)
class Answering:
    """The LLM answers freely about each text.

    Raises:
        PalamError: a prompt for the mode that has none, a number of answers that cannot be made, or
            guidance or several answers where one is drawn or the encoder reads no text.
    """

    prompt: str | None = None
    """What to ask, with one {text} slot; None is as the bridge was trained."""
    mode: str | None = None
    """What stands around the text: `paper`, `prompt` or `chat`; None is as it was trained, but
    `chat` for a prompt to a bridge that was trained on no task, if the LLM has a chat template."""
    max_new_tokens: int = 64
    """Most tokens of an answer."""
    temperature: float = 0.0
    """0 is greedy, see [`is_greedy`]; above, the answer is sampled."""
    no_repeat_ngram_size: int = 0
    """No so many tokens in a row are said twice in an answer; 0 is no limit."""
    guidance_scale: float | None = None
    """How far answers keep to the text, see [`guided_scores`]; 1 is as they come; None is that of
    [`default_guidance`] for greedy answers."""
    best_of: int = 1
    """How many answers are made to a text, of which the best is given, see [`coverage`]."""
    llm_only: bool = False
    """The LLM reads the text itself, without the bridge."""
    seed: int = 0
    """Of sampling."""
    batch_size: int = 16
    """Texts at a time."""
    description: ClassVar[str] = "answering"
    results: ClassVar[tuple[str, ...]] = ("answer",)
    """Usual names of what each text gets."""

    def __post_init__(self) -> None:
        if self.mode == "paper" and self.prompt is not None:
            raise PalamError("the mode paper has no prompt; give --mode prompt or --mode chat")
        if self._is_guided:
            if self.llm_only:
                raise PalamError("guidance needs texts that are read through the bridge")
            if not self.is_greedy:
                raise PalamError("guided answers are greedy; leave the temperature out")
        check_best_of(self.best_of)
        if self.best_of != 1:
            if self.llm_only:
                raise PalamError("the best of several answers needs texts that the encoder reads")
            if not self.is_greedy:
                raise PalamError("best_of draws by itself; leave the temperature out")

    @property
    def _is_guided(self) -> bool:
        """Whether guidance is given."""
        return self.guidance_scale not in (None, NO_GUIDANCE)

    def _needing_bridge(self) -> dict[str, bool]:
        """What needs texts that the encoder reads, and whether it is wanted."""
        return {
            "guidance": self._is_guided,
            "best_of": self.best_of != 1,
        }

    @property
    def is_greedy(self) -> bool:
        """Whether nothing of an answer is drawn."""
        return is_greedy(self.temperature)

    def decoding(self) -> dict[str, Any]:
        """The decoding settings as transformers names them."""
        decoding: dict[str, Any] = {"max_new_tokens": self.max_new_tokens}
        if self.is_greedy:
            decoding["do_sample"] = False
        else:
            decoding |= {"do_sample": True, "temperature": float(self.temperature)}
        if self.no_repeat_ngram_size:
            decoding["no_repeat_ngram_size"] = self.no_repeat_ngram_size
        return decoding | reading_arguments(self.guidance_scale, self.best_of)

    def guided(self, model: "PalamModel") -> Self:
        """The same with a guidance scale that is set, for a model that is asked so."""
        if self.guidance_scale is not None:
            return self
        from palam.inference.generation import default_guidance

        scale = NO_GUIDANCE
        if self.is_greedy:
            scale = default_guidance(model, llm_only=self.llm_only)
        return replace(self, guidance_scale=scale)

    def label_names(self, config: Any) -> tuple[str, ...]:
        """None: no labels are scored."""
        return ()

    def uses_encoder(self, config: Any) -> bool:
        """Whether the encoder reads the texts."""
        return not (self.llm_only or config.llm_only)

    def identity(self, config: Any) -> dict[str, Any]:
        """The options on which the results depend, by name; the template's are the model's.

        Args:
            config: of the bridge.
        """
        sampling = {"seed": self.seed, "batch size": self.batch_size}
        return {
            "command": "generate",
            "llm_only": not self.uses_encoder(config),
            "guidance_scale": "not set" if self.guidance_scale is None else self.guidance_scale,
            **self.decoding(),
            **({} if self.is_greedy else sampling),
        }

    def set_template(self, processor: "PalamProcessor", config: Any) -> None:
        """Let a model ask so, where that is not as its bridge was trained.

        Args:
            processor: the model's; its template is changed.
            config: of the bridge.
        """
        if self.prompt is None and self.mode is None:
            return
        own = processor.template
        tokenizer = processor.llm_tokenizer
        mode = self.mode
        if mode is None and config.task is None and _has_chat(processor):
            mode = "chat"  # an LLM answers questions best there
        if mode is None:
            processor.template = own.asking(self.prompt, tokenizer)
        else:
            processor.template = own.with_prompt(mode, self.prompt, tokenizer)

    def on(self, model: "PalamModel") -> TextReader:
        """What reads texts so with a model, whose template is set.

        Raises:
            PalamError: guidance or several answers where the LLM was trained to read texts itself.
        """
        for option, is_given in self._needing_bridge().items():
            if is_given and not self.uses_encoder(model.config):
                raise PalamError(f"{option} needs a bridge; this LLM reads texts itself")
        self.set_template(model.processor, model.config)
        return _AnswerReader(model, self.guided(model))


class _AnswerReader:
    labels: tuple[str, ...] = ()

    def __init__(self, model: "PalamModel", work: Answering) -> None:
        self._model = model
        self._work = work
        self.repeats = work.is_greedy

    def read(
        self,
        texts: Sequence[str],
        languages: Sequence[str | None],
        *,
        start: int = 0,
        progress: Progress | None = None,
    ) -> list[Row]:
        """See [`TextReader.read`]."""
        from transformers import set_seed

        from palam.inference.generation import generate

        work = self._work
        pairs = list(zip(texts, languages, strict=True))
        distinct = Distinct.of(pairs) if self.repeats else Distinct.none_repeated(pairs)
        set_seed(work.seed + start)  # a run that goes on there draws the same numbers
        answers = generate(
            self._model,
            [text for text, _ in distinct.items],
            [language for _, language in distinct.items],
            llm_only=work.llm_only or self._model.config.llm_only,
            batch_size=work.batch_size,
            progress=progress,
            **work.decoding(),
        )
        if progress and distinct.num_repeated:
            progress(distinct.num_repeated)
        return distinct.spread([{"answer": text} for text in answers])


Work = Labelling | Answering
"""What is done with texts."""


@dataclass(frozen=True)
class Distinct:
    """Items without repetitions, and where each of them stood."""

    items: list[Any]
    """Each once, in the order of their first places."""
    places: list[int]
    """For each place, which of the items stood there."""

    @classmethod
    def of(cls, items: Sequence[Any]) -> "Distinct":
        """The items of a sequence; they are hashable."""
        number_of: dict[Any, int] = {}
        places = [number_of.setdefault(item, len(number_of)) for item in items]
        return cls(list(number_of), places)

    @classmethod
    def none_repeated(cls, items: Sequence[Any]) -> "Distinct":
        """The items of a sequence as they stand there, repetitions too."""
        return cls(list(items), list(range(len(items))))

    @property
    def num_repeated(self) -> int:
        """How many places hold what stood before."""
        return len(self.places) - len(self.items)

    def spread(self, values: Sequence[T]) -> list[T]:
        """A value of each item, at all of its places."""
        return [values[number] for number in self.places]
