"""What makes a run over rows what it is: all that its results depend on, but for the rows."""

from typing import Any

from palam.cli._journal import KEEP_ERRORS
from palam.cli._source import SourceConfig
from palam.inference.text_form import TextForm
from palam.scale.bridge import Bridge, identity_of


def run_identity(
    bridge: Bridge, source: SourceConfig, form: TextForm, options: dict[str, Any]
) -> dict[str, Any]:
    """The identity of a run, by names that a message can use; the values are those of JSON.

    Args:
        bridge: with the template that this run uses.
        source: the options of the texts.
        form: how a row becomes a text.
        options: the command's own.
    """
    return {
        **options,
        "language": source.language,
        "language column": source.language_column,
        "text": form.template,
        "column": list(form.columns.values()),
        "format": source.file_format,
        "sheet": source.sheet,
        KEEP_ERRORS: source.keep_errors,
        **identity_of(bridge),
    }
