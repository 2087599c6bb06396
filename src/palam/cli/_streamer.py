"""Printing an answer while it is made."""

import sys

from transformers import TextStreamer, set_seed

from palam.cli._output import print_text
from palam.cli._source import Chunk
from palam.cli._text_notes import tell_of_empty_answers
from palam.inference.engine_generation import decoding_of, stream_answer
from palam.models.modeling import PalamModel
from palam.scale.work import Answering
from palam.utils.texts import printable


class AnswerStreamer(TextStreamer):
    """Prints an answer as it comes, without the space in front that an answer begins with."""

    has_begun = False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print the next words; on a terminal, without what it would obey."""
        if not self.has_begun:
            text = text.lstrip()
            self.has_begun = bool(text)
        if sys.stdout is not None and sys.stdout.isatty():
            text = "\n".join(printable(line) for line in text.split("\n"))
        print_text(f"{text}\n" if stream_end else text)


def print_answer(model: PalamModel, chunk: Chunk, work: Answering) -> None:
    """Print the answer to one text while it is made, and tell if there is none.

    Args:
        model: it is asked as the work says.
        chunk: of the text alone.
        work: how it is answered.
    """
    work.set_template(model.processor, model.config)
    work = work.guided(model)
    llm_only = not work.uses_encoder(model.config)
    inputs = model.processor(chunk.texts, languages=chunk.languages, llm_only=llm_only)
    streamer = AnswerStreamer(model.processor.llm_tokenizer, skip_special_tokens=True)
    set_seed(work.seed)
    if model.token_engine is None:
        model.generate(**inputs, streamer=streamer, **work.decoding())
    else:
        stream_answer(model, inputs, decoding_of(model, work.decoding()), streamer)
    tell_of_empty_answers(int(not streamer.has_begun), 1, model.config.task)
