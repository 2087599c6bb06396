"""How an LLM may read labels, found out on the first texts.

What it gives from its cache, packed or padded, is compared with one plain reading: each text alone
with each label behind it, without padding and without a cache.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import BatchFeature

from palam.errors import PalamError
from palam.inference.answers import Answer, spread
from palam.inference.batches import Features, text_length
from palam.inference.exactness import agrees, raise_if_out_of_memory
from palam.inference.finite import check_scores
from palam.inference.label_reading import COMPARED_LABELS, LabelReading
from palam.models.backbones.loading import LIBRARY_ERRORS
from palam.models.processing import PalamProcessor
from palam.utils.texts import first_line

COMPARED_TOKENS = 4096
"""How many tokens of a text with its labels are read plainly; two labels are always."""
SURELY_ALIKE_TOKENS = 256
"""Up to this length, no text is so much longer than one that was compared as to need it again."""


class ReadingComparison:
    """Fills in what is not known yet of a [`LabelReading`]'s [`Exactness`].

    Args:
        reading: of the model.
        processor: pads the texts.
        answers: all that is scored.
    """

    def __init__(
        self, reading: LabelReading, processor: PalamProcessor, answers: Sequence[Answer]
    ) -> None:
        self.reading = reading
        self.exactness = reading.exactness
        self._llm = reading.model.llm
        self._processor = processor
        self._answers = answers

    def compare(self, features: Sequence[Features]) -> None:
        """Compare on the shortest and the longest of texts, if they are of a new kind.

        Raises:
            PalamError: the LLM cannot score labels at all, or gives numbers that are not finite.
            Exception: memory that did not suffice; nothing is known then that was not before.
        """
        by_length = sorted(features, key=text_length)
        if not by_length or not self._are_new(by_length):
            return
        known = replace(self.exactness)
        try:
            self._compare_with_plain(by_length)
        except Exception:  # such as memory that did not suffice: it tells nothing of the LLM
            self.exactness.set_to(known)
            raise

    def _are_new(self, by_length: Sequence[Features]) -> bool:
        """Whether these texts, the shortest first, are of a kind that was not compared yet."""
        exactness = self.exactness
        if exactness.cache is None:
            return True
        if not exactness.compared_length:  # what is known is the caller's
            return False
        if len(by_length) > 1 and exactness.padding is None:
            return True
        return _llm_length(by_length[-1]) > exactness.compared_length

    def _compare_with_plain(self, by_length: Sequence[Features]) -> None:
        reading = self.reading
        probes = [by_length[0], by_length[-1]] if len(by_length) > 1 else by_length
        length = _llm_length(by_length[-1])
        num_labels = max(2, COMPARED_TOKENS // max(1, length))
        answers = spread(self._answers, min(COMPARED_LABELS, num_labels))
        expected = self._score_plainly(probes, answers)
        self.exactness.compared_length = max(2 * length, SURELY_ALIKE_TOKENS)
        batch = self._processor.pad(probes)
        if self.exactness.cache is not False:
            self._compare_cached(batch, answers, expected)
        if len(probes) > 1:
            self.exactness.padding = self.exactness.cache or agrees(
                self._llm,
                lambda: reading.score_read(
                    reading.read_texts(batch, use_cache=False),
                    answers,
                    reading.score_whole_sequences,
                ),
                expected,
            )

    def _score_plainly(self, probes: Sequence[Features], answers: Sequence[Answer]) -> Tensor:
        """Scores [probes, answers], each text with each answer, without padding or cache.

        Raises:
            PalamError: there are none, or some are not finite.
        """
        scores = []
        try:
            for row in probes:
                batch = self._processor.pad([row])
                read = self.reading.read_texts(batch, use_cache=False)
                own = self.reading.score_read(read, answers, self.reading.score_whole_sequences)
                check_scores(self.reading.model, batch, own)
                scores.append(own)
        except PalamError:
            raise
        except LIBRARY_ERRORS as error:
            raise_if_out_of_memory(error)
            name = str(self._llm.name_or_path or type(self._llm).__name__)
            reason = first_line(error)
            raise PalamError(f"LLM {name!r} cannot score labels: {reason}") from None
        return torch.cat(scores)

    def _compare_cached(
        self, batch: BatchFeature, answers: Sequence[Answer], expected: Tensor
    ) -> None:
        """Find out whether the cache, and packing after it, give the expected scores.

        Args:
            batch: the texts, padded.
            answers: what is scored.
            expected: scores [batch, answers].
        """
        reading = self.reading
        exactness = self.exactness
        exactness.cache = False
        try:
            read = reading.read_texts(batch)
        except LIBRARY_ERRORS as error:
            raise_if_out_of_memory(error)
            return
        if read.cache is None:
            return
        for one_token_at_a_time in (False, True):
            exactness.one_token_at_a_time = one_token_at_a_time
            exactness.cache = agrees(
                self._llm,
                lambda: reading.score_read(read, answers, reading.score_sequentially),
                expected,
            )
            if exactness.cache:
                break
        if not exactness.cache or exactness.one_token_at_a_time:
            exactness.packing = False
        elif exactness.packing is not False and reading.fits_packed(read, answers):
            exactness.packing = agrees(
                self._llm,
                lambda: reading.score_read(read, answers, reading.score_packed),
                expected,
            )


def _llm_length(row: Features) -> int:
    """About how many tokens the LLM reads of a text, with what stands around it."""
    return len(row["input_ids"]) + len(row.get("encoder_input_ids", ()))
