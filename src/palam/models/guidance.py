"""Guidance: answers that keep to the text, where the LLM would rather go on by itself."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from palam.errors import PalamError
from palam.models.guidance_scale import check_guidance_scale
from palam.models.llm_cache import cache_of
from palam.models.processing import TEXT_SLOT
from palam.models.sequence import LLMInputs, build_llm_inputs

LEAST_PLAUSIBLE = 0.1
"""A token may be said if it is at least so likely, with the text, as the likeliest one.

Without it, a token that is unlikely with the text and next to impossible without it would win.
"""


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


class Guidance(LogitsProcessor):
    """Gives transformers' `generate` the scores of [`guided_scores`].

    transformers' own processor for guidance takes ids without their positions, which rows of
    different length need, and knows no plausible tokens.

    One object guides one call of transformers' `generate`. It takes one more pass of the LLM for
    each token.

    Args:
        run_llm, embed: [`PalamModel.run_llm`] and [`PalamModel.embed`].
        without_text: see [`inputs_without_text`].
        scale: more than `NO_GUIDANCE`.
    """

    def __init__(
        self,
        run_llm: Callable[..., Any],
        embed: Callable[[Tensor], Tensor],
        without_text: LLMInputs,
        scale: float,
    ) -> None:
        self.scale = scale
        self._run_llm = run_llm
        self._embed = embed
        self._inputs = without_text
        self._cache: Any = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The guided scores.

        Args:
            input_ids: [rows, n], the answers so far.
            scores: [rows, vocabulary], logits with the text; minus infinity is never said. Of each
                text there may be several answers, side by side.
        """
        if self._cache is None:
            self._inputs = _repeated(self._inputs, len(scores))
        else:
            self._inputs = _next_inputs(self._inputs, self._embed(input_ids[:, -1:]))
        output = self._run_llm(self._inputs, 1, use_cache=True, cache=self._cache)
        self._cache = cache_of(output)
        return guided_scores(scores, output.logits[:, -1], self.scale)


def check_guidance(scale: float, options: dict[str, Any], reads_texts: bool) -> None:
    """Refuse guidance that would have no meaning.

    Args:
        scale: of the guidance.
        options: of transformers' `generate`.
        reads_texts: whether a text is read through the bridge.

    Raises:
        PalamError: it is no scale, no text is read through the bridge, or an answer is sought with
            beams.
    """
    check_guidance_scale(scale)
    if not reads_texts:
        raise PalamError("guidance needs texts that are read through the bridge")
    if (options.get("num_beams") or 1) > 1:
        raise PalamError("guidance and beams cannot be used together; leave num_beams out")


def inputs_without_text(
    embed: Callable[[Tensor], Tensor], input_ids: Tensor, attention_mask: Tensor | None
) -> LLMInputs:
    """What the LLM reads where the text is left out, and the boundary after it.

    Args:
        embed, input_ids, attention_mask: see [`build_llm_inputs`].

    Raises:
        PalamError: nothing stands around a text.
    """
    present = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    around = present.to(input_ids.device) * (input_ids != TEXT_SLOT)
    if not around.any(1).all():
        raise PalamError(
            "guidance compares with the answer to the prompt alone, and there is no prompt; "
            "give one, or leave the guidance scale out"
        )
    return build_llm_inputs(embed, input_ids, around, None)


def _repeated(inputs: LLMInputs, rows: int) -> LLMInputs:
    """Each row as often as it takes to have so many rows."""
    times = rows // len(inputs.inputs_embeds)
    return replace(
        inputs,
        inputs_embeds=inputs.inputs_embeds.repeat_interleave(times, 0),
        attention_mask=inputs.attention_mask.repeat_interleave(times, 0),
        position_ids=inputs.position_ids.repeat_interleave(times, 0),
    )


def _next_inputs(inputs: LLMInputs, vectors: Tensor) -> LLMInputs:
    """One more vector [rows, 1, d_llm] in each row, after what the cache holds of `inputs`."""
    mask = inputs.attention_mask
    return replace(
        inputs,
        inputs_embeds=vectors,
        attention_mask=torch.cat([mask, torch.ones_like(mask[:, :1])], 1),
        position_ids=inputs.position_ids[:, -1:] + 1,
    )
