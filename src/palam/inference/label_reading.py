"""A batch of texts and what the LLM finds of labels after it, in the way that it reads them right.

The LLM reads each text once; its last logits give the first token of every label, and the later
tokens continue from its cache: several labels packed side by side in one row where the LLM keeps
them apart, one after the other elsewhere. Where its cache is not exact, every text is read again
with each label.
"""

import copy
from collections.abc import Callable, Sequence

from torch import Tensor
from transformers import BatchFeature

from palam.errors import PalamError
from palam.inference.answers import Answer, spread
from palam.inference.cached_prefix import NO_PREFIX, CachedPrefix
from palam.inference.continuation import MAX_TREE_TOKENS, AnswerReader, ReadTexts
from palam.inference.exactness import Exactness, agrees
from palam.inference.finite import check_scores
from palam.models.llm_cache import cache_of
from palam.models.modeling import PalamModel

MAX_PACKED_TOKENS = 8
"""Label tokens in one call of the LLM: bounds their logits, each as wide as the vocabulary."""
COMPARED_LABELS = 8
"""How many labels are read in two ways to compare them, at most."""

LaterScores = Callable[[ReadTexts, Sequence[Answer]], Tensor]
"""Gives Σ log P of each answer's tokens after its first, [batch, answers]."""


class LabelReading:
    """Reads batches of texts, and scores labels after them.

    Args:
        model: whose LLM reads.
        exactness: how its LLM may read. Whether labels may be packed is found out, and noted there,
            with the first batch that they fit beside.
        longest_answer: tokens of the longest label that is ever scored.
    """

    def __init__(self, model: PalamModel, exactness: Exactness, longest_answer: int) -> None:
        self.model = model
        self.exactness = exactness
        self._longest_answer = longest_answer
        self._reader = AnswerReader(model)

    # ------------------------------------------------------------------ texts
    def read_texts(
        self,
        batch: BatchFeature,
        prefix: CachedPrefix = NO_PREFIX,
        *,
        use_cache: bool = True,
    ) -> ReadTexts:
        """Let the LLM read padded texts, after a prefix if there is one.

        Raises:
            PalamError: they leave the longest label no room in the LLM's table of positions.
        """
        inputs = self.model.llm_inputs(**batch)
        self._check_length(prefix.tokens + inputs.inputs_embeds.shape[1])
        cache = None
        if prefix.tokens:
            cache = prefix.cache_for(inputs)
            inputs = prefix.before(inputs)
        output = self.model.run_llm(inputs.copied(), 1, use_cache=use_cache, cache=cache)
        logits = output.logits[:, -1].float()
        return ReadTexts(
            inputs=inputs,
            first_logprobs=logits.log_softmax(-1),
            cache=cache_of(output) if use_cache else None,
        )

    def _check_length(self, text_tokens: int) -> None:
        most = self.model.processor.llm_positions
        longest = self._longest_answer
        if most is not None and text_tokens + longest - 1 > most:
            raise PalamError(
                f"the LLM has {most} positions; a text with its prompt takes {text_tokens}, the "
                f"longest label {longest}; shorten the labels or the prompt, or lower max_length"
            )

    # ------------------------------------------------------------------ scores
    def score_batch(
        self,
        batch: BatchFeature,
        answers: Sequence[Answer],
        prefix: CachedPrefix = NO_PREFIX,
    ) -> Tensor:
        """Scores [batch, answers] of padded texts without answers and without a cached prefix.

        Raises:
            PalamError: texts that are too long, or scores that are not finite.
        """
        read = self.read_texts(batch, prefix, use_cache=bool(self.exactness.cache))
        scores = self.score_read(read, answers, self._score_later)
        check_scores(self.model, batch, scores)
        return scores

    def score_read(self, read: ReadTexts, answers: Sequence[Answer], later: LaterScores) -> Tensor:
        """Scores [batch, answers] of texts that were read.

        Args:
            read: the texts.
            answers: what is scored.
            later: scores the tokens after the first of those answers that have more than one.
        """
        first_ids = [answer[0] for answer in answers]
        scores = read.first_logprobs[:, first_ids]
        longer = [index for index, answer in enumerate(answers) if len(answer) > 1]
        if longer:
            scores[:, longer] += later(read, [answers[index] for index in longer])
        return scores

    # ------------------------------------------------------------------ the later tokens
    def score_packed(self, read: ReadTexts, answers: Sequence[Answer]) -> Tensor:
        """See [`LaterScores`]: with several answers side by side in a row. The cache grows."""
        return self._reader.score_packed(read, answers, MAX_PACKED_TOKENS)

    def score_sequentially(self, read: ReadTexts, answers: Sequence[Answer]) -> Tensor:
        """See [`LaterScores`]: each answer after a copy of the cache."""
        return self._reader.score_sequentially(
            read, answers, one_token_at_a_time=self.exactness.one_token_at_a_time
        )

    def score_whole_sequences(self, read: ReadTexts, answers: Sequence[Answer]) -> Tensor:
        """See [`LaterScores`]: without a cache, each text is read again with each answer."""
        return self._reader.score_whole_sequences(read, answers)

    def fits_packed(self, read: ReadTexts, answers: Sequence[Answer]) -> bool:
        """Whether all that a row would hold fits the LLM's windows."""
        tokens = sum(len(answer) for answer in answers)
        longest = max(len(answer) for answer in answers)
        width = read.width + min(tokens, MAX_TREE_TOKENS + longest)
        config = self.model.llm.config.get_text_config()
        for name in ("sliding_window", "attention_chunk_size"):
            window = getattr(config, name, None)
            if window and width >= window:
                return False
        return True

    def _score_later(self, read: ReadTexts, answers: Sequence[Answer]) -> Tensor:
        """See [`LaterScores`]: in the fastest way that is right.

        Not every LLM takes a mask that lets tokens of one row not see each other. The first batch
        that fits is scored both ways, which shows whether this one does.
        """
        if read.cache is None:
            return self.score_whole_sequences(read, answers)
        if self.exactness.packing is False or not self.fits_packed(read, answers):
            return self.score_sequentially(read, answers)
        if self.exactness.packing is None:
            self._compare_packed(read, spread(answers, COMPARED_LABELS))
        if self.exactness.packing:
            return self.score_packed(read, answers)
        return self.score_sequentially(read, answers)

    def _compare_packed(self, read: ReadTexts, answers: Sequence[Answer]) -> None:
        """Find out whether packing gives what one answer after the other gives."""
        expected = self.score_sequentially(read, answers)
        trial = read._replace(cache=copy.deepcopy(read.cache))
        self.exactness.packing = agrees(
            self.model.llm, lambda: self.score_packed(trial, answers), expected
        )
