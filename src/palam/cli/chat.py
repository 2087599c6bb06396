"""`palam chat`."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from palam.cli._engine import check_engine
from palam.cli._languages import check_given_language
from palam.cli._options import (
    ENGINE_LOADING_DEFAULTS,
    ConfigFile,
    EngineLoadingOptions,
    GuidanceScale,
    load_model,
)
from palam.cli._source import Chunk, SourceConfig, one_text
from palam.cli._text_notes import EncodingWatch, tell_what_was_lost
from palam.errors import PalamError
from palam.models.guidance_scale import NO_GUIDANCE
from palam.models.template import SLOT
from palam.scale.work import Answering
from palam.starter.sources import BRIDGE
from palam.tasks.decoding import decoded_lines

if TYPE_CHECKING:
    from palam.models.modeling import PalamModel

NEW_TEXT = "/text"
QUIT = "/quit"
TEXT_PROMPT = "text> "
MORE_TEXT_PROMPT = "    > "
QUESTION_PROMPT = "ask> "
TEXT_HELP = f"Paste a text in any language and end it with an empty line; {QUIT} ends."
QUESTION_HELP = f"Ask about it in English, a question a line; {NEW_TEXT} takes another text."
UNENDED = "no empty line ended the text, so that no question was read; put one after each text"
UNASKED = "no question came after the text; ask in the lines behind its empty line"

ReadLine = Callable[[str], str | None]
"""Gives the next line without its end, after a prompt on a terminal; None where there is none."""


class NothingAsked(PalamError):
    """The input ended where questions about a text were to come."""


def chat(
    checkpoint: Annotated[str, Parameter(help="A bridge: folder, hub id or starter:bridge.")] = (
        BRIDGE
    ),
    /,
    *,
    language: str | None = None,
    max_new_tokens: PositiveInt = 64,
    no_repeat_ngram_size: NonNegativeInt | None = None,
    guidance_scale: GuidanceScale = NO_GUIDANCE,
    config: ConfigFile = None,
    loading: EngineLoadingOptions = ENGINE_LOADING_DEFAULTS,
) -> None:
    """Ask about texts in the terminal.

    Paste a text in any language, end it with an empty line, and ask about it in English. Each
    question is about the text alone: earlier questions and answers are not remembered. /text takes
    another text; /quit or Ctrl-D ends. Without a terminal the same lines are read from standard
    input, and the answers alone are printed.

    Args:
        language: Language of the texts, e.g. si or sin_Sinh; NLLB-style encoders need it.
        max_new_tokens: Most tokens of an answer.
        no_repeat_ngram_size: No so many tokens in a row are said twice in an answer; 0 is no limit;
            not set is 3, or 0 where the engine or the LLM's class has no such setting.
        guidance_scale: How far an answer keeps to the text, away from what the LLM would say
            without it; 1 is as it comes.
    """
    from palam.inference.generation import SHORT_ANSWER_NGRAM_SIZE

    check_engine(loading.engine, loading.load_in)
    read_line = _line_reader()
    model = load_model(checkpoint, loading)
    if no_repeat_ngram_size is None:
        can_be_set = model.token_engine is None and model.generates_from_vectors
        no_repeat_ngram_size = SHORT_ANSWER_NGRAM_SIZE if can_be_set else 0
    decoding = Answering(
        max_new_tokens=max_new_tokens,
        no_repeat_ngram_size=no_repeat_ngram_size,
        guidance_scale=guidance_scale,
    )
    conversation = Conversation(model, language, decoding)
    _show_help(TEXT_HELP)
    try:
        while (text := _read_text(read_line)) is not None:
            _show_help(QUESTION_HELP)
            if not conversation.answer_questions(text, read_line):
                break
    except NothingAsked as error:
        if not conversation.has_asked:
            raise
        print(f"palam: {error}", file=sys.stderr)


class Conversation:
    """Texts, and questions about each of them.

    Args:
        model: that answers.
        language: of the texts; None is not known.
        decoding: how each question is answered; its prompt does not count.

    Attributes:
        has_asked: whether there was a question about any text.

    Raises:
        PalamError: a language that is not known, or none where the encoder must be told it.
    """

    def __init__(self, model: "PalamModel", language: str | None, decoding: Answering) -> None:
        self.model = model
        self.language = language
        self.decoding = decoding
        self.has_asked = False
        self._encoding_watch = EncodingWatch()
        uses_encoder = Answering().uses_encoder(model.config)
        check_given_language(model, self._source(""), uses_encoder=uses_encoder)

    def answer_questions(self, text: str, read_line: ReadLine) -> bool:
        """Answer questions about a text, until another text is to follow or nothing more comes.

        Returns:
            Whether another text is to follow.

        Raises:
            NothingAsked: the input ended without a question, and was not typed at a terminal.
        """
        source = self._source(text)
        chunk = one_text(source, self.model.config.trained_task)
        self._encoding_watch.look_at(chunk)
        processor = self.model.processor
        processor.stats.clear()
        processor.llm_stats.clear()
        has_told = False
        while (line := read_line(QUESTION_PROMPT)) is not None:
            question = line.strip()
            if question in (NEW_TEXT, QUIT):
                return question == NEW_TEXT
            if not question:
                continue
            self.has_asked = True
            self._answer(question, chunk)
            if not has_told:
                tell_what_was_lost(self.model)
            has_told = True
        if not has_told and not sys.stdin.isatty():
            raise NothingAsked(UNASKED)
        return False

    def _answer(self, question: str, chunk: Chunk) -> None:
        """Print the answer to a question; one that cannot be asked does not end the conversation.

        A question that holds the slot says itself where the text stands.
        """
        from palam.cli._streamer import print_answer

        prompt = question if SLOT in question else f"{SLOT}\n{question}"
        try:
            print_answer(self.model, chunk, replace(self.decoding, prompt=prompt))
        except PalamError as error:
            print(f"palam: {error}", file=sys.stderr)

    def _source(self, text: str) -> SourceConfig:
        return SourceConfig(text=text, language=self.language)


def _read_text(read_line: ReadLine) -> str | None:
    """The lines up to an empty one, as one text; None if there are none, or the user ends.

    Raises:
        NothingAsked: the input ended within a text, and was not typed at a terminal.
    """
    lines: list[str] = []
    while True:
        line = read_line(MORE_TEXT_PROMPT if lines else TEXT_PROMPT)
        if line is None and lines and not sys.stdin.isatty():
            raise NothingAsked(UNENDED)
        if line is None or line.strip() == QUIT:
            return None
        if line.strip() == NEW_TEXT:
            lines.clear()
        elif line.strip():
            lines.append(line)
        elif lines:
            return "\n".join(lines)


def _line_reader() -> ReadLine:
    """What reads lines from the terminal, or from what stands in its place.

    Raises:
        PalamError: standard input is closed.
    """
    if sys.stdin is None:
        raise PalamError("cannot read standard input: it is closed")
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # where there is none, a line has 4,096 bytes
            importlib.import_module("readline")
        return _typed_line
    lines = _piped_lines()
    return lambda prompt: next(lines, None)


def _typed_line(prompt: str) -> str | None:
    try:
        return input(prompt)
    except EOFError:
        print()
        return None


def _piped_lines() -> Iterator[str]:
    """The lines of standard input, as text."""
    stream = getattr(sys.stdin, "buffer", None)
    for line in sys.stdin if stream is None else decoded_lines(stream, "standard input"):
        yield line.rstrip("\r\n")


def _show_help(line: str) -> None:
    """Print a line of help on a terminal."""
    if sys.stdin.isatty():
        print(line, file=sys.stderr)
