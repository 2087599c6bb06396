"""Make a solved bridge suit a task without training it: two things that English text can tell.

The first is the size of its output. The LLM normalises what its layers read, so larger vectors keep more of themselves
from layer to layer. The second is how much the LLM likes each label whatever it reads.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from palam.model import PalamModel
from palam.reading import label_scores, measure_priors
from palam.tasks import Example, Task, sample

FACTORS = (1.0, 1.5, 2.0, 3.0)
TEXTS = 128  # to measure priors on, and at most twice as many to choose by


def suit(
    model: PalamModel, task: Task, train: Sequence[Example], dev: Sequence[Example], language: str, *,
    factors: Sequence[float] = FACTORS, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Choose the factor of the mapper's output, and measure the labels' priors, in place.

    Args:
        model: with a solved bridge; `task` gives the texts' form in its mode.
        train: English examples; the priors are the mean scores over some of them, whose labels are not looked at.
        dev: English validation examples: the factor with the lowest cross-entropy of their labels, priors subtracted,
            is taken.
        language: of both.
        factors: to try, relative to the size that the bridge has.
        seed: of the samples.

    Returns:
        `factor`, and `losses`, the cross-entropy in nats for each factor.
    """
    held = sample(dev, 2 * TEXTS, seed)
    (texts, codes), (own, own_codes) = (
        ([task.render(one, model.processor.template.mode) for one in rows], [language] * len(rows))
        for rows in (sample(train, TEXTS, seed), held)
    )
    words = list(task.labels.values())
    wanted = torch.tensor([list(task.labels).index(one.label) for one in held])
    found: dict[float, tuple[float, dict[str, float]]] = {}
    now = 1.0
    for factor in factors:
        model.bridge.mapper.rescale(factor / now)
        now = factor
        measure_priors(model, texts, words, codes)
        loss = F.cross_entropy(label_scores(model, own, words, own_codes), wanted).item()
        found[factor] = loss, model.config.label_priors
    best = min(found, key=lambda factor: found[factor][0])
    model.bridge.mapper.rescale(best / now)
    model.config.label_priors = found[best][1]
    return {"factor": best, "losses": {str(factor): loss for factor, (loss, _) in found.items()}}
