"""The languages of rows, as the encoder must be told them."""

from palam.cli._source import Chunk
from palam.errors import PalamError
from palam.scale.bridge import Bridge
from palam.scale.languages import check_given_language as check_given_language


def check_row_languages(bridge: Bridge, chunk: Chunk, known: set[str | None]) -> None:
    """Refuse a row's language that the encoder does not have.

    Args:
        bridge: whose encoder reads the texts.
        chunk: the rows with their languages.
        known: languages that the encoder has; the chunk's are added.

    Raises:
        PalamError: the first such row's.
    """
    tokenizer = bridge.processor.encoder_tokenizer
    if not hasattr(tokenizer, "src_lang"):
        return
    from palam.models.encoder_text import source_language

    for numbered, language in zip(chunk.rows, chunk.languages, strict=True):
        if language is None or language in known:
            continue
        try:
            source_language(tokenizer, language)
        except PalamError as error:
            raise PalamError(f"{numbered.place}: {error}") from None
        known.add(language)
