"""Free answers that a [`TokenEngine`] makes: it says itself which run together."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from palam.inference.engine_generation import engine_of
from palam.models.token_engine import Decoding, NewTokens
from palam.serving.answer_queue import AnswerQueue
from palam.serving.answers import RunningAnswer
from palam.serving.bridges import ServedBridge
from palam.serving.errors import RequestError, failure_of, timed_out
from palam.serving.jobs import AnswerJob
from palam.serving.limits import ServeLimits
from palam.serving.observer import Observer
from palam.serving.vectors import prompt_vectors


class EngineAnswers:
    """The free answers of an engine; in place of [`AnswerScheduler`], in the same thread.

    Texts are encoded and mapped here. Stop strings are looked for here too, so that what is
    streamed is what it would be without the engine.

    Args:
        bridges: by name, one at least; their models have the same `token_engine`.
        limits: of the server.
        observer: is told of batches and tokens.
    """

    def __init__(
        self, bridges: Mapping[str, ServedBridge], limits: ServeLimits, observer: Observer
    ) -> None:
        self._engine = engine_of(next(iter(bridges.values())).model)
        self._bridges = bridges
        self._limits = limits
        self._observer = observer
        self._queue = AnswerQueue(bridges, limits, self._engine.max_length, can_guide=False)
        self._running: dict[str, RunningAnswer] = {}
        self._num_begun = 0

    # ------------------------------------------------------------------ what it has
    @property
    def num_waiting(self) -> int:
        """Answers that have no place yet."""
        return len(self._queue)

    @property
    def num_running(self) -> int:
        """Answers that are being made."""
        return len(self._running)

    @property
    def has_work(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._queue or self._running)

    def add(self, job: AnswerJob) -> None:
        """Take a job into the queue."""
        self._queue.add(job)

    # ------------------------------------------------------------------ what it does
    def advance(self) -> None:
        """Let new answers in, then let the engine make a step."""
        self._drop_dead()
        answers = self._queue.take(self._limits.max_batch - self.num_running)
        if answers:
            self._start(answers)
        if self._running:
            self._step()

    def fail_all(self, error: RequestError) -> None:
        """Tell all clients that nothing more comes."""
        self._queue.fail_all(error)
        self._fail_running(error)

    def _drop_dead(self) -> None:
        """Free the places of clients that have gone, and of requests whose time is over."""
        self._queue.drop_dead()
        for answer in self._running.values():
            if answer.job.is_cancelled:
                answer.drop()
            elif answer.job.is_late:
                answer.fail(timed_out())
        self._leave()

    def _leave(self) -> None:
        """Let the engine drop the answers that are done."""
        done = [name for name, answer in self._running.items() if answer.is_done]
        for name in done:
            del self._running[name]
        if done:
            self._engine.cancel(done)

    def _fail_running(self, error: BaseException) -> None:
        for answer in self._running.values():
            answer.fail(error)
        self._leave()

    # ------------------------------------------------------------------ new answers
    def _start(self, answers: Sequence[RunningAnswer]) -> None:
        """Map the texts of some prompts; if that fails, half of them at a time."""
        model = self._bridges[answers[0].job.bridge].model
        try:
            vectors = prompt_vectors(model, [answer.prompt for answer in answers])
        except Exception as error:
            self._observer.batch_failed("prefill", error)
            if len(answers) == 1:
                answers[0].fail(error)
                return
            middle = len(answers) // 2
            self._start(answers[:middle])
            self._start(answers[middle:])
            return
        self._observer.batch_read("prefill", len(answers))
        self._observer.tokens_read("prompt", sum(answer.prompt.length for answer in answers))
        for answer, prompt in zip(answers, vectors, strict=True):
            self._begin(answer, prompt)

    def _begin(self, answer: RunningAnswer, vectors: Tensor) -> None:
        """Give one prompt to the engine; one that it refuses fails alone."""
        sampling = answer.job.sampling
        decoding = Decoding(
            max_new_tokens=answer.max_new_tokens,
            stop_ids=tuple(answer.stop_ids),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
        )
        name = str(self._num_begun)
        self._num_begun += 1
        try:
            self._engine.add(name, vectors, decoding)
        except Exception as error:
            answer.fail(error)
            return
        self._running[name] = answer

    # ------------------------------------------------------------------ running answers
    def _step(self) -> None:
        rows = self.num_running
        try:
            added = self._engine.step()
        except Exception as error:
            self._observer.batch_failed("decode", error)
            self._fail_running(failure_of(error))
            return
        self._observer.batch_read("decode", rows)
        self._observer.tokens_read("completion", sum(len(tokens.ids) for tokens in added))
        for tokens in added:
            self._take(tokens)
        self._leave()

    def _take(self, tokens: NewTokens) -> None:
        """New ids of one answer."""
        answer = self._running.get(tokens.name)
        if answer is None:
            return
        try:
            for token_id in tokens.ids:
                if not answer.is_done:
                    answer.take(token_id)
            if tokens.is_finished and not answer.is_done:
                answer.end()
        except Exception as error:
            answer.fail(error)
