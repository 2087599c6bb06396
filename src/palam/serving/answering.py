"""Which answers run together: a new one joins between two steps, a finished one leaves at once."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from palam.models.modeling import PalamModel
from palam.serving.answers import AnswerBatch, RunningAnswer
from palam.serving.bridges import ServedBridge
from palam.serving.contexts import ContextClass, suitable_context
from palam.serving.errors import RequestError, failure_of, is_out_of_memory, timed_out
from palam.serving.jobs import AnswerJob, Failed, Started
from palam.serving.limits import AdaptiveLimit, ServeLimits
from palam.serving.observer import Observer
from palam.serving.prompts import Prompt, PromptBuilder


class _Answering(NamedTuple):
    """How one bridge's answers are made."""

    model: PalamModel
    prompts: PromptBuilder
    context_class: ContextClass
    stop_ids: frozenset[int]
    decode: Callable[[list[int]], str]


class AnswerScheduler:
    """The engine's free answers. All of it runs in the engine's thread.

    Answers of all bridges over one LLM run in one batch, as far as their lengths fit together.

    Args:
        bridges: by name.
        limits: of the server.
        observer: is told of batches and tokens.
    """

    def __init__(
        self, bridges: Mapping[str, ServedBridge], limits: ServeLimits, observer: Observer
    ) -> None:
        self._limits = limits
        self._observer = observer
        self._rows = AdaptiveLimit(limits.max_batch)
        self._waiting: deque[AnswerJob] = deque()
        self._batches: list[AnswerBatch] = []
        self._bridges: dict[str, _Answering] = {}
        context_classes: dict[int, ContextClass] = {}
        for name, bridge in bridges.items():
            llm_key = id(bridge.model.llm)
            if llm_key not in context_classes:
                context_classes[llm_key] = suitable_context(bridge.model)
            self._bridges[name] = _answering(bridge.model, context_classes[llm_key])

    # ------------------------------------------------------------------ what it has
    @property
    def num_waiting(self) -> int:
        """Answers that have no place yet."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Answers that are being made."""
        return sum(len(batch.answers) for batch in self._batches)

    @property
    def has_work(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._waiting or self._batches)

    def add(self, job: AnswerJob) -> None:
        """Take a job into the queue."""
        self._waiting.append(job)

    # ------------------------------------------------------------------ what it does
    def advance(self) -> None:
        """Let new answers in, then make one token of each."""
        self._drop_dead()
        self._admit()
        remaining: list[AnswerBatch] = []
        for batch in self._batches:
            remaining += self._step(batch)
        self._batches = remaining

    def fail_all(self, error: RequestError) -> None:
        """Tell all clients that nothing more comes."""
        for job in self._waiting:
            job.deliver(Failed(error))
        for batch in self._batches:
            for answer in batch.answers:
                answer.fail(error)
        self._waiting.clear()
        self._batches.clear()

    def _drop_dead(self) -> None:
        """Free the places of clients that have gone, and of requests whose time is over."""
        alive: deque[AnswerJob] = deque()
        for job in self._waiting:
            if job.is_cancelled:
                continue
            if job.is_late:
                job.deliver(Failed(timed_out()))
            else:
                alive.append(job)
        self._waiting = alive
        for batch in self._batches:
            for answer in batch.answers:
                if answer.job.is_cancelled:
                    answer.drop()
                elif answer.job.is_late:
                    answer.fail(timed_out())
        self._batches = _without_done(self._batches)

    # ------------------------------------------------------------------ new answers
    def _admit(self) -> None:
        """Read the prompts of some waiting answers, of one bridge, and let them join."""
        answers = self._next_answers(self._rows.value - self.num_running)
        if answers:
            self._start(answers)

    def _next_answers(self, places: int) -> list[RunningAnswer]:
        """The first waiting answers that can be read together."""
        answers: list[RunningAnswer] = []
        longest = 0
        while self._waiting and len(answers) < places:
            job = self._waiting[0]
            if answers and job.bridge != answers[0].job.bridge:
                break
            answer = self._prepared(job)
            if answer is None:
                self._waiting.popleft()
                continue
            longest = max(longest, answer.prompt.length)
            if answers and longest * (len(answers) + 1) > self._limits.batch_tokens:
                break
            self._waiting.popleft()
            answers.append(answer)
        for answer in answers:
            started = Started(answer.prompt.length, answer.prompt.cut_texts)
            answer.job.deliver(started)
        return answers

    def _prepared(self, job: AnswerJob) -> RunningAnswer | None:
        """A job with its prompt; None if it was refused."""
        bridge = self._bridges[job.bridge]
        try:
            prompt = bridge.prompts.build(job.messages, job.language)
            max_new_tokens = self._max_new_tokens(bridge.model, prompt, job.max_new_tokens)
        except Exception as error:
            job.deliver(Failed(failure_of(error)))
            return None
        return RunningAnswer(job, prompt, max_new_tokens, bridge.stop_ids, bridge.decode)

    def _max_new_tokens(self, model: PalamModel, prompt: Prompt, wanted: int | None) -> int:
        """How long an answer may become.

        Raises:
            RequestError: a prompt that is too long or empty, or leaves no room for the answer.
        """
        most = self._limits.max_text_tokens
        longest = max(prompt.length, prompt.longest_text)
        if longest > most:
            raise RequestError(
                f"the prompt or a text has {longest} tokens; this server reads {most} at most",
                code="context_length_exceeded",
            )
        if prompt.length == 0:
            raise RequestError("there is nothing to read: the texts are empty")
        positions = model.processor.llm_positions
        limit = self._limits.max_new_tokens
        if positions is None:
            return wanted or limit
        room = positions - prompt.length
        if room < (wanted or 1):
            raise RequestError(
                f"the LLM has {positions} positions; the prompt takes {prompt.length} and the "
                f"answer up to {wanted or 1}",
                code="context_length_exceeded",
            )
        return wanted or min(limit, room)

    def _start(self, answers: Sequence[RunningAnswer]) -> None:
        """Read prompts; if that fails, half of them at a time."""
        bridge = self._bridges[answers[0].job.bridge]
        try:
            batch = AnswerBatch.start(bridge.model, bridge.context_class, answers)
        except Exception as error:
            self._note_failure("prefill", error, len(answers))
            if len(answers) == 1:
                answers[0].fail(error)
                return
            middle = len(answers) // 2
            self._start(answers[:middle])
            self._start(answers[middle:])
            return
        self._rows.succeeded()
        self._observer.batch_read("prefill", len(answers))
        self._observer.tokens_read("prompt", sum(answer.prompt.length for answer in answers))
        self._observer.tokens_read("completion", len(answers))
        remaining = batch.without_done()
        if remaining is not None:
            self._join(remaining)

    def _join(self, new: AnswerBatch) -> None:
        """Put a batch into the first that it fits, or beside them."""
        for batch in self._batches:
            if batch.context.model.llm is not new.context.model.llm:
                continue
            rows = len(batch.answers) + len(new.answers)
            width = max(batch.context.width, new.context.width)
            if rows * width > self._limits.batch_tokens:
                continue
            try:
                batch.join(new)
                return
            except Exception as error:  # they go on side by side
                self._note_failure("join", error, rows)
        self._batches.append(new)

    # ------------------------------------------------------------------ running answers
    def _step(self, batch: AnswerBatch) -> list[AnswerBatch]:
        """One more token of each answer; if that fails, half of the batch goes on at a time.

        Returns:
            The batches of those that are not done.
        """
        rows = len(batch.answers)
        try:
            batch.step()
        except Exception as error:
            self._note_failure("decode", error, rows)
            if rows == 1:
                batch.answers[0].fail(error)
                return []
            return self._step_in_halves(batch)
        self._rows.succeeded()
        self._observer.batch_read("decode", rows)
        self._observer.tokens_read("completion", rows)
        return _without_done([batch])

    def _step_in_halves(self, batch: AnswerBatch) -> list[AnswerBatch]:
        """Split a batch that did not fit, and make the step in its halves."""
        try:
            first, second = batch.halves()
        except Exception as error:  # no memory for that either
            for answer in batch.answers:
                answer.fail(error)
            return []
        return [*self._step(first), *self._step(second)]

    def _note_failure(self, kind: str, error: Exception, rows: int) -> None:
        self._observer.batch_failed(kind, error)
        if is_out_of_memory(error):
            self._rows.failed(rows)


def _answering(model: PalamModel, context_class: ContextClass) -> _Answering:
    tokenizer = model.processor.llm_tokenizer

    def decode(ids: list[int]) -> str:
        text: str = tokenizer.decode(ids, skip_special_tokens=True)
        return text

    return _Answering(
        model=model,
        prompts=PromptBuilder(model),
        context_class=context_class,
        stop_ids=frozenset(model.stop_ids()),
        decode=decode,
    )


def _without_done(batches: Sequence[AnswerBatch]) -> list[AnswerBatch]:
    remaining = [batch.without_done() for batch in batches]
    return [batch for batch in remaining if batch is not None]
