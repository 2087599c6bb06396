"""What a user should know of how the texts were read: cut, unknown to the encoder, no Unicode."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from palam.cli._source import Chunk
from palam.scale.bridge import Bridge
from palam.utils.languages import language_name
from palam.utils.legacy_encoding import legacy_encoding
from palam.utils.notes import tell
from palam.utils.texts import printable

if TYPE_CHECKING:
    from palam.models.processing import TextStats
    from palam.models.task_record import TaskRecord

UNKNOWN_SHARE = 0.05
"""From this share of unknown tokens on, a language is told of."""


class EncodingWatch:
    """Tells once of each kind of texts that are plainly not in Unicode."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def look_at(self, chunk: Chunk) -> None:
        """Tell of a chunk's texts what was not told of earlier ones."""
        for language in dict.fromkeys(chunk.languages):
            pairs = zip(chunk.texts, chunk.languages, strict=True)
            texts = [text for text, other in pairs if other == language]
            note = legacy_encoding(texts, language)
            if note is not None and note not in self._told:
                self._told.add(note)
                tell(note)


def tell_of_empty_answers(num_empty: int, num_answers: int, task: "TaskRecord | None") -> None:
    """Tell that the LLM has said nothing, and why that may be.

    Args:
        num_empty: answers without a word.
        num_answers: of all texts.
        task: that the bridge was trained for, if any.
    """
    if not num_empty:
        return
    note = f"{num_empty:,} of {num_answers:,} answers are empty"
    if task is not None:
        note += (
            f"; this bridge was trained to name the labels of {printable(task.name)} and may "
            "have nothing else to say: use palam classify, or a bridge trained on raw text"
        )
    tell(note)


def tell_what_was_lost(bridge: Bridge) -> None:
    """Tell how many texts were cut so far, and in which languages much was unknown."""
    processor = bridge.processor
    _tell_cuts(processor.stats.values(), processor.max_length, "tokens")
    if processor.llm_stats:
        limit = processor.llm_tokens.max_length
        _tell_cuts(processor.llm_stats.values(), limit, "tokens of the LLM")
    _tell_unknown(processor.stats)


def _tell_cuts(stats: Iterable["TextStats"], limit: int, unit: str) -> None:
    num_texts = 0
    num_cut = 0
    for counts in stats:
        num_texts += counts.texts
        num_cut += counts.cut
    if num_cut:
        verb = "was" if num_cut == 1 else "were"
        tell(
            f"{num_cut:,} of {num_texts:,} texts {verb} longer than {limit:,} {unit} "
            f"and {verb} cut there"
        )


def _tell_unknown(stats: Mapping[str, "TextStats"]) -> None:
    for code, counts in stats.items():
        if counts.unknown_share <= UNKNOWN_SHARE:
            continue
        language = f" in {language_name(code)} ({printable(code)})" if code else ""
        tell(
            f"{counts.unknown_share:.0%} of the tokens of the texts{language} are unknown to the "
            "encoder, which cannot read what is written with them"
        )
