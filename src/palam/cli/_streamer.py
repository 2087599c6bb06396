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
        """Print the next words."""
        if not self.has_begun:
            text = text.lstrip()
            self.has_begun = bool(text)
        text = printable_answer(text)
        print_text(f"{text}\n" if stream_end else text)


def printable_answer(text: str) -> str:
    """Words of an answer; on a terminal, without what it would obey."""
    if sys.stdout is None or not sys.stdout.isatty():
        return text
    return "\n".join(printable(line) for line in text.split("\n"))


def print_answer(model: PalamModel, chunk: Chunk, work: Answering) -> None:
    """Print the answer to one text, and tell if there is none.

    It is printed while it is made, but for the best of several, which is known at the end.

    Args:
        model: it is asked as the work says.
        chunk: of the text alone.
        work: how it is answered.
    """
    work.set_template(model.processor, model.config)
    work = work.guided(model)
    if work.best_of != 1:
        [row] = work.on(model).read(chunk.texts, chunk.languages)
        print_text(f"{printable_answer(row['answer'])}\n")
        tell_of_empty_answers(int(not row["answer"]), 1, model.config.trained_task)
        return
    llm_only = not work.uses_encoder(model.config)
    inputs = model.processor(chunk.texts, languages=chunk.languages, llm_only=llm_only)
    streamer = AnswerStreamer(model.processor.llm_tokenizer, skip_special_tokens=True)
    set_seed(work.seed)
    if model.token_engine is None:
        model.generate(**inputs, streamer=streamer, **work.decoding())
    else:
        stream_answer(model, inputs, decoding_of(model, work.decoding()), streamer)
    tell_of_empty_answers(int(not streamer.has_begun), 1, model.config.trained_task)
