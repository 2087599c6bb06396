"""Which answers run together: a new one joins between two steps, a finished one leaves at once."""

from collections.abc import Mapping, Sequence

from palam.inference.contexts import ContextClass, suitable_context
from palam.serving.answer_queue import AnswerQueue
from palam.serving.answers import AnswerBatch, RunningAnswer
from palam.serving.bridges import ServedBridge
from palam.serving.errors import RequestError, is_out_of_memory, timed_out
from palam.serving.jobs import AnswerJob
from palam.serving.limits import AdaptiveLimit, ServeLimits
from palam.serving.observer import Observer


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
        self._queue = AnswerQueue(bridges, limits)
        self._batches: list[AnswerBatch] = []
        self._bridges = bridges
        self._context_classes: dict[int, ContextClass] = {}  # by the LLM's id
        for bridge in bridges.values():
            llm_key = id(bridge.model.llm)
            if llm_key not in self._context_classes:
                self._context_classes[llm_key] = suitable_context(bridge.model)

    # ------------------------------------------------------------------ what it has
    @property
    def num_waiting(self) -> int:
        """Answers that have no place yet."""
        return len(self._queue)

    @property
    def num_running(self) -> int:
        """Answers that are being made."""
        return sum(len(batch.answers) for batch in self._batches)

    @property
    def has_work(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._queue or self._batches)

    def add(self, job: AnswerJob) -> None:
        """Take a job into the queue."""
        self._queue.add(job)

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
        self._queue.fail_all(error)
        for batch in self._batches:
            for answer in batch.answers:
                answer.fail(error)
        self._batches.clear()

    def _drop_dead(self) -> None:
        """Free the places of clients that have gone, and of requests whose time is over."""
        self._queue.drop_dead()
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
        answers = self._queue.take(self._rows.value - self.num_running)
        if answers:
            self._start(answers)

    def _start(self, answers: Sequence[RunningAnswer]) -> None:
        """Read prompts; if that fails, half of them at a time."""
        model = self._bridges[answers[0].job.bridge].model
        context_class = self._context_classes[id(model.llm)]
        try:
            batch = AnswerBatch.start(model, context_class, answers)
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
        lengths = {id(answer.prompt): answer.prompt.length for answer in answers}
        self._observer.tokens_read("prompt", sum(lengths.values()))  # each is read once
        self._observer.tokens_read("completion", len(answers))
        remaining = batch.without_done()
        if remaining is not None:
            self._join(remaining)

    def _join(self, new: AnswerBatch) -> None:
        """Put a batch into the first that it fits, or beside them."""
        for batch in self._batches:
            if batch.context.model.llm is not new.context.model.llm:
                continue
            rows = batch.context.rows + new.context.rows
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


def _without_done(batches: Sequence[AnswerBatch]) -> list[AnswerBatch]:
    remaining = [batch.without_done() for batch in batches]
    return [batch for batch in remaining if batch is not None]
