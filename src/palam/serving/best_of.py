"""The best of several answers to one request: they run as answers do, and the encoder judges."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial

from torch import Tensor

from palam.errors import PalamError
from palam.inference.best_of import answer_noise
from palam.inference.coverage import best_answers, check_can_judge
from palam.inference.temperature import is_greedy
from palam.models.modeling import PalamModel
from palam.serving.errors import RequestError, failure_of
from palam.serving.jobs import AnswerJob, Event, Failed, Finished, Started, TextDelta
from palam.serving.prompts import Prompt

# The answers of one request ask for the same noise, one after the other.
_noise = lru_cache(maxsize=2)(answer_noise)


class NumberedSampler:
    """Chooses the tokens of one of several answers, as `palam generate --best-of` does.

    Args:
        number: of the answer, from 0, which is the greedy one.
        count: of answers.
    """

    def __init__(self, number: int, count: int) -> None:
        self._number = number
        self._count = count
        self._place = 0

    @property
    def is_greedy(self) -> bool:
        """Whether it takes the likeliest token each time."""
        return self._number == 0

    def choose(self, scores: Tensor) -> int:
        """The next token's id, by finite scores [vocabulary]."""
        noise = _noise(self._place, self._count, len(scores))[self._number]
        self._place += 1
        return int((scores.float() + noise.to(scores.device)).argmax())


class BestOfJob:
    """A request for the best of several answers, which are jobs of their own.

    Args:
        model: whose encoder judges.
        job: the request; it is told of one answer.
        prompt: of all of them, with one text.

    Attributes:
        parts: a job for each answer. They are cancelled, and late, with the request.

    Raises:
        RequestError: another text than one that the encoder reads, an encoder that does not know
            English, or a temperature.
    """

    def __init__(self, model: PalamModel, job: AnswerJob, prompt: Prompt) -> None:
        _check_request(model, job, prompt)
        self._model = model
        self._job = job
        self._prompt = prompt
        count = job.sampling.best_of
        self._texts = [""] * count
        self._finished: list[Finished | None] = [None] * count
        self._has_started = False
        self._is_over = False
        self.parts: Sequence[AnswerJob] = [
            replace(job, deliver=partial(self._take, number)) for number in range(count)
        ]

    def _take(self, number: int, event: Event) -> None:
        """What one of the answers tells."""
        if self._is_over:
            return
        if isinstance(event, Started):
            if not self._has_started:
                self._has_started = True
                self._job.deliver(event)
        elif isinstance(event, TextDelta):
            self._texts[number] += event.text
        elif isinstance(event, Finished):
            self._finished[number] = event
            self._judge_finished()
        elif isinstance(event, Failed):
            self._is_over = True
            self._job.cancel()  # the other answers leave
            self._job.deliver(event)

    def _judge_finished(self) -> None:
        """Tell the best answer, when all are there."""
        finished = [each for each in self._finished if each is not None]
        if len(finished) < len(self._finished):
            return
        self._is_over = True
        [text] = self._prompt.texts
        try:
            [best] = best_answers(self._model, [{"encoder_input_ids": text}], [self._texts])
        except Exception as error:  # the last answer is done, and cannot tell it
            self._job.deliver(Failed(failure_of(error)))
            return
        if self._texts[best]:
            self._job.deliver(TextDelta(self._texts[best]))
        num_tokens = sum(each.completion_tokens for each in finished)
        self._job.deliver(Finished(finished[best].reason, num_tokens))


def _check_request(model: PalamModel, job: AnswerJob, prompt: Prompt) -> None:
    if not is_greedy(job.sampling.temperature):
        raise RequestError("best_of draws by itself; leave temperature out", param="temperature")
    if len(prompt.texts) != 1:
        raise RequestError(
            "best_of needs one text that is read through the bridge", param="best_of"
        )
    try:
        check_can_judge(model)
    except PalamError as error:
        raise RequestError(str(error), param="best_of") from None
