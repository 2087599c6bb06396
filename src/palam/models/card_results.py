"""Results by language in a model card: in the hub's model index, and as a table."""

from collections.abc import Iterable, Sequence
from typing import Any, NotRequired, TypedDict

from huggingface_hub import EvalResult, ModelCard

from palam.errors import PalamError
from palam.utils.languages import language_title
from palam.utils.templating import table_cell
from palam.utils.texts import first_line

BEGIN = "<!-- results by language -->"
END = "<!-- end of results by language -->"
"""What stands around the table in a card, so that it can be renewed."""


class LanguageRecord(TypedDict):
    """A result in one language, as `evaluations` of `results.json` has it."""

    task: str
    """The task's name, or the file's."""
    dataset: str
    """The data set's id on the hub, or the task's name again."""
    split: str
    language: str
    """The task's own code."""
    n: int
    """Texts."""
    accuracy: float
    """From 0 to 1; another figure, if `measure` says so."""
    ci95: list[float]
    """Its interval."""
    macro_f1: NotRequired[float]
    """The mean over the labels, from 0 to 1."""
    measure: NotRequired[str]
    """What stands in the accuracy's place."""
    figures: NotRequired[dict[str, float]]
    """Further ones."""
    answers: NotRequired[list[str]]
    """What the LLM said to each row, where that is what was measured."""
    decoding: NotRequired[dict[str, Any]]
    """How free answers were decoded, where not greedily as they come."""


def merged_records(
    old: Iterable[LanguageRecord], new: Sequence[LanguageRecord]
) -> list[LanguageRecord]:
    """Old and new results; a new one replaces one of the same task, split and language."""
    by_place = {}
    for record in [*old, *new]:
        by_place[record["task"], record["split"], record["language"]] = record
    return list(by_place.values())


def results_table(records: Sequence[LanguageRecord]) -> str:
    """The results as a Markdown table between two marks; empty without any."""
    if not records:
        return ""
    lines = [
        BEGIN,
        "## Results by language",
        "",
        "| task | split | language | texts | accuracy | 95 % interval | macro-F1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in records:
        low, high = record["ci95"]
        macro_f1 = record.get("macro_f1")
        cells = [
            _task_cell(record),
            record["split"],
            language_title(record["language"]),
            str(record["n"]),
            f"{100 * record['accuracy']:.1f} %",
            f"{100 * low:.1f}–{100 * high:.1f}",
            "" if macro_f1 is None else f"{100 * macro_f1:.1f} %",
        ]
        lines.append(f"| {' | '.join(table_cell(cell) for cell in cells)} |")
    lines.append(END)
    return "\n".join(lines)


def _task_cell(record: LanguageRecord) -> str:
    """The task, and what has to be known of its figure."""
    notes = [record["measure"]] if "measure" in record else []
    notes += [f"{name} {value}" for name, value in record.get("decoding", {}).items()]
    if not notes:
        return record["task"]
    return f"{record['task']} ({', '.join(notes)})"


def eval_results(records: Iterable[LanguageRecord]) -> list[EvalResult]:
    """The results as the hub's model index has them."""
    entries = []
    for record in records:
        measure = record.get("measure", "accuracy")
        values = {measure: record["accuracy"], "f1": record.get("macro_f1")}
        details = {"n": record["n"], "ci95": [round(end, 4) for end in record["ci95"]]}
        details |= record.get("decoding", {})
        for metric, value in values.items():
            if value is None:
                continue
            entry = EvalResult(
                task_type="text-generation" if "measure" in record else "text-classification",
                dataset_type=record["dataset"],
                dataset_name=record["task"],
                dataset_config=record["language"],
                dataset_split=record["split"],
                metric_type=metric,
                metric_name="macro-F1" if metric == "f1" else None,
                metric_value=round(value, 4),
                metric_args=details if metric == measure else {"average": "macro"},
            )
            entries.append(entry)
    return entries


def read_card(card: str) -> ModelCard:
    """A card's metadata and text.

    Raises:
        PalamError: its front matter is damaged.
    """
    try:
        return ModelCard(card)
    except Exception as error:  # YAML's errors, and those of the hub's classes
        reason = first_line(error)
        raise PalamError(f"the front matter of README.md is damaged: {reason}") from None


def with_results(
    card: str, new: Sequence[LanguageRecord], records: Sequence[LanguageRecord], name: str
) -> str:
    """A card with new results; all else in it stays as it is.

    Args:
        card: the text of a README.md.
        new: results that take the place of those of the same data and language in the model index.
        records: all results, for the table; one without the table's marks gets it at its end.
        name: of the model, if the card has none.

    Raises:
        PalamError: the card's front matter is damaged.
    """
    parsed = read_card(card)
    data: Any = parsed.data  # a ModelCardData
    entries = eval_results(new)
    places = {_place(entry) for entry in entries}
    others = [entry for entry in data.eval_results or [] if _place(entry) not in places]
    data.eval_results = [*others, *entries]
    data.model_name = data.model_name or name
    parsed.text = _with_table(parsed.text, results_table(records))
    return str(parsed)


def _place(entry: EvalResult) -> tuple[str | None, ...]:
    """What an entry of the model index is a result on."""
    return (entry.dataset_name, entry.dataset_config, entry.dataset_split, entry.metric_type)


def _with_table(text: str, table: str) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        return f"{before}{table}{after}"
    return f"{text.rstrip()}\n\n{table}\n"
