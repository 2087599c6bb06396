"""Free answers."""

from collections.abc import Sequence
from typing import Any

from palam.inference.scoring import Progress, padded_batches
from palam.models.modeling import PalamModel


def generate(
    model: PalamModel, texts: Sequence[str], languages: Sequence[str | None] | None = None, *,
    llm_only: bool = False, batch_size: int = 32, progress: Progress | None = None, **generate_kwargs: Any,
) -> list[str]:  # fmt: skip
    """What the LLM says to each text, greedily unless `generate_kwargs` say otherwise.

    Args:
        model, texts, languages, direct, batch_size, progress: see [`label_scores`].
        **generate_kwargs: those of transformers' `generate`; `max_new_tokens` is 64 by default.
    """
    settings = {"max_new_tokens": 64, "do_sample": False, **generate_kwargs}
    answers = [""] * len(texts)
    rows = model.processor.features(
        texts, languages=languages, llm_only=llm_only or model.config.llm_only
    )
    for chosen, batch in padded_batches(model, rows, batch_size, progress):
        ids = model.generate(**batch, **settings)
        for i, answer in zip(chosen, model.processor.decode(ids), strict=True):
            answers[i] = answer
    return answers
