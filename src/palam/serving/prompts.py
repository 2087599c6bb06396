"""From messages to what the two models read.

A plain message goes through the bridge, in the bridge's own template. A message of parts is read as
it is written: the LLM reads `text` itself, the encoder reads `foreign_text`, which stands in its
place. What stands around messages is as the bridge was trained: in a chat the LLM's chat template,
elsewhere nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import uuid4

from palam.errors import PalamError
from palam.models.encoder_text import source_language
from palam.models.modeling import PalamModel
from palam.models.processing import TEXT_SLOT, PalamProcessor
from palam.models.task_record import text_alone
from palam.models.template import CHAT_OPTIONS, Template, clean
from palam.models.tokenization import JoinedTokenization, Part, PlainText
from palam.serving.errors import RequestError
from palam.utils.languages import find_language

ASSISTANT = "assistant"
INSTRUCTING_ROLES = ("system", "developer")
"""Roles whose messages instruct the LLM, which reads them itself."""


@dataclass(frozen=True)
class ContentPart:
    """A piece of a message."""

    text: str
    is_foreign: bool = False
    """Whether the encoder reads it."""
    language: str | None = None
    """Of a foreign text; None is the encoder's own default."""


@dataclass(frozen=True)
class Message:
    """A turn of a conversation."""

    role: str
    parts: tuple[ContentPart, ...]
    is_plain: bool = False
    """It was given as one string, which is its one part."""


class Prompt(NamedTuple):
    """What both models read for one answer."""

    input_ids: list[int]
    """The LLM's, with `TEXT_SLOT` where a mapped text and its boundary stand."""
    texts: list[list[int]]
    """The encoder's ids of each mapped text, in order."""
    cut_texts: int
    """How many texts were longer than the bridge reads, and are cut."""
    longest_text: int
    """Tokens of the longest text before it was cut."""

    @property
    def length(self) -> int:
        """Positions of the LLM."""
        return len(self.input_ids) + sum(map(len, self.texts))

    def without_texts(self) -> "Prompt":
        """What the LLM reads where the mapped texts are left out, each with its boundary."""
        around = [token for token in self.input_ids if token != TEXT_SLOT]
        return self._replace(input_ids=around, texts=[])


class MeasuredText(NamedTuple):
    """How long a text is."""

    tokens: int
    """For the encoder, if it is not cut."""
    is_cut: bool
    """Whether it is longer than the bridge reads."""


class _ForeignText(NamedTuple):
    """Stands among the strings where a text is mapped."""

    text: str
    language: str | None


class _Ids(NamedTuple):
    """Stands among the strings for ids that are known."""

    ids: list[int]


_Piece = Part | _ForeignText | _Ids


