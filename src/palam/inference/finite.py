"""Scores that are not finite: told with the part that they come from."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from palam.models.finite import check_finite, is_finite
from palam.models.modeling import PalamModel


def check_scores(model: PalamModel, batch: Mapping[str, Any], scores: Tensor) -> None:
    """Refuse scores of a batch that are not finite.

    Args:
        model: which read it.
        batch: as [`PalamProcessor`] prepares it.
        scores: log-probabilities or logits, of any shape.

    Raises:
        PalamError: one of them is NaN or infinite. The message names the first part whose numbers
            are not finite: the encoder's states, the bridge's output or the LLM's logits.
    """
    if is_finite(scores):
        return
    if "encoder_input_ids" in batch:
        states = model.encode(batch["encoder_input_ids"], batch["encoder_attention_mask"])
        for state in states:
            check_finite(state, "the encoder's states", state.dtype)
    inputs = model.llm_inputs(**batch)
    check_finite(inputs.inputs_embeds, "the bridge's output vectors", inputs.inputs_embeds.dtype)
    check_finite(scores, "the LLM's logits", model.llm.dtype)
