"""Answers that are made together, token by token."""

from collections.abc import Callable, Collection, Sequence
from typing import Self

import torch
from torch import Tensor

from palam.inference.contexts import Context, ContextClass, left_padded
from palam.models.finite import check_logits
from palam.models.guidance import guided_scores
from palam.models.guidance_scale import NO_GUIDANCE
from palam.models.modeling import PalamModel
from palam.serving.errors import failure_of
from palam.serving.jobs import AnswerJob, Failed, Finished, TextDelta
from palam.serving.prompts import Prompt
from palam.serving.sampling import TokenChooser
from palam.serving.text_stream import TextStream
from palam.serving.vectors import prompt_vectors


class RunningAnswer:
    """One answer on its way.

    Args:
        job: who wants it.
        prompt: what is answered.
        max_new_tokens: most tokens of it.
        stop_ids: the ids at which it ends.
        decode: ids as text.
        guidance_scale: see [`guided_scores`].
        sampler: chooses its tokens.

    Attributes:
        max_new_tokens, stop_ids, guidance_scale: see above.
        next_id: the last token, which the LLM has not read yet.
        num_tokens: how many were made, the end included.
        is_done: nothing more is to be made.
    """

    def __init__(
        self,
        job: AnswerJob,
        prompt: Prompt,
        max_new_tokens: int,
        stop_ids: Collection[int],
        decode: Callable[[list[int]], str],
        guidance_scale: float,
        sampler: TokenChooser,
    ) -> None:
        self.job = job
        self.prompt = prompt
        self.sampler = sampler
        self.next_id = 0
        self.num_tokens = 0
        self.is_done = False
        self.max_new_tokens = max_new_tokens
        self.stop_ids = stop_ids
        self.guidance_scale = guidance_scale
        self._stream = TextStream(decode, job.stops)

    @property
    def num_rows(self) -> int:
        """How many rows the LLM reads for it: with the text, and if it is guided without it too."""
        return 1 if self.guidance_scale == NO_GUIDANCE else 2

    @property
    def prompts(self) -> list[Prompt]:
        """What these rows begin with."""
        return [self.prompt, self.prompt.without_texts()][: self.num_rows]

    def choose(self, logits: Tensor) -> int:
        """The next token's id, by finite logits [rows, vocabulary] of its rows."""
        scores = logits[0]
        if self.num_rows > 1:
            scores = guided_scores(scores, logits[1], self.guidance_scale)
        return self.sampler.choose(scores)

    def take(self, token_id: int) -> None:
        """The next token; what becomes certain of the text is delivered."""
        self.next_id = token_id
        self.num_tokens += 1
        if token_id in self.stop_ids:
            self._finish("stop")
            return
        self._deliver(self._stream.push(token_id))
        if self._stream.stopped:
            self._finish("stop")
        elif self.num_tokens >= self.max_new_tokens:
            self._finish("length")

    def fail(self, error: BaseException) -> None:
        """Tell the client that nothing more comes."""
        if not self.is_done:
            self.is_done = True
            self.job.deliver(Failed(failure_of(error)))

    def end(self) -> None:
        """Nothing follows, though neither an end nor a limit was seen."""
        self._finish("stop")

    def drop(self) -> None:
        """Leave; nobody waits for it."""
        self.is_done = True

    def _finish(self, reason: str) -> None:
        self._deliver(self._stream.finish())
        if self._stream.stopped:  # a stop string in the last characters
            reason = "stop"
        self.is_done = True
        self.job.deliver(Finished(reason, self.num_tokens))

    def _deliver(self, text: str) -> None:
        if text:
            self.job.deliver(TextDelta(text))


class AnswerBatch:
    """Answers in one context of the LLM.

    Args:
        context: what the LLM has read of them.
        answers: whose rows are those of the context, one after the other.
    """

    def __init__(self, context: Context, answers: list[RunningAnswer]) -> None:
        self.context = context
        self.answers = answers

    @classmethod
    @torch.no_grad()
    def start(
        cls, model: PalamModel, context_class: ContextClass, answers: Sequence[RunningAnswer]
    ) -> Self:
        """Read the prompts, each once, and make the first token of each answer."""
        prompts: list[Prompt] = []
        rows_of: dict[tuple[int, int], range] = {}
        rows: list[int] = []
        for answer in answers:
            key = (id(answer.prompt), answer.num_rows)
            if key not in rows_of:
                rows_of[key] = range(len(prompts), len(prompts) + answer.num_rows)
                prompts += answer.prompts
            rows += rows_of[key]
        context: Context = context_class(model)
        logits = context.start(left_padded(prompt_vectors(model, prompts)))
        if len(rows) > len(prompts):
            context = context.select(rows)
            logits = logits[rows]
        batch = cls(context, list(answers))
        batch._take(logits)
        return batch

    @torch.no_grad()
    def step(self) -> None:
        """Make one more token of each answer; if it fails, all is as it was before."""
        ids: list[int] = []
        for answer in self.answers:
            ids += [answer.next_id] * answer.num_rows
        self._take(self.context.extend(ids))

    def join(self, other: Self) -> None:
        """Take another batch's answers in."""
        self.context.join(other.context)
        self.answers += other.answers

    def without_done(self) -> Self | None:
        """The batch of the answers that are not done; None if all are."""
        places = [place for place, answer in enumerate(self.answers) if not answer.is_done]
        if not places:
            return None
        return self if len(places) == len(self.answers) else self._select(places)

    def halves(self) -> tuple[Self, Self]:
        """Two batches of half the answers each."""
        middle = len(self.answers) // 2
        first = range(middle)
        second = range(middle, len(self.answers))
        return self._select(first), self._select(second)

    def _select(self, places: Sequence[int]) -> Self:
        rows = self._rows()
        context = self.context.select([row for place in places for row in rows[place]])
        return type(self)(context, [self.answers[place] for place in places])

    def _rows(self) -> list[range]:
        """The rows of each answer in the context."""
        rows = []
        first = 0
        for answer in self.answers:
            rows.append(range(first, first + answer.num_rows))
            first += answer.num_rows
        return rows

    def _take(self, logits: Tensor) -> None:
        """Choose each answer's next token by logits [rows, vocabulary].

        An answer whose logits are not finite fails alone.
        """
        finite = logits.logsumexp(-1).isfinite().tolist()
        likeliest = logits.argmax(-1).tolist()
        for answer, rows in zip(self.answers, self._rows(), strict=True):
            if answer.is_done:
                continue
            try:
                own = logits[rows.start : rows.stop]
                if not all(finite[row] for row in rows):
                    check_logits(own, self.context.model.llm.dtype)
                plain = answer.sampler.is_greedy and len(rows) == 1
                answer.take(likeliest[rows.start] if plain else answer.choose(own))
            except Exception as error:
                answer.fail(error)
