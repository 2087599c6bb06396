"""Printing an answer while it is made."""

import sys

from transformers import TextStreamer

from palam.cli._output import print_text
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
