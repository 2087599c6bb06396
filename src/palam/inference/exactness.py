"""Which ways of reading labels an LLM gets right, by comparison with plain reading."""

from collections.abc import Callable
from dataclasses import dataclass, fields

from torch import Tensor
from transformers import PreTrainedModel

from palam.models.backbones.llm import rounds_much
from palam.models.backbones.loading import LIBRARY_ERRORS
from palam.utils.memory import is_out_of_memory


@dataclass
class Exactness:
    """What is known of how an LLM may read labels; None is not known yet."""

    cache: bool | None = None
    """Whether it scores a label after its cache of a text as after the text itself. Where it does
    not, texts are read again with each label."""
    packing: bool | None = None
    """Whether it scores labels that are packed in one row as it scores each alone."""
    padding: bool | None = None
    """Whether it scores a text in a batch as it does alone. Where it does not, texts are read one
    at a time."""
    one_token_at_a_time: bool = False
    """Whether it must read a label token by token after its cache."""
    compared_length: int = 0
    """Tokens of a text up to which this holds without a further comparison; 0 where nothing was
    compared."""

    def set_to(self, other: "Exactness") -> None:
        """Take over what another one says."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))


def agrees(llm: PreTrainedModel, score: Callable[[], Tensor], expected: Tensor) -> bool:
    """Whether scores can be had, and are the expected ones; see [`scores_agree`].

    Raises:
        Exception: memory did not suffice, which tells nothing of the LLM.
    """
    try:
        scores = score()
    except LIBRARY_ERRORS as error:
        raise_if_out_of_memory(error)
        return False
    return scores_agree(llm, scores, expected)


def scores_agree(llm: PreTrainedModel, scores: Tensor, expected: Tensor) -> bool:
    """Whether an LLM's scores [batch, answers] differ by rounding alone; NaN never agrees."""
    difference = (scores - expected).abs()
    size = expected.abs()
    if not rounds_much(llm):
        agree = difference <= 1e-3 * size.clamp(min=1)
        return bool(agree.all())
    return bool(difference.mean() <= 2e-2 * size.mean().clamp(min=1))


def raise_if_out_of_memory(error: Exception) -> None:
    """Let memory that did not suffice be told: it tells nothing of how the LLM may read.

    Raises:
        Exception: the error, if it says so.
    """
    if is_out_of_memory(error):
        raise error
