"""The LLM's side of tokenisation: one string, one tokenisation, wherever no vector stands between.

A tokenizer gives a string other ids than its pieces one by one: SentencePiece tokenizers put a
dummy space in front of whatever is tokenised alone, others merge characters across a join. So what
the LLM reads as one string is tokenised as one. What follows a mapped text, which is no string, is
tokenised as a continuation: without the dummy space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol

from palam.models.template import Template

ANCHORS = ("\n", ":", "0", "a", "。")
"""Strings in front of a continuation, of which one does not merge with it; its ids are cut off."""
CACHED_ANSWERS = 65_536
"""How many answers' ids are remembered: labels repeat."""


@dataclass(frozen=True)
class Part:
    """A piece of a string, and whose it is."""

    text: str
    control: bool = False
    """Whether its control tokens are meant: a template's are, those in a user's text are not."""


class Piece(NamedTuple):
    """A token of a string."""

    id: int
    start: int
    """Where it begins in the string, in characters; negative before it."""
    end: int


class Owner(Enum):
    """Whose characters make a control token."""

    TEMPLATE = auto()
    USER = auto()


class LLMTokenization(Protocol):
    """How the sequence that the LLM reads is tokenised."""

    max_length: int
    """Most tokens of a text that the LLM reads itself."""

    def prefix_ids(self) -> list[int]:
        """What stands before a mapped text."""
        ...

    def after_text_ids(self, source: str = "") -> list[int]:
        """What stands after a mapped text: its own tokens, if the LLM reads them; the suffix."""
        ...

    def prompt_ids(self, text: str) -> list[int]:
        """The whole prompt where the LLM reads the text itself."""
        ...

    def answer_ids(self, answer: str, *, end: bool = True) -> list[int]:
        """An answer after the suffix, and its end if that is wanted."""
        ...

    def continuation_ids(self, text: str) -> list[int]:
        """A raw text that goes on after a mapped one, without an end."""
        ...

    def end_ids(self) -> list[int]:
        """What ends an answer."""
        ...

    def is_cut(self, text: str) -> bool:
        """Whether a text has more tokens than the LLM reads of it."""
        ...


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """The tokens that steer an LLM, by id: special ones, and those its chat template writes."""
    written = str(getattr(tokenizer, "chat_template", None) or "")
    tokens = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=False))
    for token_id, token in tokenizer.added_tokens_decoder.items():
        content = token.content.strip()
        if token.special or (len(content) > 1 and content in written):
            tokens[token_id] = token.content
    return tokens


