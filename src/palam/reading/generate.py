"""Free generation, and classification by generating an answer and matching it exactly, as in the paper."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from palam.model import PalamModel


@torch.no_grad()
def generate(
    model: PalamModel,
    texts: Sequence[str],
    languages: Sequence[str | None] | None = None,
    *,
    direct: bool = False,
    batch_size: int = 32,
    progress: Callable[[int], Any] | None = None,
    **generate_kwargs: Any,
) -> list[str]:
    """What the LLM says to each text, greedily unless `generate_kwargs` say otherwise.

    Args:
        model, texts, languages, direct, batch_size, progress: see [`label_scores`].
        **generate_kwargs: those of transformers' `generate`; `max_new_tokens` is 64 by default.
    """
    was_training = model.training
    model.eval()
    ends = getattr(model.llm.generation_config, "eos_token_id", None)  # an id, several, or None
    ends = {*(ends if isinstance(ends, list) else [ends]), model.processor.llm_tokenizer.eos_token_id} - {None}
    settings = {"max_new_tokens": 64, "do_sample": False, "eos_token_id": sorted(ends) or None, **generate_kwargs}
    rows = model.processor.features(texts, languages=languages, direct=direct)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].get("encoder_input_ids", rows[i]["input_ids"])))
    answers = [""] * len(rows)
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        ids = model.generate(**model.processor.pad([rows[i] for i in chosen]), **settings)
        for i, answer in zip(chosen, model.processor.decode(ids), strict=True):
            answers[i] = answer
        if progress:
            progress(len(chosen))
    model.train(was_training)
    return answers
