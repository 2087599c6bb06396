"""Several bridges that answer together: the mean of their log-probabilities.

The errors that are one bridge's own become fewer; those of the encoder, which all of them share,
stay.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor

from palam.errors import PalamError
from palam.inference.batches import Progress
from palam.inference.evaluation import Evaluation, evaluate
from palam.inference.prediction import Prediction, PredictionOptions
from palam.inference.scoring import LabelScorer
from palam.inference.text_form import TextForm
from palam.models.configuration import PalamConfig
from palam.models.modeling import PalamModel
from palam.tasks.task import Example, Task


class EnsembleScorer:
    """Scores the same labels for texts as [`LabelScorer`] does, with several bridges.

    A label's score is the mean of what the bridges give it. A bridge that is there twice counts
    twice; alone, it gives its own scores.

    Args:
        scorers: of each bridge one, all of the same labels in the same order.

    Attributes:
        labels: the words of each label.

    Raises:
        PalamError: no scorer, or some of other labels.
    """

    def __init__(self, scorers: Sequence[LabelScorer]) -> None:
        if not scorers:
            raise PalamError("an ensemble needs a bridge or more")
        self.scorers = list(scorers)
        self.labels = self.scorers[0].labels
        for scorer in self.scorers:
            if scorer.labels != self.labels:
                raise PalamError(
                    f"the labels of an ensemble must be the same: {scorer.labels} and {self.labels}"
                )

    def score(
        self,
        texts: Sequence[str],
        languages: Sequence[str | None] | None = None,
        *,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> Tensor:
        """The mean of the bridges' log-probabilities of each label; see [`LabelScorer.score`].

        Args:
            texts, languages, batch_size: see [`LabelScorer.score`].
            progress: called with the number of texts that the last bridge has just read.

        Returns:
            Scores [texts, labels] in natural log, fp32 on the CPU. They do not depend on the order
            of the bridges.
        """
        scores: list[Tensor] = []
        for scorer in self.scorers:
            is_last = len(scores) == len(self.scorers) - 1
            own = scorer.score(
                texts,
                languages,
                batch_size=batch_size,
                progress=progress if is_last else None,
            )
            scores.append(own)
        # In twice the digits, in which the sum is the same in any order.
        return torch.stack(scores).double().mean(0).float()


def evaluate_together(
    models: Sequence[PalamModel],
    task: Task,
    split: str,
    examples: Mapping[str, list[Example]],
    *,
    name: str = "",
    **options: Unpack[PredictionOptions],
) -> Evaluation:
    """What several bridges reach together on a task with labels.

    Args:
        models: checkpoints of the task's family. Each is asked as [`evaluate`] asks it alone.
        task, split, examples, name: see [`evaluate`].
        **options: see [`PredictionOptions`]; `progress` is told of each text by each model.

    Returns:
        The evaluation of the labels whose mean log-probability is the highest. One model reaches
        what it reaches alone, and the order of several makes no difference.

    Raises:
        PalamError: no model, a task without labels, answers that are not scored, or what
            [`evaluate`] refuses.
    """
    if not models:
        raise PalamError("an ensemble needs a bridge or more")
    if task.has_free_answers or options.get("method", "score") != "score":
        raise PalamError(
            "bridges answer together by the scores of labels; "
            "that needs a task with labels, and the method score"
        )
    own = [evaluate(model, task, split, dict(examples), **options) for model in models]
    together = Evaluation.of_task(task, split, name)
    for language in examples:
        of_models = [evaluation.of_language(language) for evaluation in own]
        together.add(language, map(_mean_prediction, zip(*of_models, strict=True)))
    return together


def _mean_prediction(rows: Sequence[Prediction]) -> Prediction:
    """What several bridges predict together for one example."""
    first = rows[0]
    scores = {}
    for label in first["scores"]:
        # An exact sum is the same in any order.
        scores[label] = math.fsum(row["scores"][label] for row in rows) / len(rows)
    best = max(scores, key=scores.__getitem__)
    return Prediction(row=first["row"], label=first["label"], prediction=best, scores=scores)


def check_same_labels(configs: Sequence[PalamConfig], *, advice: str = "") -> None:
    """Refuse bridges that were trained on other labels.

    Args:
        configs: of the bridges.
        advice: what helps beside bridges of the same labels, for the message.

    Raises:
        PalamError: two of them have other labels.
    """
    first, *others = configs
    for other in others:
        if _labels(other) != _labels(first):
            raise PalamError(
                f"{_name(other)} has the labels {_listed(other)}, and {_name(first)} "
                f"{_listed(first)}; bridges that answer together need the same{advice}"
            )


def check_same_form(configs: Sequence[PalamConfig], column: str | None = None) -> None:
    """Refuse bridges that read the rows of a file otherwise.

    Args:
        configs: of the bridges.
        column: of the text, where the user names it; None is the one that each was trained on.

    Raises:
        PalamError: two of them read other columns of a row, or put other words around them.
    """
    first, *others = configs
    expected = str(TextForm.of(first.trained_task, column))
    for other in others:
        form = str(TextForm.of(other.trained_task, column))
        if form != expected:
            raise PalamError(
                f"{_name(other)} reads a row as {form!r}, and {_name(first)} as {expected!r}; "
                "bridges that answer together must read the same"
            )


def _name(config: PalamConfig) -> str:
    return str(config.name_or_path)


def _labels(config: PalamConfig) -> dict[str, str]:
    """Each label with its words; none of a bridge that was trained on no task."""
    task = config.trained_task
    return {} if task is None else dict(task.words_by_label)


def _listed(config: PalamConfig) -> str:
    return ", ".join(_labels(config)) or "none"
