"""Free answers."""

from collections.abc import Sequence
from typing import Any

from palam.inference.batches import Progress, padded_batches
from palam.models.modeling import PalamModel


def generate(
    model: PalamModel,
    texts: Sequence[str],
    languages: Sequence[str | None] | None = None,
    *,
    llm_only: bool = False,
    batch_size: int = 32,
    progress: Progress | None = None,
    **generate_kwargs: Any,
) -> list[str]:
    """What the LLM answers to each text, greedily unless `generate_kwargs` say otherwise.

    Args:
        model, llm_only: see [`LabelScorer`].
        texts, languages, batch_size, progress: see [`LabelScorer.score`].
        **generate_kwargs: those of transformers' `generate`; `max_new_tokens` is 64 by default.

    Returns:
        An answer for each text, without white space at its ends.
    """
    settings = {"max_new_tokens": 64, "do_sample": False, **generate_kwargs}
    answers = [""] * len(texts)
    llm_only = llm_only or model.config.llm_only
    features = model.processor.features(texts, languages=languages, llm_only=llm_only)
    for batch in padded_batches(model, features, batch_size, progress):
        ids = model.generate(**batch.inputs, **settings)
        for row, answer in zip(batch.rows, model.processor.decode(ids), strict=True):
            answers[row] = answer
    return answers
