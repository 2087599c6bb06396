"""Guidance: answers that keep to the text, where the LLM would rather go on by itself."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from palam.errors import PalamError
from palam.models.guidance_scale import check_guidance_scale
from palam.models.processing import TEXT_SLOT
from palam.models.sequence import LLMInputs, build_llm_inputs

LEAST_PLAUSIBLE = 0.1
"""A token may be said if it is at least so likely, with the text, as the likeliest one.

Without it, a token that is unlikely with the text and next to impossible without it would win.
"""

PLAIN_OPTIONS = {
    "generation_config": None,
    "num_beams": 1,
    "do_sample": False,
    "return_dict_in_generate": False,
}
"""What guided answers have of transformers' options whose rows would not stay side by side."""


def guided_scores(with_text: Tensor, without_text: Tensor, scale: float) -> Tensor:
    """Scores of next tokens, moved away from what the LLM would say without the text.

    With the scale g, a token's score is

        log P(token | no text) + g · (log P(token | text) − log P(token | no text))

    among the tokens that are plausible with the text, see `LEAST_PLAUSIBLE`; the others are not
    said. Classifier-free guidance (Sanchez et al., arXiv 2306.17806), with the plausible tokens of
    contrastive decoding (Li et al., arXiv 2210.15097).

    Args:
        with_text: [..., vocabulary], logits with the text; minus infinity is never said.
        without_text: [..., vocabulary], logits without it.
        scale: 1 is no guidance but for what is not plausible.

    Returns:
        [..., vocabulary], minus infinity for what is not to be said.
    """
    with_text = with_text.float().log_softmax(-1)
    without_text = without_text.float().log_softmax(-1)
    guided = without_text + scale * (with_text - without_text)
    least = with_text.amax(-1, keepdim=True) + math.log(LEAST_PLAUSIBLE)
    return guided.masked_fill(with_text < least, -torch.inf)


class PairedGuidance(LogitsProcessor):
    """Guides answers of which each is made twice side by side, with the text and without it.

    So transformers' `generate` keeps both in the LLM's own cache, of whatever kind. Its own
    processor for guidance takes ids without their positions, which rows of different length need.

    Args:
        scale: see [`guided_scores`].
    """

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The guided scores, the same for both rows of an answer, so that they say the same.

        Args:
            input_ids: [2 · texts, n], the answers so far.
            scores: [2 · texts, vocabulary], logits of all texts, then without them.
        """
        with_text, without_text = scores.chunk(2)
        guided = guided_scores(with_text, without_text, self.scale)
        return torch.cat([guided, guided])


class FirstHalf:
    """Passes the first half of what is generated on to another streamer.

    Args:
        streamer: as transformers' `generate` takes it.
    """

    def __init__(self, streamer: Any) -> None:
        self._streamer = streamer

    def put(self, value: Tensor) -> None:
        """Take the next ids [2 · texts]."""
        self._streamer.put(value[: len(value) // 2])

    def end(self) -> None:
        """Nothing follows."""
        self._streamer.end()


def check_guidance(scale: float, options: Mapping[str, Any], reads_texts: bool) -> None:
    """Refuse guidance that would have no meaning.

    Args:
        scale: of the guidance.
        options: of transformers' `generate`.
        reads_texts: whether a text is read through the bridge.

    Raises:
        PalamError: it is no scale, no text is read through the bridge, or answers are drawn, sought
            with beams, or wanted with more than their ids.
    """
    check_guidance_scale(scale)
    if not reads_texts:
        raise PalamError("guidance needs texts that are read through the bridge")
    for name, plain in PLAIN_OPTIONS.items():
        if options.get(name) not in (None, plain):
            raise PalamError(f"guided answers are greedy ids alone; leave {name} out")


def inputs_without_text(
    embed: Callable[[Tensor], Tensor],
    device: torch.device,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
) -> LLMInputs:
    """What the LLM reads where the text is left out, and the boundary after it.

    Args:
        embed, input_ids, attention_mask: see [`build_llm_inputs`]; None is nothing but the text.
        device: of the LLM.

    Raises:
        PalamError: nothing stands around a text.
    """
    if input_ids is None:
        input_ids = torch.zeros(1, 0, dtype=torch.long)
    input_ids = input_ids.to(device)
    around = input_ids != TEXT_SLOT
    if attention_mask is not None:
        around &= attention_mask.to(device).bool()
    if not around.any(1).all():
        raise PalamError(
            "guidance compares with the answer to the prompt alone, and there is no prompt; "
            "give one, or leave the guidance scale out"
        )
    return build_llm_inputs(embed, input_ids, around.long(), None)
