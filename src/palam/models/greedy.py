"""Greedy generation for LLMs whose class generates from ids alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from palam.errors import PalamError
from palam.models.finite import check_logits
from palam.models.sequence import LLMInputs

DEFAULT_MAX_NEW_TOKENS = 20
"""That of transformers."""
UNDERSTOOD = {
    "do_sample",
    "eos_token_id",
    "logits_to_keep",
    "max_new_tokens",
    "pad_token_id",
    "streamer",
}
"""Arguments of transformers' `generate` that have a meaning here."""
SWITCHED_OFF = (None, 0, 1, False)
"""Values of the others that change nothing."""


def generate_greedily(
    run_llm: Callable[[LLMInputs, int], Any],
    embed: Callable[[Tensor], Tensor],
    inputs: LLMInputs,
    options: dict[str, Any],
) -> Tensor:
    """The likeliest token each time, from whole passes over the sequence.

    A cache is not used: how such a class fills one is its own affair.

    Args:
        run_llm, embed: [`PalamModel.run_llm`] and [`PalamModel.embed`].
        inputs: what the LLM reads.
        options: of transformers' `generate`.

    Returns:
        The new ids [batch, n]; a row that has ended is padded.

    Raises:
        PalamError: sampling or beams are wanted, or the logits are not finite.
    """
    others = {
        name
        for name, value in options.items()
        if name not in UNDERSTOOD and value not in SWITCHED_OFF
    }
    if options.get("do_sample") or others:
        listed = ", ".join(sorted(others or {"do_sample"}))
        raise PalamError(f"this LLM's class generates greedily alone; {listed} cannot be used")
    stops = torch.tensor(options.get("eos_token_id") or [], device=inputs.inputs_embeds.device)
    streamer = options.get("streamer")
    batch = len(inputs.inputs_embeds)
    generated: list[Tensor] = []
    ended = torch.zeros(batch, dtype=torch.bool, device=inputs.inputs_embeds.device)
    for _ in range(options.get("max_new_tokens") or DEFAULT_MAX_NEW_TOKENS):
        logits = run_llm(inputs, 1).logits[:, -1]
        check_logits(logits, inputs.inputs_embeds.dtype)
        ids = logits.argmax(-1)
        ids = ids.masked_fill(ended, options.get("pad_token_id") or 0)
        generated.append(ids)
        if streamer is not None:
            streamer.put(ids.cpu())
        ended = ended | torch.isin(ids, stops)
        if ended.all():
            break
        inputs = inputs.extended(embed(ids[:, None]))
    if streamer is not None:
        streamer.end()
    return torch.stack(generated, 1)
