"""Long texts in passages that the encoder reads whole, so that all of their words are used."""

import re
from collections.abc import Sequence

from palam.models.processing import PalamProcessor
from palam.models.template import clean
from palam.tasks.sampling import Span, sentence_spans

WORD = re.compile(r"\S+")


class PassageSplitter:
    """Splits texts that are longer than the encoder reads.

    Args:
        processor: whose encoder tokenizer counts the tokens, and whose `max_length` is the limit.
    """

    def __init__(self, processor: PalamProcessor) -> None:
        self._tokenizer = processor.encoder_tokenizer
        self._max_length = processor.max_length
        (self._special_tokens,) = self._lengths([""])

    def passages(self, text: str) -> list[str]:
        """A text's passages, in order; the text alone if it is short enough.

        They end with sentences where they can, else with words; a word that is too long by itself
        is divided.

        Args:
            text: any string.
        """
        return self._split(clean(text))

    def _split(self, text: str) -> list[str]:
        (length,) = self._lengths([text])
        if length <= self._max_length or len(text) < 2:
            return [text]
        parts = self._packed(text, sentence_spans(text))
        if len(parts) < 2:
            parts = self._packed(text, _word_spans(text))
        if len(parts) < 2:
            middle = len(text) // 2
            parts = [text[:middle], text[middle:]]
        passages = []
        for part in parts:
            passages.extend(self._split(part))
        return passages

    def _packed(self, text: str, spans: Sequence[Span]) -> list[str]:
        """A text in parts of whole spans, as many in each as are likely to fit.

        Args:
            text: the whole.
            spans: of its sentences or words, in order.
        """
        # What stands between two spans goes with the first.
        starts = [span.start for span in spans]
        stops = [*starts[1:], len(text)]
        pieces = [text[start:stop] for start, stop in zip(starts, stops, strict=True)]
        room = self._max_length - self._special_tokens
        parts: list[str] = []
        used = room + 1  # the first piece begins a part
        for piece, length in zip(pieces, self._lengths(pieces), strict=True):
            tokens = length - self._special_tokens
            if used + tokens > room:
                parts.append("")
                used = 0
            parts[-1] += piece
            used += tokens
        stripped = [part.strip() for part in parts]
        return [part for part in stripped if part]

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """The encoder's tokens of each text, special ones included."""
        if not texts:
            return []
        encoded = self._tokenizer(list(texts), split_special_tokens=True, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]


def _word_spans(text: str) -> list[Span]:
    return [Span(*match.span()) for match in WORD.finditer(text)]
