"""Which texts are scored together: those of several requests with the same labels, a few at a time.

A request with many texts does not hold the others up: each gives some of its texts in turn.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from palam.errors import PalamError
from palam.inference.scoring import LabelScorer
from palam.inference.task_prompt import label_template
from palam.serving.bridges import ServedBridge
from palam.serving.errors import RequestError, failure_of, is_out_of_memory, timed_out
from palam.serving.jobs import Classified, ClassifyJob, Failed
from palam.serving.limits import AdaptiveLimit, ServeLimits
from palam.serving.observer import Observer
from palam.serving.prompts import MeasuredText, PromptBuilder

WARM_UP_TEXTS = ("A text.", "A text that is longer than the other. " * 4)
MAX_SCORERS = 64
"""How many sets of labels are remembered, with what is known of reading them."""


class _ScorerKey(NamedTuple):
    """What one scorer is for."""

    bridge: str
    labels: tuple[str, ...]


@dataclass(eq=False)
class _Classification:
    """A job and how far it is."""

    job: ClassifyJob
    texts: list[str]
    """As the encoder reads them."""
    lengths: list[int]
    """Tokens of each text."""
    cut: list[bool]
    scores: list[list[float]] = field(default_factory=list)
    """Of the texts that are done, which are the first ones."""
    is_done: bool = False

    @property
    def key(self) -> _ScorerKey:
        return _ScorerKey(self.job.bridge, self.job.labels)

    def fail(self, error: BaseException) -> None:
        if not self.is_done:
            self.is_done = True
            self.job.deliver(Failed(failure_of(error)))

    def take(self, scores: list[float]) -> None:
        self.scores.append(scores)
        if len(self.scores) == len(self.texts) and not self.is_done:
            self.is_done = True
            self.job.deliver(Classified(self.scores, self.cut))


class _Row(NamedTuple):
    """One text of a classification."""

    classification: _Classification
    number: int

    @property
    def text(self) -> str:
        return self.classification.texts[self.number]

    @property
    def language(self) -> str | None:
        return self.classification.job.languages[self.number]


class Classifier:
    """The engine's classifications. All of it runs in the engine's thread.

    Args:
        bridges: by name.
        limits: of the server.
        observer: is told of batches and tokens.
    """

    def __init__(
        self, bridges: Mapping[str, ServedBridge], limits: ServeLimits, observer: Observer
    ) -> None:
        self._bridges = bridges
        self._limits = limits
        self._observer = observer
        self._prompts = {name: PromptBuilder(bridge.model) for name, bridge in bridges.items()}
        self._rows = AdaptiveLimit(limits.max_batch)
        self._new: deque[ClassifyJob] = deque()
        self._started: deque[_Classification] = deque()
        self._scorers: OrderedDict[_ScorerKey, LabelScorer] = OrderedDict()

    # ------------------------------------------------------------------ what it has
    @property
    def num_waiting(self) -> int:
        """Classifications that are not finished."""
        return len(self._new) + len(self._started)

    def add(self, job: ClassifyJob) -> None:
        """Take a job into the queue."""
        self._new.append(job)

    # ------------------------------------------------------------------ what it does
    def warm_up(self) -> None:
        """Find out how the LLMs read the bridges' own labels, before anyone waits for it."""
        for name, bridge in self._bridges.items():
            if bridge.words_by_label:
                labels = tuple(bridge.words_by_label.values())
                self._scorer(_ScorerKey(name, labels)).score(WARM_UP_TEXTS)

    def advance(self) -> None:
        """Score one batch."""
        while self._new:
            self._prepare(self._new.popleft())
        self._drop_dead()
        rows = self._next_rows()
        if rows:
            self._score(rows)
            self._started.rotate(-1)
        self._started = deque(each for each in self._started if not each.is_done)

    def fail_all(self, error: RequestError) -> None:
        """Tell all clients that nothing more comes."""
        for job in self._new:
            job.deliver(Failed(error))
        for classification in self._started:
            classification.fail(error)
        self._new.clear()
        self._started.clear()

    def _drop_dead(self) -> None:
        """Forget clients that have gone, and requests whose time is over."""
        for classification in self._started:
            if classification.job.is_cancelled:
                classification.is_done = True
            elif classification.job.is_late:
                classification.fail(timed_out())
        self._started = deque(each for each in self._started if not each.is_done)

    # ------------------------------------------------------------------ new requests
    def _prepare(self, job: ClassifyJob) -> None:
        """Check a job's labels, languages and lengths; it is refused, or has started."""
        if job.is_cancelled:
            return
        try:
            self._check_labels(job)
            prompts = self._prompts[job.bridge]
            for language in set(job.languages):
                prompts.check_language(language)
            texts = [prompts.alone(text) for text in job.texts]
            measured = [self._measured(prompts, text) for text in texts]
        except Exception as error:
            job.deliver(Failed(failure_of(error)))
            return
        lengths = [text.tokens for text in measured]
        cut = [text.is_cut for text in measured]
        self._started.append(_Classification(job, texts, lengths, cut))

    def _check_labels(self, job: ClassifyJob) -> None:
        """Refuse labels that cannot be scored.

        Raises:
            RequestError: it is so.
        """
        try:
            self._scorer(_ScorerKey(job.bridge, job.labels))
        except PalamError as error:
            raise RequestError(str(error), param="labels") from None

    def _measured(self, prompts: PromptBuilder, text: str) -> MeasuredText:
        """How long a text is.

        Raises:
            RequestError: it has more tokens than the server reads.
        """
        measured = prompts.measure(text)
        most = self._limits.max_text_tokens
        if measured.tokens > most:
            raise RequestError(
                f"a text has {measured.tokens} tokens; this server reads {most} at most",
                param="texts",
                code="context_length_exceeded",
            )
        return measured

    def _scorer(self, key: _ScorerKey) -> LabelScorer:
        """The scorer of some labels; the least recently used ones are forgotten."""
        scorer = self._scorers.pop(key, None)
        if scorer is None:
            model = self._bridges[key.bridge].model
            template = label_template(model.processor, model.config)
            scorer = LabelScorer(model, list(key.labels), template=template)
        self._scorers[key] = scorer
        while len(self._scorers) > MAX_SCORERS:
            self._scorers.popitem(last=False)
        return scorer

    # ------------------------------------------------------------------ scoring
    def _next_rows(self) -> list[_Row]:
        """The texts of the next batch: of the first job, and of those with the same labels."""
        if not self._started:
            return []
        key = self._started[0].key
        together = [each for each in self._started if each.key == key]
        rows: list[_Row] = []
        longest = 0
        for number, classification in _in_turn(together):
            longest = max(longest, classification.lengths[number])
            padded = longest * (len(rows) + 1)
            if rows and (len(rows) >= self._rows.value or padded > self._limits.batch_tokens):
                break
            rows.append(_Row(classification, number))
        return rows

    def _score(self, rows: Sequence[_Row]) -> None:
        """Score texts of the same labels; if that fails, half of them at a time."""
        rows = [row for row in rows if not row.classification.is_done]
        if not rows:
            return
        key = rows[0].classification.key
        texts = [row.text for row in rows]
        languages = [row.language for row in rows]
        try:
            scores = self._scorer(key).score(texts, languages, batch_size=len(rows)).tolist()
        except Exception as error:
            self._scorers.pop(key, None)  # what it has found out may be wrong
            self._observer.batch_failed("classify", error)
            if is_out_of_memory(error):
                self._rows.failed(len(rows))
            if len(rows) == 1:
                rows[0].classification.fail(error)
                return
            middle = len(rows) // 2
            self._score(rows[:middle])
            self._score(rows[middle:])
            return
        self._rows.succeeded()
        self._observer.batch_read("classify", len(rows))
        read = sum(row.classification.lengths[row.number] for row in rows)
        self._observer.tokens_read("classify", read)
        for row, values in zip(rows, scores, strict=True):
            row.classification.take(values)


def _in_turn(classifications: Sequence[_Classification]) -> list[tuple[int, _Classification]]:
    """The texts that are left to score, one of each request in turn, with their numbers."""
    turns = []
    for place, classification in enumerate(classifications):
        first = len(classification.scores)
        for number in range(first, len(classification.texts)):
            turns.append((number - first, place, number))
    turns.sort()
    return [(number, classifications[place]) for _, place, number in turns]
