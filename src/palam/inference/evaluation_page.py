"""An evaluation as a page: figures by language and label, and the confusion of labels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from palam.inference.evaluation import Evaluation
from palam.inference.layer_page import language_tag
from palam.inference.metrics import ClassificationMetrics
from palam.models.model_card import public_name
from palam.utils.languages import language_name, language_title
from palam.utils.templating import render

MOST_SECTIONS = 12
"""Of more languages, only the first have a section of their own."""


class CertaintyRow(NamedTuple):
    """A row, its text, and how certain a bridge is of its prediction."""

    language: str
    row: int
    """From 0."""
    text: str
    label: str
    prediction: str
    confidence: float
    """The prediction's probability among the labels."""
    runner_up: str
    """The label with the next highest probability."""
    margin: float
    """The difference of the two probabilities."""


class LanguageSection(NamedTuple):
    """One language's part of the page."""

    name: str
    metrics: ClassificationMetrics
    shares: list[list[float]]
    """The confusion, each row as shares of it."""


def certainty_rows(
    evaluation: Evaluation, texts: Mapping[tuple[str, int], str], most: int
) -> list[CertaintyRow]:
    """The rows of which a bridge is the least certain, see [`Evaluation.least_certain`].

    Args:
        evaluation: with scores.
        texts: of every example, by language and row.
        most: how many at most; 0 is none.

    Raises:
        PalamError: the answers were generated.
    """
    if not most:
        return []
    rows = []
    for uncertain in evaluation.least_certain(most):
        prediction = uncertain.row
        language = prediction.get("language", "")
        rows.append(
            CertaintyRow(
                language=language,
                row=prediction["row"],
                text=texts[language, prediction["row"]],
                label=str(prediction["label"]),
                prediction=str(prediction["prediction"]),
                confidence=uncertain.confidence,
                runner_up=uncertain.runner_up,
                margin=uncertain.margin,
            )
        )
    return rows


def evaluation_page(evaluation: Evaluation, uncertain: Sequence[CertaintyRow] = ()) -> str:
    """One HTML page that needs no other file.

    Args:
        evaluation: what was measured.
        uncertain: rows to list, see [`certainty_rows`].
    """
    codes = list(evaluation.correct)
    sections = []
    for code in codes[:MOST_SECTIONS] if evaluation.labels else ():
        metrics = evaluation.metrics(code)
        shares = [_shares(counts) for counts in metrics.confusion]
        sections.append(LanguageSection(language_title(code), metrics, shares))
    return render(
        "palam.inference",
        "evaluation.html.j2",
        evaluation=evaluation,
        model=public_name(evaluation.model),
        results=evaluation.to_report()["results"],
        language_name=language_name,
        language_tag=language_tag,
        sections=sections,
        num_left_out=len(codes) - len(sections) if sections else 0,
        uncertain=uncertain,
    )


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts)
    return [count / max(1, total) for count in counts]
