"""The language of all texts, as the encoder must be told it."""

from typing import Protocol

from palam.errors import PalamError
from palam.scale.bridge import Bridge
from palam.utils.languages import find_language


class LanguageOptions(Protocol):
    """Where the languages of texts are."""

    @property
    def language(self) -> str | None:
        """Of all texts."""

    @property
    def language_column(self) -> str | None:
        """The column of each row's language, in place of one for all."""


def check_given_language(bridge: Bridge, source: LanguageOptions, *, uses_encoder: bool) -> None:
    """Refuse an unknown language, and none where the encoder must be told it.

    Args:
        bridge: whose encoder it is.
        source: which names the language, or its column.
        uses_encoder: whether the encoder reads the texts.

    Raises:
        PalamError: it is one of these.
    """
    tokenizer = bridge.processor.encoder_tokenizer
    if not uses_encoder or not hasattr(tokenizer, "src_lang"):
        check_language(bridge, source.language)
    elif source.language is not None:
        from palam.models.encoder_text import source_language

        source_language(tokenizer, source.language)
    elif source.language_column is None:
        raise PalamError(
            "this encoder must be told the language of the texts; give --language, e.g. "
            "--language si, or --language-column where each row has its own"
        )


def check_language(bridge: Bridge, language: str | None) -> None:
    """Refuse a language that nobody knows; an encoder that must be told it checks its own.

    Raises:
        PalamError: an unknown language code.
    """
    if language is None or hasattr(bridge.processor.encoder_tokenizer, "src_lang"):
        return
    if find_language(language) is None:
        raise PalamError(
            f"language is {language!r}, which is unknown; give a code such as si or sin_Sinh"
        )