class PromptBuilder:
    """Builds prompts of one bridge.

    Args:
        model: with the bridge.
    """

    def __init__(self, model: PalamModel) -> None:
        self.model = model
        self.processor: PalamProcessor = model.processor
        self._plain_text = PlainText(self.processor.llm_tokenizer)
        self._task = model.config.trained_task

    # ------------------------------------------------------------------ texts
    def check_language(self, language: str | None) -> None:
        """Refuse a language that nobody knows, or that the encoder does not.

        Raises:
            RequestError: it is so.
        """
        if language is None:
            return
        tokenizer = self.processor.encoder_tokenizer
        if hasattr(tokenizer, "src_lang"):
            try:
                source_language(tokenizer, language)
            except PalamError:
                raise RequestError(
                    "the encoder does not know this language; give one of its own codes",
                    param="language",
                    code="unknown_language",
                ) from None
        elif find_language(language) is None:
            raise RequestError(
                "this language is unknown; give a code such as si or sin_Sinh",
                param="language",
                code="unknown_language",
            )

    def alone(self, text: str) -> str:
        """What the encoder reads of a text that is given alone; see [`text_alone`]."""
        return text_alone(self._task, text)

    def measure(self, text: str) -> MeasuredText:
        """How long a text is, and whether it is cut."""
        text = clean(text)
        encoded = self.processor.encoder_tokenizer(text, split_special_tokens=True)
        tokens = len(encoded["input_ids"])
        if self.model.config.llm_only:
            return MeasuredText(tokens, self.processor.llm_tokens.is_cut(text))
        return MeasuredText(tokens, tokens > self.processor.max_length)

    # ------------------------------------------------------------------ prompts
    def build(self, messages: Sequence[Message], language: str | None = None) -> Prompt:
        """The prompt of a conversation.

        Args:
            messages: one at least; the last is not the assistant's.
            language: of plain messages.

        Raises:
            RequestError: a language that is not known, or roles that the chat template refuses.
        """
        languages = {language}
        languages.update(part.language for message in messages for part in message.parts)
        for code in languages:
            self.check_language(code)
        if len(messages) == 1 and messages[0].is_plain and messages[0].role == "user":
            return self.own_prompt(messages[0].parts[0].text, language)
        if self.processor.template.mode == "chat":
            pieces = self._chat_pieces(messages, language)
        else:
            pieces = self._joined_pieces(messages, language)
        return self._tokenized(pieces)

    def own_prompt(self, text: str, language: str | None = None) -> Prompt:
        """One text in the bridge's template, as `palam generate` reads it."""
        text = self.alone(text)
        (features,) = self.processor.features(
            [text], languages=[language], llm_only=self.model.config.llm_only, count=False
        )
        encoder_ids = features.get("encoder_input_ids")
        texts = [] if encoder_ids is None else [list(encoder_ids)]
        measured = self.measure(text)
        return Prompt(features["input_ids"], texts, int(measured.is_cut), measured.tokens)

    # ------------------------------------------------------------------ messages
    def _content(self, message: Message, language: str | None) -> list[_Piece]:
        """A message's content without what stands around messages."""
        if message.is_plain and message.role == "user":
            before, after = self._frame
            text = self._foreign(self.alone(message.parts[0].text), language)
            return [Part(before, control=True), *text, Part(after, control=True)]
        content: list[_Piece] = []
        for part in message.parts:
            if part.is_foreign:
                content += self._foreign(part.text, part.language)
            else:
                content.append(Part(clean(part.text)))
        return content

    def _foreign(self, text: str, language: str | None) -> list[_Piece]:
        text = clean(text)
        if self.model.config.llm_only:
            return [Part(text)]
        mapped = _ForeignText(text, language)
        return [mapped, Part(text)] if self.processor.append_source_tokens else [mapped]

    @cached_property
    def _frame(self) -> tuple[str, str]:
        """What the bridge's template has before and after a text within a message."""
        template = self.processor.template
        if template.mode != "chat":
            return template.prefix, template.suffix
        bare = template.with_prompt("chat", None, self.processor.llm_tokenizer)
        same_chat = template.prefix.startswith(bare.prefix) and template.suffix.endswith(
            bare.suffix
        )
        if not same_chat:  # the chat template writes today's date, or another one was used
            return "", ""
        before = template.prefix.removeprefix(bare.prefix)
        return before, template.suffix.removesuffix(bare.suffix)

    def _joined_pieces(self, messages: Sequence[Message], language: str | None) -> list[_Piece]:
        """Messages one after the other; an answer ends as it does in training."""
        pieces: list[_Piece] = []
        for message in messages:
            if message.role == ASSISTANT:
                answer = "".join(part.text for part in message.parts)
                pieces.append(_Ids(self.processor.answer_ids(answer)))
                continue
            pieces += self._content(message, language)
            if message.role in INSTRUCTING_ROLES:
                pieces.append(Part("\n"))
        return pieces

    def _chat_pieces(self, messages: Sequence[Message], language: str | None) -> list[_Piece]:
        """Messages in the LLM's chat template, up to where the answer stands."""
        marks = [f"[message {uuid4().hex}]" for _ in messages]
        turns = []
        for message, mark in zip(messages, marks, strict=True):
            role = "system" if message.role in INSTRUCTING_ROLES else message.role
            turns.append({"role": role, "content": mark})
        template = self.processor.template
        if template.system_prompt is not None and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": template.system_prompt})
        rendered = _rendered_before_answer(self.processor.llm_tokenizer, turns, template)
        pieces: list[_Piece] = []
        for message, mark in zip(messages, marks, strict=True):
            before, separator, rendered = rendered.partition(mark)
            if not separator:
                raise _refused_by_template()
            pieces.append(Part(before, control=True))
            pieces += self._content(message, language)
        return [*pieces, Part(rendered, control=True)]

    # ------------------------------------------------------------------ ids
    def _tokenized(self, pieces: Sequence[_Piece]) -> Prompt:
        """The prompt of strings, of which those between two mapped texts are one string."""
        ids: list[int] = []
        texts: list[list[int]] = []
        measured: list[MeasuredText] = []
        run: list[Part] = []
        for piece in _without_last_spaces(pieces):
            if isinstance(piece, Part):
                run.append(piece)
                continue
            ids = self._continued(ids, run)
            run = []
            if isinstance(piece, _Ids):
                ids += piece.ids
                continue
            ids.append(TEXT_SLOT)
            measured.append(self.measure(piece.text))
            (features,) = self.processor.encode_texts([piece.text], [piece.language], count=False)
            texts.append(list(features["input_ids"]))
        return Prompt(
            self._continued(ids, run),
            texts,
            cut_texts=sum(text.is_cut for text in measured),
            longest_text=max((text.tokens for text in measured), default=0),
        )

    def _continued(self, ids: list[int], run: Sequence[Part]) -> list[int]:
        """Ids with those of a string after them; at the front with what a text begins with."""
        first = [] if ids else self._first_ids
        new = self._encode(run, continuation=bool(ids))
        if new[: len(first)] == first:
            first = []
        return [*ids, *first, *new]

    def _encode(self, run: Sequence[Part], *, continuation: bool) -> list[int]:
        tokens = self.processor.llm_tokens
        if isinstance(tokens, JoinedTokenization):
            return tokens.encode(run, continuation=continuation)
        ids: list[int] = []
        for part in run:  # as bridges of before 0.1.0 were trained
            ids += self._plain_text.ids(part.text, split_special_tokens=not part.control)
        return ids

    @cached_property
    def _first_ids(self) -> list[int]:
        """What the LLM's sequence begins with: BOS with most, but not in a chat that writes it."""
        if not isinstance(self.processor.llm_tokens, JoinedTokenization):
            bos = self.processor.llm_tokenizer.bos_token_id
            return [] if bos is None else [bos]
        return [] if self.processor.template.mode == "chat" else self._plain_text.frame()[0]


