"""The best of several answers to a text: the first is greedy, the others are drawn.

All answers to a text run together in the LLM's context, and each leaves as soon as it has ended.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers import BatchFeature, NoRepeatNGramLogitsProcessor

from palam.errors import PalamError
from palam.inference.batches import Features, Progress, padded_batches
from palam.inference.best_of_number import check_best_of
from palam.inference.contexts import Context, ContextClass, suitable_context
from palam.inference.coverage import best_answers, check_can_judge
from palam.inference.reading_metrics import first_line
from palam.models.finite import check_logits
from palam.models.guidance import guided_scores, inputs_without_text
from palam.models.guidance_scale import NO_GUIDANCE, check_guidance_scale
from palam.models.modeling import PalamModel
from palam.models.sequence import LLMInputs

TEMPERATURE = 0.7
"""With which the answers after the first are drawn; English texts chose it."""
UNDERSTOOD = ("max_new_tokens", "guidance_scale", "no_repeat_ngram_size", "first_line_only")
"""Arguments of [`palam.generate`] that have a meaning beside `best_of`."""


@dataclass(frozen=True, kw_only=True)
class SeveralAnswers:
    """How several answers to a text are made.

    Raises:
        PalamError: a number or a scale that cannot be.
    """

    number: int
    """Of answers to each text."""
    max_new_tokens: int = 64
    """Most tokens of an answer."""
    guidance_scale: float = NO_GUIDANCE
    """See [`guided_scores`]."""
    no_repeat_ngram_size: int = 0
    """No so many tokens in a row are said twice in an answer; 0 is no limit."""
    first_line_only: bool = False
    """Whether the encoder judges an answer by its first line."""

    def __post_init__(self) -> None:
        check_best_of(self.number)
        check_guidance_scale(self.guidance_scale)
        for name, least in (("max_new_tokens", 1), ("no_repeat_ngram_size", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise PalamError(f"{name} is {value!r}; it must be a whole number from {least} on")

    @classmethod
    def of(cls, number: int, generate_kwargs: Mapping[str, Any]) -> Self:
        """From the arguments of [`palam.generate`] besides `best_of`.

        Raises:
            PalamError: one that has no meaning here; and see above.
        """
        options = {name: value for name, value in generate_kwargs.items() if value is not None}
        if not options.get("do_sample"):
            options.pop("do_sample", None)
        others = [name for name in options if name not in UNDERSTOOD]
        if others:
            raise PalamError(
                f"with best_of there are {', '.join(UNDERSTOOD)}; leave {', '.join(others)} out"
            )
        return cls(number=number, **options)

    @property
    def is_guided(self) -> bool:
        """Whether the LLM reads each answer without the text, too."""
        return self.guidance_scale != NO_GUIDANCE


def best_of_answers(
    model: PalamModel,
    features: Sequence[Features],
    wanted: SeveralAnswers,
    batch_size: int,
    progress: Progress | None,
) -> Iterator[tuple[int, list[int]]]:
    """Each text's place and its best answer, as ids without the end; see [`coverage`].

    Args:
        model: its LLM answers, and its encoder judges.
        features: of each text.
        wanted: how answers are made.
        batch_size: answers at a time, but all of those to a text.
        progress: called with the number of texts just read.

    Raises:
        PalamError: no text for the encoder, an encoder that does not know English, an engine or
            several processes that would have to answer, or numbers that are not finite.
    """
    if model.token_engine is not None:
        raise PalamError("this engine gives one answer to a text; leave best_of out")
    if model.shards_llm:
        raise PalamError(
            "an LLM in several processes gives one answer to a text; leave best_of out"
        )
    if any("encoder_input_ids" not in row for row in features):
        raise PalamError("the best of several answers needs texts that the encoder reads")
    check_can_judge(model)
    with model.evaluating():
        context_class = suitable_context(model)
    texts_at_a_time = max(1, batch_size // wanted.number)
    for batch in padded_batches(model, features, texts_at_a_time, progress):
        answers = answers_to_each(model, batch.inputs, wanted, context_class)
        words = [[_words(model, ids, wanted) for ids in of_text] for of_text in answers]
        read = [features[row] for row in batch.rows]
        chosen = best_answers(model, read, words, batch_size=batch_size)
        for row, of_text, place in zip(batch.rows, answers, chosen, strict=True):
            yield row, of_text[place]


def _words(model: PalamModel, ids: list[int], wanted: SeveralAnswers) -> str:
    """What of an answer is judged."""
    [answer] = model.processor.decode([ids])
    return first_line(answer) if wanted.first_line_only else str(answer)


@torch.no_grad()
def answers_to_each(
    model: PalamModel,
    batch: BatchFeature,
    wanted: SeveralAnswers,
    context_class: ContextClass,
) -> list[list[list[int]]]:
    """Several answers to each text, as ids without the end.

    The first answer is the greedy one. For each of the others, noise of the Gumbel distribution
    times `TEMPERATURE` is added to the scores of the next token: the token with the highest sum is
    then drawn from the scores' distribution at that temperature. The noise is that of a token's
    place in the answer and of the answer's number alone, so an answer depends on nothing that
    stands beside it, and a text always has the same answers. Those of a smaller number are the
    first of a larger one's.

    Args:
        model: whose LLM answers.
        batch: texts, padded, as [`PalamModel`] takes them.
        wanted: how answers are made.
        context_class: how this LLM is read.

    Returns:
        For each text its answers.

    Raises:
        PalamError: more tokens than the LLM has positions, no prompt to guide by, or logits that
            are not finite.
    """
    with model.evaluating():
        inputs = model.llm_inputs(**batch)
        num_texts, length = inputs.attention_mask.shape
        model.check_length(length - 1 + wanted.max_new_tokens)
        if wanted.is_guided:
            ids, mask = batch.get("input_ids"), batch.get("attention_mask")
            without_text = inputs_without_text(model.embed, model.device, ids, mask)
            inputs = LLMInputs.stacked([inputs, without_text.widened(length)])
        context = context_class(model)
        logits = context.start(inputs)
        running = _RunningAnswers(context, num_texts, wanted)
        answers = running.to_the_end(logits.repeat_interleave(wanted.number, 0))
    return [
        answers[first : first + wanted.number] for first in range(0, len(answers), wanted.number)
    ]


def answer_noise(place: int, number: int, vocabulary: int) -> Tensor:
    """What is added to the scores of the next token of each answer to a text.

    Args:
        place: of the token in its answer, from 0.
        number: of answers.
        vocabulary: how many tokens there are.

    Returns:
        [number, vocabulary] in fp32 on the CPU, 0 for the first answer.
    """
    generator = torch.Generator().manual_seed(place)
    shape = (number - 1, vocabulary)
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    gumbel = -(-uniform.clamp_min(torch.finfo(torch.float64).tiny).log()).log()
    return torch.cat([torch.zeros(1, vocabulary), (TEMPERATURE * gumbel).float()])


class _RunningAnswers:
    """Answers that have not ended, side by side.

    Args:
        context: what the LLM has read of each text; where answers are guided, then of each without
            the text.
        num_texts: how many texts there are.
        wanted: how answers are made.
    """

    def __init__(self, context: Context, num_texts: int, wanted: SeveralAnswers) -> None:
        self.wanted = wanted
        self._model = context.model
        rows = torch.arange(context.rows).repeat_interleave(wanted.number)
        self._context: Context = context.select(rows.tolist())
        self._device = context.model.device
        self._numbers = torch.arange(num_texts * wanted.number)
        self._said = torch.zeros(len(self._numbers), 0, dtype=torch.long, device=self._device)

    def to_the_end(self, logits: Tensor) -> list[list[int]]:
        """All answers, as ids without the end.

        Args:
            logits: [rows, vocabulary] of what follows in the context.
        """
        answers: list[list[int]] = [[] for _ in self._numbers]
        stops = torch.tensor(self._model.stop_ids(), device=self._device)
        for place in range(self.wanted.max_new_tokens):
            tokens = self._next_tokens(logits, place)
            self._said = torch.cat([self._said, tokens[:, None]], 1)
            going_on = (~torch.isin(tokens, stops)).nonzero()[:, 0]
            for row in going_on.tolist():
                answers[self._numbers[row]].append(int(tokens[row]))
            if place + 1 == self.wanted.max_new_tokens or not len(going_on):
                break
            self._keep(going_on)
            next_ids = self._said[:, -1].tolist()
            logits = self._context.extend(next_ids * (2 if self.wanted.is_guided else 1))
        return answers

    def _next_tokens(self, logits: Tensor, place: int) -> Tensor:
        """The next token [answers] of each."""
        check_logits(logits, self._model.llm.dtype)
        num_answers = len(self._said)
        size = self.wanted.no_repeat_ngram_size
        scores = logits[:num_answers]
        if size:
            scores = NoRepeatNGramLogitsProcessor(size)(self._said, scores)
        if self.wanted.is_guided:
            scores = guided_scores(scores, logits[num_answers:], self.wanted.guidance_scale)
        noise = answer_noise(place, self.wanted.number, scores.shape[-1])
        of_each = noise[self._numbers % self.wanted.number].to(scores.device)
        return (scores.float() + of_each).argmax(-1)

    def _keep(self, rows: Tensor) -> None:
        """Let the other answers leave."""
        num_answers = len(self._said)
        if len(rows) == num_answers:
            return
        self._said = self._said[rows]
        rows = rows.cpu()
        self._numbers = self._numbers[rows]
        of_context = torch.cat([rows, rows + num_answers]) if self.wanted.is_guided else rows
        self._context = self._context.select(of_context.tolist())
