"""Making up for what the LLM prefers whatever it reads: label priors, and the size of a solved map."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from palam.inference.scoring import score_labels
from palam.models.modeling import PalamModel
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task


def measure_priors(
    model: PalamModel, texts: Sequence[str], labels: Sequence[str], languages: Sequence[str | None] | None = None,
    **options: Any,
) -> None:  # fmt: skip
    """Learn how much the LLM is inclined to each label whatever it reads, and let [`label_scores`] make up for it.

    A bridge that was solved and not trained leaves the LLM with its own liking for some words. The mean score over
    unlabelled English texts measures it (batch calibration, arXiv 2309.17249, on texts that are not those to classify).

    Args:
        model: its configuration takes the priors up, and they are saved with the bridge.
        texts, labels, languages, **options: see [`label_scores`]. The texts should be about all labels alike.
    """
    scores = score_labels(model, texts, labels, languages, calibrated=False, **options)
    model.config.label_priors = dict(zip(labels, scores.mean(0).tolist(), strict=True))


FACTORS = (1.0, 1.5, 2.0, 3.0)
TEXTS = 128  # to measure priors on, and at most twice as many to choose by


def calibrate_to_task(
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
        loss = F.cross_entropy(score_labels(model, own, words, own_codes), wanted).item()
        found[factor] = loss, model.config.label_priors
    best = min(found, key=lambda factor: found[factor][0])
    model.bridge.mapper.rescale(best / now)
    model.config.label_priors = found[best][1]
    return {"factor": best, "losses": {str(factor): loss for factor, (loss, _) in found.items()}}
