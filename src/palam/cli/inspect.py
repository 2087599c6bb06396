"""`palam inspect`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from palam.cli._options import (
    LOADING_DEFAULTS,
    Checkpoint,
    ConfigFile,
    LoadingOptions,
    check_language,
    load_model,
)
from palam.cli._output import print_table


def inspect(
    checkpoint: Checkpoint,
    /,
    *,
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    language: str | None = None,
    out: Path | None = None,
    config: ConfigFile = None,
    loading: LoadingOptions = LOADING_DEFAULTS,
) -> None:
    """Show how much each encoder layer counts.

    For each token of a text: by weight, and by weight × norm.

    Args:
        text: The text to look at.
        language: Language of the text, e.g. si or sin_Sinh; NLLB-style encoders need it.
        out: Write it too: as a page (.html) or data (.json).
    """
    from palam.inference.layer_page import check_path, save, table
    from palam.inference.layer_weights import LayerView
    from palam.models.task_record import text_alone

    if out is not None:
        check_path(out)
    model = load_model(checkpoint, loading)
    check_language(model, language)
    view = LayerView.of(model, text_alone(model.config.trained_task, text), language)
    print_table(table(view))
    if out is not None:
        save(view, out)
        print(f"written to {out}", file=sys.stderr)
