"""What `palam evaluate` prints."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table
from rich.text import Text

from palam.bench.language_groups import language_groups
from palam.utils.languages import language_title

if TYPE_CHECKING:
    from palam.inference.evaluation import Evaluation
    from palam.inference.evaluation_page import CertaintyRow
    from palam.inference.metrics import ClassificationMetrics
    from palam.inference.reading_metrics import ReadingMetrics
    from palam.models.processing import PalamProcessor

MOST_PRINTED_LABELS = 12
"""Of tasks with more labels, the confusion of labels is not printed."""
SHOWN_CHARACTERS = 60
"""So much of a text is printed."""
NOT_KNOWN = "–"
"""In the place of a main figure that could not be measured."""


def evaluation_tables(
    evaluation: "Evaluation", processor: "PalamProcessor", uncertain: "Sequence[CertaintyRow]"
) -> Iterator[Table]:
    """Figures by language; of one language also by label, and the confusion of labels.

    Args:
        evaluation: what was measured.
        processor: has counted the texts.
        uncertain: rows to list at the end.
    """
    table = _language_table(evaluation)
    for column in _text_columns(processor):
        table.add_column(column, justify="right")
    notes = [_candidates_note(evaluation), _texts_note(processor)]
    table.caption = "\n".join(note for note in notes if note) or None
    results = evaluation.to_dict()["results"]
    for code, result in results.items():
        cells = [*_figures(evaluation, code, result), *_text_figures(processor, code)]
        table.add_row(language_title(code), *cells)
        for name, reference in evaluation.references.items():
            table.add_row(f"  {name}", "", *_reading_figures(reference.reading(code)))
    if len(evaluation.correct) > 1:
        table.add_section()
        averaged = evaluation.averaged
        table.add_row(f"mean of {len(averaged)}", *_mean_figures(evaluation))
        for name, reference in evaluation.references.items():
            table.add_row(f"  {name}", "", *_reading_figures(reference.mean_reading_of(averaged)))
        for name, means in group_means(evaluation).items():
            table.add_row(name, "", *_reading_figures(means))
    yield table
    if evaluation.labels and len(evaluation.correct) == 1:
        (language,) = evaluation.correct
        metrics = evaluation.metrics(language)
        yield _label_table(metrics)
        if len(evaluation.labels) <= MOST_PRINTED_LABELS:
            yield _confusion_table(metrics)
    if uncertain:
        yield _uncertain_table(uncertain)


def group_means(evaluation: "Evaluation") -> dict[str, "ReadingMetrics"]:
    """The mean figures of readings in groups of languages, by the groups' names.

    The languages are those of [`Evaluation.averaged`]. There are no groups of other tasks, and none
    of two languages or fewer.
    """
    if not evaluation.is_reading or len(evaluation.correct) < 3:
        return {}
    means = {}
    for group in language_groups(evaluation.averaged):
        means[f"{group.name} ({len(group.codes)})"] = evaluation.mean_reading_of(group.codes)
    return means


def _language_table(evaluation: "Evaluation") -> Table:
    """The table without its rows, and without the columns of how the texts were read."""
    names = ["n", "accuracy", "95 % interval"]
    if evaluation.is_reading:
        names = ["n", "recall", "95 % interval", "chrF", "identified", "likeliest"]
    if evaluation.labels:
        names.append("macro-F1")
    columns = [Column(name, justify="right") for name in names]
    table = Table("language", *columns, title=f"{evaluation.task}, {evaluation.split}")
    table.title_justify = "left"
    table.caption_justify = "left"
    return table


def _figures(evaluation: "Evaluation", code: str, result: Mapping[str, Any]) -> list[str]:
    """What was reached in one language."""
    if evaluation.is_reading:
        return [f"{result['n']:,}", *_reading_figures(evaluation.reading(code))]
    low, high = result["ci95"]
    figures = [f"{result['n']:,}", f"{result['accuracy']:.1%}", f"{low:.1%} to {high:.1%}"]
    if evaluation.labels:
        figures.append(f"{evaluation.metrics(code).macro_f1:.3f}")
    return figures


def _reading_figures(metrics: "ReadingMetrics") -> list[str]:
    """What was measured of readings, the interval of the first after it."""
    interval = ""
    if metrics.ci95 is not None:
        low, high = metrics.ci95
        interval = f"{low:.1%} to {high:.1%}"
    return [
        _share(metrics.recall) or NOT_KNOWN,
        interval,
        "" if metrics.chrf is None else f"{metrics.chrf:.1f}",
        _share(metrics.identified),
        _share(metrics.likeliest),
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _mean_figures(evaluation: "Evaluation") -> list[str]:
    """The plain means over the languages."""
    if evaluation.is_reading:
        return ["", *_reading_figures(evaluation.mean_reading)]
    mean = ["", _share(evaluation.macro) or NOT_KNOWN, ""]
    if evaluation.labels:
        mean.append(f"{evaluation.macro_f1:.3f}")
    return mean


def _text_columns(processor: "PalamProcessor") -> list[str]:
    if processor.stats:
        return ["cut", "unknown"]
    return ["cut"] if processor.llm_stats else []


def _text_figures(processor: "PalamProcessor", code: str) -> list[str]:
    """What of one language's texts was cut, and unknown to the encoder."""
    if code in processor.stats:
        stats = processor.stats[code]
        return [f"{stats.cut:,}", f"{stats.unknown_share:.2%}"]
    if code in processor.llm_stats:
        return [f"{processor.llm_stats[code].cut:,}"]
    return []


