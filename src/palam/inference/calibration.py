"""Calibrating a bridge that was solved and not trained: two things that English text can tell.

The first is the size of its output. The LLM normalises what its layers read, so larger vectors keep
more of themselves from layer to layer. The second is how much the LLM prefers each label whatever
it reads.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from palam.errors import PalamError
from palam.inference.batches import Progress
from palam.inference.scoring import LabelScorer, score_labels
from palam.models.finite import check_finite
from palam.models.modeling import PalamModel
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task

FACTORS = (1.0, 1.5, 2.0, 3.0)
PRIOR_TEXTS = 128
"""How many texts the priors are measured on."""
VALIDATION_TEXTS = 256
"""How many texts the factor is chosen by, at most."""


def measure_priors(
    model: PalamModel,
    texts: Sequence[str],
    labels: Sequence[str],
    languages: Sequence[str | None] | None = None,
    *,
    llm_only: bool = False,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> None:
    """Measure how much the LLM prefers each label whatever it reads, for scores to be less by it.

    A bridge that was solved and not trained leaves the LLM with its own preference for some words.
    The mean score over unlabelled English texts measures it (batch calibration, arXiv 2309.17249,
    on texts that are not those to classify).

    Args:
        model: its configuration takes the priors up, and they are saved with the bridge.
        texts: they should be about all labels alike.
        labels, languages, llm_only, batch_size, progress: see [`score_labels`].

    Raises:
        PalamError: no texts, or what [`score_labels`] refuses; the priors are then as they were.
    """
    scores = score_labels(
        model,
        texts,
        labels,
        languages,
        llm_only=llm_only,
        calibrated=False,
        batch_size=batch_size,
        progress=progress,
    )
    model.config.label_priors = _mean_scores(scores, labels)


class TaskCalibration(TypedDict):
    """What [`calibrate_to_task`] chose."""

    factor: float
    """Of the mapper's output, relative to the size that it had."""
    losses: dict[str, float]
    """Cross-entropy of the validation labels in nats, by factor."""


class _Candidate(NamedTuple):
    """A factor that was tried."""

    factor: float
    loss: float
    priors: dict[str, float]


def calibrate_to_task(
    model: PalamModel,
    task: Task,
    train: Sequence[Example],
    dev: Sequence[Example],
    language: str,
    *,
    factors: Sequence[float] = FACTORS,
    seed: int = 0,
) -> TaskCalibration:
    """Choose the factor of the mapper's output, and measure the labels' priors, in place.

    Args:
        model: with a solved bridge.
        task: gives the texts' form in the model's mode.
        train: English examples; the priors are the mean scores over a sample of them, whose labels
            are not looked at.
        dev: English validation examples; the factor with the lowest cross-entropy of their labels,
            priors subtracted, is taken.
        language: of both.
        factors: to try, relative to the size that the bridge's output has.
        seed: of the samples.

    Raises:
        PalamError: no examples, or what [`LabelScorer`] refuses; the bridge is then as it was.
    """
    mode = model.processor.template.mode
    dev = sample(dev, VALIDATION_TEXTS, seed)
    dev_texts = [task.render(example, mode) for example in dev]
    train = sample(train, PRIOR_TEXTS, seed)
    train_texts = [task.render(example, mode) for example in train]
    names = list(task.labels)
    labels = list(task.labels.values())
    targets = torch.tensor([names.index(example.label) for example in dev])
    scorer = LabelScorer(model, labels, calibrated=False)
    mapper = model.bridge.mapper
    before = copy.deepcopy(mapper.state_dict())

    candidates: list[_Candidate] = []
    current = 1.0
    try:
        for factor in factors:
            mapper.rescale(factor / current)
            current = factor
            train_scores = scorer.score(train_texts, [language] * len(train))
            priors = _mean_scores(train_scores, labels)
            prior_row = torch.tensor([priors[label] for label in labels])
            dev_scores = scorer.score(dev_texts, [language] * len(dev))
            loss = F.cross_entropy(dev_scores - prior_row, targets)
            check_finite(loss, "the losses of the validation labels")
            candidates.append(_Candidate(factor, loss.item(), priors))
    except BaseException:
        mapper.load_state_dict(before)
        raise
    best = min(candidates, key=lambda candidate: candidate.loss)
    mapper.rescale(best.factor / current)
    model.config.label_priors = best.priors
    losses = {str(candidate.factor): candidate.loss for candidate in candidates}
    return TaskCalibration(factor=best.factor, losses=losses)


def _mean_scores(scores: Tensor, labels: Sequence[str]) -> dict[str, float]:
    """By label, the mean of scores [texts, labels] over the texts.

    Raises:
        PalamError: there are no texts.
    """
    if not len(scores):
        raise PalamError("there are no texts to measure the labels' priors on")
    means = scores.mean(0).tolist()
    return dict(zip(labels, means, strict=True))
