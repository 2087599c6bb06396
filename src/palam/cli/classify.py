"""`palam classify`."""

from typing import TYPE_CHECKING

from cyclopts.types import PositiveInt

from palam.cli._options import (
    LOADING_DEFAULTS,
    Checkpoint,
    ConfigFile,
    LoadingOptions,
    NameList,
    check_language,
    load_model,
)
from palam.cli._output import RowWriter, open_rows
from palam.cli._source import (
    SourceConfig,
    SourceOptions,
    check_columns_free,
    read_chunks,
    row_progress,
)
from palam.errors import PalamError

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

    Each row comes out, in input order, with its prediction and the log-probability of each label.

    Args:
        labels: Labels, e.g. good,bad; not set is those the bridge was trained on.
        batch_size: Texts at a time.
    """
    source = source or SourceConfig()
    if labels is not None and len(labels) < 2:
        given = ",".join(labels)
        raise PalamError(f"--labels {given!r} holds fewer than two labels; give e.g. good,bad")
    with open_rows(source.out, source.resume) as output:
        model = load_model(checkpoint, loading)
        check_language(model, source.language)
        words_by_label = _words_by_label(model, labels)
        if output.last_row and list(output.last_row.get("scores", ())) != list(words_by_label):
            raise PalamError("what <out>.partial holds has other labels; delete it to start anew")
        _write_labels(model, words_by_label, source, batch_size, output)


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


def _write_labels(
    model: "PalamModel",
    words_by_label: dict[str, str],
    source: SourceConfig,
    batch_size: int,
    output: RowWriter,
) -> None:
    from palam.inference.scoring import LabelScorer

    labels = list(words_by_label)
    scorer = LabelScorer(model, list(words_by_label.values()))
    with row_progress(source, "classifying") as advance:
        for chunk in read_chunks(source, model.config.task, output):
            check_columns_free(chunk.rows, ("prediction", "scores"))
            languages = [source.language] * len(chunk.texts)
            scores = scorer.score(chunk.texts, languages, batch_size=batch_size, progress=advance)
            best_labels = scores.argmax(1).tolist()
            for row, best, values in zip(chunk.rows, best_labels, scores.tolist(), strict=True):
                rounded = [round(value, 4) for value in values]
                by_label = dict(zip(labels, rounded, strict=True))
                output.write({**row, "prediction": labels[best], "scores": by_label})
