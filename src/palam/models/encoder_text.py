"""An encoder's side of tokenisation: texts cut at the longest, their language told if need be."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from palam.errors import PalamError
from palam.models.tokenization import PlainText
from palam.utils.languages import resolve_language


class EncodedText(NamedTuple):
    """A text as an encoder reads it."""

    features: dict[str, Any]
    """`input_ids` and what else was asked for."""
    cut: bool
    """Whether it was longer than the longest allowed."""


def language_ids(tokenizer: Any) -> dict[str, int]:
    """The languages that a tokenizer must be told (NLLB, M2M100, mBART).

    Returns:
        The id of each one's token, by the tokenizer's own name of the language.
    """
    by_code: dict[str, int] | None = getattr(tokenizer, "lang_code_to_id", None)
    if by_code:
        return by_code
    special_tokens = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    return {token.strip("_"): token_id for token, token_id in special_tokens}


def source_language(tokenizer: Any, code: str, role: str = "encoder") -> str:
    """A tokenizer's own name of a language.

    Args:
        tokenizer: one that must be told the language.
        code: any code of [`find_language`].
        role: whose tokenizer it is, for messages.

    Raises:
        PalamError: it does not have the language.
    """
    name = resolve_language(code, list(language_ids(tokenizer)))
    if name is None:
        raise PalamError(
            f"the {role}'s tokenizer has no language {code!r}; give one of its own codes"
        )
    return name


class EncoderText:
    """Tokenises cleaned texts for one encoder.

    Args:
        tokenizer: the encoder's.
        role: whose it is, for messages.
    """

    def __init__(self, tokenizer: Any, role: str = "encoder") -> None:
        self.tokenizer = tokenizer
        self.role = role
        self._default_language = getattr(tokenizer, "src_lang", None)
        self._plain_text = PlainText(tokenizer)

    def encode(
        self,
        texts: Sequence[str],
        language: str | None,
        max_length: int,
        options: Mapping[str, Any],
    ) -> list[EncodedText]:
        """Tokenise texts of one language.

        Args:
            texts: cleaned.
            language: any code of [`find_language`]; None is the tokenizer's own default. Only
                tokenizers that must be told the language use it.
            max_length: most tokens of a text, special tokens included.
            options: for the tokenizer, e.g. `return_offsets_mapping`.

        Raises:
            PalamError: a language that the tokenizer must be told and does not know.
        """
        tokenizer = self.tokenizer
        self._set_source_language(language)
        batch = tokenizer(
            list(texts),
            truncation=True,
            max_length=max_length,
            split_special_tokens=True,  # `</s>` in a text is no end of it
            **options,
        )
        control_tokens = self._plain_text.control_tokens.values()
        rows = []
        for position, text in enumerate(texts):
            features = {name: values[position] for name, values in batch.items()}
            if not batch.encodings:  # a slow tokenizer does not tell whether it cut
                cut = len(features["input_ids"]) == max_length
                rows.append(EncodedText(features, cut))
            elif any(token in text for token in control_tokens):
                rows.append(self._encode_plainly(text, max_length, list(features)))
            else:
                cut = bool(batch.encodings[position].overflowing)
                rows.append(EncodedText(features, cut))
        return rows

    def _set_source_language(self, code: str | None) -> None:
        """Tell the tokenizer the language of what comes next, if it must be told."""
        tokenizer = self.tokenizer
        if not hasattr(tokenizer, "src_lang"):
            return
        if code is None:
            tokenizer.src_lang = self._default_language
        else:
            tokenizer.src_lang = source_language(tokenizer, code, self.role)

    def _encode_plainly(self, text: str, max_length: int, names: list[str]) -> EncodedText:
        """A text that looks as if it held control tokens, tokenised.

        Tokenizers with a unigram model have their special tokens among their ordinary pieces, and
        would read them in any text.

        Args:
            text: cleaned.
            max_length: most tokens, special tokens included.
            names: of the features that are wanted.
        """
        before, after = self._plain_text.frame()
        room = max(0, max_length - len(before) - len(after))
        pieces = self._plain_text.plain_pieces(text)
        cut = len(pieces) > room
        if self.tokenizer.truncation_side == "left":
            pieces = pieces[len(pieces) - room :] if cut else pieces
        else:
            pieces = pieces[:room]
        ids = [*before, *(piece.id for piece in pieces), *after]
        no_range = (0, 0)
        ranges = [(max(0, piece.start), piece.end) for piece in pieces]
        known = {
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "token_type_ids": [0] * len(ids),
            "special_tokens_mask": [1] * len(before) + [0] * len(pieces) + [1] * len(after),
            "offset_mapping": [no_range] * len(before) + ranges + [no_range] * len(after),
        }
        return EncodedText({name: known[name] for name in names}, cut)
