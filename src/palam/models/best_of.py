"""Several answers to each text, of which the best can be taken: drawn, the first of them greedy."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from palam.errors import PalamError
from palam.models.best_of_number import check_best_of
from palam.models.guidance import PLAIN_OPTIONS
from palam.models.llm_cache import cache_of, repeated_cache
from palam.models.sequence import LLMInputs

ANSWER_TEMPERATURE = 0.7
"""With which the answers after the first are drawn; English texts chose it."""


def check_several_answers(number: int, options: Mapping[str, Any]) -> None:
    """Refuse options with which several answers to a text cannot be made.

    Args:
        number: of answers to each text.
        options: of transformers' `generate`.

    Raises:
        PalamError: it is no number of answers, or they are to be drawn otherwise, sought with
            beams, streamed, or wanted with more than their ids.
    """
    check_best_of(number)
    for name, plain in {**PLAIN_OPTIONS, "streamer": None}.items():
        if options.get(name) not in (None, plain):
            raise PalamError(f"several answers to a text are ids alone; leave {name} out")


class VariedAnswers(LogitsProcessor):
    """Lets transformers' greedy `generate` draw the answers to a text, all but its first.

    To the scores is added noise of the Gumbel distribution, times the temperature: the highest sum
    is then a draw from the scores' distribution at that temperature. The noise is that of a token's
    place in the answer and of the answer's number alone. So an answer depends on nothing that
    stands beside it, a text always has the same ones, and the two rows of a guided answer agree.

    Args:
        number: of answers to each text, which stand side by side; the first is the greedy one.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores with noise.

        Args:
            input_ids: [texts · number, n], the answers so far.
            scores: [texts · number, vocabulary], minus infinity for what is not to be said.
        """
        generator = torch.Generator().manual_seed(input_ids.shape[1])
        vocabulary = scores.shape[-1]
        uniform = torch.rand(self.number - 1, vocabulary, generator=generator, dtype=torch.float64)
        gumbel = -(-uniform.clamp_min(torch.finfo(torch.float64).tiny).log()).log()
        noise = torch.cat([gumbel.new_zeros(1, vocabulary), ANSWER_TEMPERATURE * gumbel])
        of_texts = scores.float().view(-1, self.number, vocabulary)
        return (of_texts + noise.to(scores.device, torch.float32)).flatten(0, 1)


def read_once(run_llm: Callable[..., Any], inputs: LLMInputs, number: int) -> tuple[LLMInputs, Any]:
    """Each row several times, and what the LLM's cache holds of them, which it reads once.

    Args:
        run_llm: [`PalamModel.run_llm`].
        inputs: each row once.
        number: how often each is wanted.

    Returns:
        The rows, each so often side by side, and the cache of all of their columns but the last;
        None where the LLM's cache is of a kind that must be filled row by row.
    """
    repeated = inputs.repeated(number)
    if inputs.attention_mask.shape[1] < 2:
        return repeated, None
    output = run_llm(inputs.before_last().copied(), 1, use_cache=True)
    return repeated, repeated_cache(cache_of(output), len(inputs.attention_mask), number)