class PlainText:
    """A fast tokenizer's tokens of text in which no characters make a control token.

    Args:
        tokenizer: of the encoder or the LLM; it gives offsets.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def control_tokens(self) -> dict[int, str]:
        """See [`control_tokens`]."""
        return control_tokens(self.tokenizer)

    def ids(self, text: str, **options: Any) -> list[int]:
        """A text's ids without special tokens."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, **options)["input_ids"]
        return ids

    def pieces(self, text: str, continuation: bool = False, **options: Any) -> list[Piece]:
        """A text's tokens; as a continuation, if it is one and the tokenizer tells them apart.

        Where every anchor merges with the text, it is tokenised alone.
        """
        for anchor in ANCHORS if continuation and self.has_dummy_space else ():
            before = self.ids(anchor)
            pieces = self._tokenize(anchor + text, **options)
            rest = pieces[len(before) :]
            clean_cut = not rest or rest[0].start >= len(anchor)
            if [piece.id for piece in pieces[: len(before)]] == before and clean_cut:
                shift = len(anchor)
                return [Piece(piece.id, piece.start - shift, piece.end - shift) for piece in rest]
        return self._tokenize(text, **options)

    def plain_pieces(self, text: str, continuation: bool = False) -> list[Piece]:
        """A text's tokens, none of which is a control token."""
        pieces = self.pieces(text, continuation, split_special_tokens=True)
        cuts = [0]
        for piece in pieces:
            # Some have control tokens among their ordinary pieces, or do not call them special.
            control = self.control_range(piece, text)
            if control is not None and control.end - control.start > 1:
                cuts.append(control.start + 1)
        if len(cuts) == 1:
            return pieces
        plain: list[Piece] = []
        for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
            chunk = self.pieces(text[start:end], continuation, split_special_tokens=True)
            plain += [Piece(piece.id, piece.start + start, piece.end + start) for piece in chunk]
            continuation = True
        return plain

    def control_range(self, piece: Piece, text: str) -> Piece | None:
        """A control token without the white space that some take in; None if it is another."""
        content = self.control_tokens.get(piece.id)
        if content is None:
            return None
        start = max(0, piece.start)
        covered = text[start : piece.end]
        bare = covered.strip()
        if bare != content.strip():  # an unknown character, not `<unk>`
            return None
        start += len(covered) - len(covered.lstrip())
        return Piece(piece.id, start, start + len(bare))

    def _tokenize(self, text: str, **options: Any) -> list[Piece]:
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, **options
        )
        ranges = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [Piece(token, start, end) for token, (start, end) in ranges]

    @cached_property
    def has_dummy_space(self) -> bool:
        """Whether a text has other ids alone than as a continuation."""
        alone = self.ids("a")
        for anchor in ANCHORS:
            before = self.ids(anchor)
            ids = self.ids(anchor + "a")
            if ids[: len(before)] == before and len(ids) > len(before):
                return ids[len(before) :] != alone
        return False

    @cached_property
    def has_dummy_after_control(self) -> bool:
        """Whether the tokenizer puts the dummy space after each control token too."""
        alone = self.ids("a")
        for token_id, content in self.control_tokens.items():
            ids = self.ids(content + "a")
            if ids[:1] == [token_id] and len(ids) > 1:
                return self.has_dummy_space and ids[1:] == alone
        return False

    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before a text, and those after it."""
        bare = self.ids("a")
        framed: list[int] = self.tokenizer("a")["input_ids"]
        for start in range(len(framed)):
            end = start + len(bare)
            if framed[start:end] == bare:
                return framed[:start], framed[end:]
        return [], []


class PieceTokenization:
    """Version 1, that of bridges of before 0.1.0: every piece is tokenised alone.

    BOS is put in front wherever the tokenizer defines one, an answer begins with a space after a
    suffix, and ends with the tokenizer's EOS.

    Args:
        tokenizer: the LLM's.
        template: what stands around the text.
        max_length: most tokens of a text that the LLM reads itself.
    """

    def __init__(self, tokenizer: Any, template: Template, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length

    def _ids(self, text: str, **options: Any) -> list[int]:
        encoded = self.tokenizer(text, add_special_tokens=False, **options)
        ids: list[int] = encoded["input_ids"]
        return ids

    def _text_ids(self, text: str) -> list[int]:
        return self._ids(text, split_special_tokens=True)[: self.max_length]

    def prefix_ids(self) -> list[int]:
        """See [`LLMTokenization`]."""
        ids = self._ids(self.template.prefix)
        bos = self.tokenizer.bos_token_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def after_text_ids(self, source: str = "") -> list[int]:
        """See [`LLMTokenization`]."""
        suffix = self._ids(self.template.suffix)
        return [*self._text_ids(source), *suffix] if source else suffix

    def prompt_ids(self, text: str) -> list[int]:
        """See [`LLMTokenization`]."""
        return [*self.prefix_ids(), *self._text_ids(text), *self._ids(self.template.suffix)]

    def answer_ids(self, answer: str, *, end: bool = True) -> list[int]:
        """See [`LLMTokenization`]."""
        ids = self._ids(f" {answer}" if self.template.suffix else answer)
        return [*ids, *self.end_ids()] if end else ids

    def continuation_ids(self, text: str) -> list[int]:
        """See [`LLMTokenization`]."""
        return self._ids(text)

    def end_ids(self) -> list[int]:
        """See [`LLMTokenization`]."""
        eos = self.tokenizer.eos_token_id
        return [] if eos is None else [eos]

    def is_cut(self, text: str) -> bool:
        """See [`LLMTokenization`]."""
        return len(self._ids(text, split_special_tokens=True)) > self.max_length


class JoinedTokenization:
    """Version 2: what is read as one string is tokenised as one.

    BOS stands where the tokenizer itself puts one (in a chat, where the template writes one). A
    plain prompt and its answer are joined by a space; in a chat an answer begins and ends as the
    template renders it. Control tokens are those of the template alone.

    Args:
        tokenizer: the LLM's.
        template: what stands around the text.
        max_length: most tokens of a text that the LLM reads itself.
    """

    def __init__(self, tokenizer: Any, template: Template, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length
        self._plain_text = PlainText(tokenizer)
        self._answer_ids = lru_cache(maxsize=CACHED_ANSWERS)(self._tokenize_answer)
        self._cut = lru_cache(maxsize=1)(self._cut_text)  # of the text at hand

    # ------------------------------------------------------------------ the sequence
    def prefix_ids(self) -> list[int]:
        """See [`LLMTokenization`]."""
        return self._begun(self.encode([Part(self.template.prefix, control=True)]))

    def after_text_ids(self, source: str = "") -> list[int]:
        """See [`LLMTokenization`]."""
        suffix = Part(self._suffix, control=True)
        return self.encode([Part(self._cut(source)), suffix], continuation=True)

    def prompt_ids(self, text: str) -> list[int]:
        """See [`LLMTokenization`]."""
        prefix = Part(self.template.prefix, control=True)
        suffix = Part(self._suffix, control=True)
        return self._begun(self.encode([prefix, Part(self._cut(text)), suffix]))

    def answer_ids(self, answer: str, *, end: bool = True) -> list[int]:
        """See [`LLMTokenization`]."""
        ids = list(self._answer_ids(answer, end))
        if end and self.template.answer_end is None:
            ids += self.end_ids()
        return ids

    def continuation_ids(self, text: str) -> list[int]:
        """See [`LLMTokenization`]."""
        return self.encode([Part(text)], continuation=True)

    def end_ids(self) -> list[int]:
        """See [`LLMTokenization`]."""
        if self.template.answer_end is not None:
            end = Part(self.template.answer_end, control=True)
            return self.encode([end], continuation=True)
        eos = self.tokenizer.eos_token_id
        return [] if eos is None else [eos]

    def is_cut(self, text: str) -> bool:
        """See [`LLMTokenization`]."""
        return len(self._cut(text)) < len(text)

    def _tokenize_answer(self, answer: str, end: bool) -> tuple[int, ...]:
        """The ids of an answer and of what the template writes after it."""
        after = [Part(self._separator + answer)]
        if end and self.template.answer_end is not None:
            after.append(Part(self.template.answer_end, control=True))
        suffix = Part(self._suffix, control=True)
        before = self.encode([suffix], continuation=True)
        whole = self.encode([suffix, *after], continuation=True)
        if before and whole[: len(before)] == before:
            return tuple(whole[len(before) :])
        # A merge across the join, or nothing to join.
        return tuple(self.encode(after, continuation=True))

    @cached_property
    def _suffix(self) -> str:
        """The template's suffix without the spaces that belong to the answer's first word."""
        return self.template.suffix.rstrip(" ")

    @cached_property
    def _separator(self) -> str:
        """What joins suffix and answer."""
        written = self.template.suffix[len(self._suffix) :]
        if written or self.template.mode == "chat" or not self._suffix:
            return written
        return "" if self._suffix[-1].isspace() else " "

    def _begun(self, ids: list[int]) -> list[int]:
        """Ids with what the tokenizer puts in front of a text, once; in a chat as they are."""
        first = [] if self.template.mode == "chat" else self._first_ids
        return ids if ids[: len(first)] == first else [*first, *ids]

    @cached_property
    def _first_ids(self) -> list[int]:
        """What the tokenizer puts in front of a text: BOS with most, nothing with some."""
        return self._plain_text.frame()[0]

    def _cut_text(self, text: str) -> str:
        """The beginning of a text, of at most `max_length` tokens."""
        if not self.tokenizer.is_fast:
            return self._cut_slowly(text)
        while True:
            pieces = self._plain_text.plain_pieces(text)
            if len(pieces) <= self.max_length:
                return text
            # Byte-level pieces may share a character: then it is left out.
            end = min(pieces[self.max_length - 1].end, pieces[self.max_length].start)
            text = text[: min(end, len(text) - 1)]

    def _cut_slowly(self, text: str) -> str:
        """The same with a tokenizer that gives no offsets: the longest beginning is searched."""
        fitting = 0
        too_long = len(text) + 1
        length = len(text)
        while fitting + 1 < too_long:
            if (
                len(self._plain_text.ids(text[:length], split_special_tokens=True))
                <= self.max_length
            ):
                fitting = length
            else:
                too_long = length
            length = (fitting + too_long) // 2
        return text[:fitting]

    # ------------------------------------------------------------------ tokenising
    def encode(self, parts: Sequence[Part], *, continuation: bool = False) -> list[int]:
        """The ids of the parts as one string.

        Args:
            parts: of the string, in order.
            continuation: the string goes on after something that is no string: it gets no dummy
                space in front.
        """
        text = "".join(part.text for part in parts)
        if not text:
            return []
        if not self.tokenizer.is_fast:
            return self._encode_slowly(parts)
        pieces = self._plain_text.pieces(text, continuation)
        users = _user_ranges(parts)
        owners = [self._control_owner(piece, text, users) for piece in pieces]
        if Owner.USER not in owners:
            return [piece.id for piece in pieces]
        # What stands between two control tokens of the template is tokenised anew, as plain text.
        ids: list[int] = []
        start = 0
        for piece, owner in zip(pieces, owners, strict=True):
            if owner is Owner.TEMPLATE:
                ids += self._plain_ids(text[start : piece.start], continuation)
                ids.append(piece.id)
                start = piece.end
                continuation = not self._plain_text.has_dummy_after_control
        return [*ids, *self._plain_ids(text[start:], continuation)]

    def _control_owner(
        self, piece: Piece, text: str, users: Sequence[tuple[int, int]]
    ) -> Owner | None:
        """Whose control token it is; None if it is none."""
        control = self._plain_text.control_range(piece, text)
        if control is None:
            return None
        for start, end in users:
            if start < control.end and control.start < end:
                return Owner.USER
        return Owner.TEMPLATE

    def _plain_ids(self, text: str, continuation: bool) -> list[int]:
        if not text:
            return []
        return [piece.id for piece in self._plain_text.plain_pieces(text, continuation)]

    def _encode_slowly(self, parts: Sequence[Part]) -> list[int]:
        """The ids of the parts, of a tokenizer that gives no offsets.

        They are one string unless a user's part holds a control token; then each is read alone.
        """
        plain_text = self._plain_text
        user_text = "\n".join(part.text for part in parts if not part.control)
        if not any(token in user_text for token in plain_text.control_tokens.values()):
            return plain_text.ids("".join(part.text for part in parts))
        ids: list[int] = []
        for part in parts:
            ids += plain_text.ids(part.text, split_special_tokens=not part.control)
        return ids


def _user_ranges(parts: Sequence[Part]) -> list[tuple[int, int]]:
    """Where in the joined string the parts are whose control tokens are none."""
    ranges = []
    start = 0
    for part in parts:
        end = start + len(part.text)
        if not part.control:
            ranges.append((start, end))
        start = end
    return ranges


TOKENIZATIONS: dict[int, type[PieceTokenization] | type[JoinedTokenization]] = {
    1: PieceTokenization,
    2: JoinedTokenization,
}
"""By version, as `processor_config.json` has it."""
EARLIER_TOKENIZATION = 1
"""The version of files that do not say theirs."""
TOKENIZATION = 2
"""The version of new bridges."""