def _candidates_note(evaluation: "Evaluation") -> str:
    """Of how many sentences the right one was to be the likeliest; empty if that was not asked."""
    counts = {row["candidates"] for row in evaluation.predictions if "candidates" in row}
    notes = [f"{count} sentences, by chance {1 / count:.0%}" for count in sorted(counts)]
    return f"likeliest: of {'; or of '.join(notes)}" if notes else ""


def _texts_note(processor: "PalamProcessor") -> str:
    """Where texts were cut, and what is unknown; empty if none was read."""
    if processor.stats:
        return f"cut: at {processor.max_length} tokens\nunknown: to the encoder, of all tokens"
    if processor.llm_stats:
        return f"cut: at {processor.llm_tokens.max_length} tokens of the LLM"
    return ""


def _label_table(metrics: "ClassificationMetrics") -> Table:
    """Precision, recall and F1 of each label."""
    names = ("precision", "recall", "F1", "rows")
    columns = [Column(name, justify="right") for name in names]
    table = Table("label", *columns, box=None, padding=(0, 2, 0, 0))
    for label, of_label in metrics.by_label.items():
        table.add_row(
            Text(label),
            f"{of_label.precision:.3f}",
            f"{of_label.recall:.3f}",
            f"{of_label.f1:.3f}",
            f"{of_label.support:,}",
        )
    return table


def _confusion_table(metrics: "ClassificationMetrics") -> Table:
    """Rows by gold label (down) and prediction (across, by number)."""
    names = [str(number) for number in range(1, len(metrics.labels) + 1)]
    if metrics.has_other_answers:
        names.append("other")
    columns = [Column(name, justify="right") for name in names]
    table = Table("label, and predicted as", *columns, box=None, padding=(0, 2, 0, 0))
    for number, (label, counts) in enumerate(
        zip(metrics.labels, metrics.confusion, strict=True), 1
    ):
        table.add_row(Text(f"{number} {label}"), *[f"{count:,}" for count in counts])
    return table


def _uncertain_table(uncertain: "Sequence[CertaintyRow]") -> Table:
    """The rows of which the bridge is the least certain."""
    table = Table(
        Column("row", justify="right"),
        "text",
        "label",
        "prediction",
        "next",
        Column("margin", justify="right"),
        box=None,
        padding=(0, 2, 0, 0),
        title="least certain (rows from 0, without the header)",
        title_justify="left",
    )
    for row in uncertain:
        text = " ".join(row.text.split())
        shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
        table.add_row(
            str(row.row),
            Text(shown),
            Text(row.label),
            Text(f"{row.prediction} {row.confidence:.0%}"),
            Text(row.runner_up),
            f"{row.margin:.3f}",
        )
    return table