def _without_last_spaces(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Pieces without the spaces at the very end: they belong to the answer's first word."""
    trimmed = list(pieces)
    while trimmed:
        last = trimmed[-1]
        if not isinstance(last, Part):
            break
        trimmed.pop()
        text = last.text.rstrip(" ")
        if text:
            return [*trimmed, Part(text, last.control)]
    return trimmed


def _rendered_before_answer(tokenizer: Any, turns: list[dict[str, str]], template: Template) -> str:
    """A chat up to where the assistant's answer stands, as [`Template.build`] finds it.

    Raises:
        RequestError: the chat template refuses these turns.
    """
    options: Mapping[str, Any] = {**CHAT_OPTIONS, **template.chat_template_options}
    mark = f"[answer {uuid4().hex}]"
    try:
        answered = [*turns, {"role": ASSISTANT, "content": mark}]
        rendered: str = tokenizer.apply_chat_template(answered, tokenize=False, **options)
        before, separator, _ = rendered.rpartition(mark)
        if separator and _in_order(before, turns):
            return before
    except Exception:  # a template raises what it likes
        pass
    try:
        rendered = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, **options
        )
    except Exception:
        raise _refused_by_template() from None
    return rendered


def _in_order(rendered: str, turns: Sequence[Mapping[str, str]]) -> bool:
    """Whether a rendered chat holds what each turn says, one after the other."""
    places = [rendered.find(turn["content"]) for turn in turns]
    return places[0] >= 0 and all(before < after for before, after in pairwise(places))


def _refused_by_template() -> RequestError:
    return RequestError(
        "the LLM's chat template does not take these messages in this order; most take turns of "
        "user and assistant, some no system message",
        param="messages",
    )
