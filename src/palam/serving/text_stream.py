"""From token ids, as they come, to the text that is certain so far.

What is sent piece by piece is what the whole answer is: a character whose bytes are not all there,
white space that may be the answer's end, and what may become a stop string are held back.
"""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
"""What a decoder writes for bytes that are no character, or none yet."""


class TextStream:
    """The text of one answer.

    Args:
        decode: ids as text, without special tokens and with white space as it is.
        stops: texts at which the answer ends; they are not part of it.

    Attributes:
        stopped: whether a stop string has come.
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = ()) -> None:
        self.stopped = False
        self._decode = decode
        self._stops = [stop for stop in stops if stop]
        self._ids: list[int] = []
        self._window = 0  # the decoder sees ids from here on: it needs a few before the new ones
        self._decoded = 0  # ids whose text stands in `_text`
        self._text = ""
        self._sent = 0  # characters of `_text` that were given out, or skipped at the front
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """All that was given out."""
        return "".join(self._pieces)

    def push(self, token_id: int) -> str:
        """Take one more id; returns the text that has become certain, often nothing."""
        self._ids.append(token_id)
        self._decode_new(hold_incomplete=True)
        return self._give_out(self._certain_length())

    def finish(self) -> str:
        """The rest of the text, when no id follows."""
        if not self.stopped:
            self._decode_new(hold_incomplete=False)
        return self._give_out(len(self._text.rstrip()))

    def _decode_new(self, *, hold_incomplete: bool) -> None:
        """Add the text of new ids."""
        before = self._decode(self._ids[self._window : self._decoded])
        after = self._decode(self._ids[self._window :])
        if hold_incomplete and after.endswith(REPLACEMENT):
            return
        searched_from = max(0, len(self._text) - max(map(len, self._stops), default=0))
        self._text += after[len(before) :]
        self._window = self._decoded
        self._decoded = len(self._ids)
        places = [self._text.find(stop, searched_from) for stop in self._stops]
        places = [place for place in places if place >= 0]
        if places:
            self._text = self._text[: min(places)]
            self.stopped = True

    def _certain_length(self) -> int:
        """How many characters stay what they are, whatever follows."""
        text = self._text
        length = len(text.rstrip())
        if self.stopped:
            return length
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(text)), 0, -1):
                if text.endswith(stop[:size]):
                    length = min(length, len(text) - size)
                    break
        return len(text[:length].rstrip())

    def _give_out(self, end: int) -> str:
        piece = self._text[self._sent : end]
        if not self._pieces:
            piece = piece.lstrip()
        if not piece:
            return ""
        self._sent = end
        self._pieces.append(piece)
        return piece
