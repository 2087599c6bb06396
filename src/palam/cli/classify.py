"""`palam classify`."""

from typing import TYPE_CHECKING

from cyclopts.types import PositiveInt

from palam.cli._columns import SCORES, probabilities
from palam.cli._options import (
    LOADING_DEFAULTS,
    Checkpoint,
    ConfigFile,
    LoadingOptions,
    NameList,
    load_model,
)
from palam.cli._rows import Progress, RowJob, loading_as_begun, process_rows, reserved_output
from palam.cli._source import Chunk, SourceConfig, SourceOptions
from palam.errors import PalamError
from palam.tasks.formats import Row

if TYPE_CHECKING:
    from palam.models.modeling import PalamModel


def classify(
    checkpoint: Checkpoint,
    /,
    *,
    source: SourceOptions = None,
    labels: NameList = None,
    batch_size: PositiveInt = 32,
    config: ConfigFile = None,
    loading: LoadingOptions = LOADING_DEFAULTS,
) -> None:
    """Label texts.

    Each row comes out, in input order, with its prediction, how sure that is, and a log-probability
    for each label; in a spreadsheet, with a probability for each label in a column of its own.

    Args:
        labels: Labels, e.g. good,bad; not set is those the bridge was trained on.
        batch_size: Texts at a time.
    """
    source = source or SourceConfig()
    if labels is not None and len(labels) < 2:
        given = ",".join(labels)
        raise PalamError(f"--labels {given!r} holds fewer than two labels; give e.g. good,bad")
    with reserved_output(source):
        model = load_model(checkpoint, loading_as_begun(loading, source))
        job = _job(model, _words_by_label(model, labels), batch_size)
        process_rows(model, source, job, batch_size=batch_size)


def _words_by_label(model: "PalamModel", labels: list[str] | None) -> dict[str, str]:
    """Each label with the words that the LLM answers."""
    if labels is not None:
        return {label: label for label in labels}
    task = model.config.task or {}
    words_by_label = dict(task.get("labels", ()))
    if not words_by_label:
        raise PalamError(
            "this bridge was not trained on a task with labels; give --labels, "
            "e.g. --labels good,bad"
        )
    return words_by_label


def _job(model: "PalamModel", words_by_label: dict[str, str], batch_size: int) -> RowJob:
    """Labelling with these labels."""
    from palam.inference.scoring import LabelScorer

    labels = list(words_by_label)
    scorer = LabelScorer(model, list(words_by_label.values()))

    def label_chunk(chunk: Chunk, progress: Progress | None) -> list[Row]:
        scores = scorer.score(
            chunk.texts, chunk.languages, batch_size=batch_size, progress=progress
        )
        best_labels = scores.argmax(1).tolist()
        rows = []
        for best, values in zip(best_labels, scores.tolist(), strict=True):
            rounded = [round(value, 4) for value in values]
            rows.append(
                {
                    "prediction": labels[best],
                    "confidence": probabilities(rounded)[best],
                    SCORES: dict(zip(labels, rounded, strict=True)),
                }
            )
        return rows

    return RowJob(
        description="classifying",
        results=("prediction", "confidence", SCORES),
        run=label_chunk,
        identity={"command": "classify", "labels": [list(pair) for pair in words_by_label.items()]},
        labels=tuple(labels),
        uses_encoder=not model.config.llm_only,
    )
