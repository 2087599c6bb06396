"""Printing an answer while it is made."""

from transformers import TextStreamer


class AnswerStreamer(TextStreamer):
    """Prints an answer as it comes, without the space in front that an answer begins with."""

    has_begun = False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print the next words."""
        if not self.has_begun:
            text = text.lstrip()
            self.has_begun = bool(text)
        super().on_finalized_text(text, stream_end)
