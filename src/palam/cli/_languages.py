"""The languages of rows, as the encoder must be told them."""

from typing import TYPE_CHECKING

from palam.cli._options import check_language
from palam.cli._source import Chunk, SourceConfig
from palam.errors import PalamError

if TYPE_CHECKING:
    from palam.models.modeling import PalamModel


def check_given_language(model: "PalamModel", source: SourceConfig, *, uses_encoder: bool) -> None:
    """Refuse an unknown language, and none where the encoder must be told it.

    Args:
        model: whose encoder it is.
        source: which names the language, or its column.
        uses_encoder: whether the encoder reads the texts.

    Raises:
        PalamError: it is one of these.
    """
    tokenizer = model.processor.encoder_tokenizer
    if not uses_encoder or not hasattr(tokenizer, "src_lang"):
        check_language(model, source.language)
    elif source.language is not None:
        from palam.models.processing import source_language

        source_language(tokenizer, source.language)
    elif source.language_column is None:
        raise PalamError(
            "this encoder must be told the language of the texts; give --language, e.g. "
            "--language si, or --language-column where each row has its own"
        )


def check_row_languages(model: "PalamModel", chunk: Chunk, known: set[str | None]) -> None:
    """Refuse a row's language that the encoder does not have.

    Args:
        model: whose encoder reads the texts.
        chunk: the rows with their languages.
        known: languages that the encoder has; the chunk's are added.

    Raises:
        PalamError: the first such row's.
    """
    tokenizer = model.processor.encoder_tokenizer
    if not hasattr(tokenizer, "src_lang"):
        return
    from palam.models.processing import source_language

    for numbered, language in zip(chunk.rows, chunk.languages, strict=True):
        if language is None or language in known:
            continue
        try:
            source_language(tokenizer, language)
        except PalamError as error:
            raise PalamError(f"{numbered.place}: {error}") from None
        known.add(language)
