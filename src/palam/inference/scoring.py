"""Label scores: how likely the LLM finds each label as the answer to a text.

A label's score is Σ log P of its tokens and the EOS after them. The LLM reads each text once; its
last logits give the first token of every label, and the later tokens continue from its cache:
several labels packed side by side in one row where the LLM keeps them apart, one after the other
elsewhere.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BatchFeature

from palam.errors import PalamError
from palam.models.backbones.loading import LIBRARY_ERRORS
from palam.models.modeling import PalamModel
from palam.models.sequence import LLMInputs

MAX_PACKED_TOKENS = 8
"""Label tokens in one call of the LLM: bounds their logits, each as wide as the vocabulary."""
FULL_BATCH_TOKENS = 256
"""How long a text may be for a batch to hold `batch_size` of them."""
MIN_PREFIX_TOKENS = 64
"""How long a prompt before the text must be to be worth reading once for all texts."""

Progress = Callable[[int], object]
"""Called with the number of texts just read."""
Features = dict[str, Any]
"""One text's unpadded ids, as [`PalamProcessor.features`] gives them."""
Answer = Sequence[int]
"""The ids of a label's tokens and the EOS after them."""


# ---------------------------------------------------------------------- what is passed on
class PaddedBatch(NamedTuple):
    """Texts that are read at a time."""

    rows: list[int]
    """Their places among all texts."""
    inputs: BatchFeature
    """What [`PalamModel`] takes."""


class CachedPrefix(NamedTuple):
    """A prompt before the text, as the LLM has read it."""

    cache: Any
    """The LLM's cache, of one row."""
    tokens: int
    """How many it holds."""

    def cache_for(self, inputs: LLMInputs) -> Any:
        """A copy of the cache, its one row repeated for each row of an input."""
        cache = copy.deepcopy(self.cache)
        rows = len(inputs.attention_mask)
        cache.reorder_cache(inputs.attention_mask.new_zeros(rows))
        return cache

    def before(self, inputs: LLMInputs) -> LLMInputs:
        """An input with its mask over the prefix too, and its positions after it."""
        mask = inputs.attention_mask
        prefix_mask = mask.new_ones(len(mask), self.tokens)
        return replace(
            inputs,
            attention_mask=torch.cat([prefix_mask, mask], 1),
            position_ids=inputs.position_ids + self.tokens,
        )


NO_PREFIX = CachedPrefix(cache=None, tokens=0)


class _ReadTexts(NamedTuple):
    """A batch of texts that the LLM has read."""

    inputs: LLMInputs
    """The mask is over a cached prefix too, and the positions after it."""
    cache: Any
    """The LLM's cache; None if it gave none."""


class _LaterTokens(NamedTuple):
    """The tokens of several answers after the first of each, one answer behind the other."""

    ids: Tensor
    """[tokens], what the LLM reads: each answer without its last token."""
    targets: Tensor
    """[tokens], what follows: each answer without its first token."""
    answer: Tensor
    """[tokens], the number of the answer that a token is of."""
    depth: Tensor
    """[tokens], positions after the text, from 1."""
    answers: int
    """How many there are."""

    @classmethod
    def of(cls, answers: Sequence[Answer], device: torch.device) -> "_LaterTokens":
        """The tokens of answers that have two or more."""
        ids: list[int] = []
        targets: list[int] = []
        numbers: list[int] = []
        depths: list[int] = []
        for number, answer in enumerate(answers):
            later = len(answer) - 1
            ids.extend(answer[:-1])
            targets.extend(answer[1:])
            numbers.extend([number] * later)
            depths.extend(range(1, later + 1))
        fields = torch.tensor([ids, targets, numbers, depths], device=device)
        return cls(
            ids=fields[0],
            targets=fields[1],
            answer=fields[2],
            depth=fields[3],
            answers=len(answers),
        )


# ---------------------------------------------------------------------- scoring
class LabelScorer:
    """Scores the same labels for any number of texts, in one call or in many.

    Whether labels may be packed is found out on the first batch that allows it and holds for all
    later ones, so one scorer should serve all texts with the same labels: the languages of an
    evaluation, the chunks of a file.

    Args:
        model: in evaluation or not; nothing is drawn at random here. The labels are tokenised as
            its template has them now.
        labels: the words of each label.
        llm_only: the LLM reads the text itself instead of through the bridge.
        calibrated: subtract the labels' priors, if the bridge is used and has them for all of these
            labels; see [`measure_priors`].

    Attributes:
        packing_is_exact: whether this LLM scores labels that are packed in one row as it scores
            each alone; None is not known yet. It can be set to what another scorer of the same LLM
            has found.

    Raises:
        PalamError: no label, or an empty one.
    """

    def __init__(
        self,
        model: PalamModel,
        labels: Sequence[str],
        *,
        llm_only: bool = False,
        calibrated: bool = True,
    ) -> None:
        if not labels or not all(labels):
            raise PalamError(f"the labels are {list(labels)}; give at least one, and none empty")
        self.model = model
        self.labels = list(labels)
        self.llm_only = llm_only
        self.calibrated = calibrated
        self.packing_is_exact: bool | None = None
        self._answers: list[Answer] = []
        for label in labels:
            self._answers.append(model.processor.answer_ids(label))

    @torch.no_grad()
    def score(
        self,
        texts: Sequence[str],
        languages: Sequence[str | None] | None = None,
        *,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> Tensor:
        """The log-probability of each label as the answer to each text, less its prior.

        Args:
            texts: any strings, in any order; they are read in order of length and put back.
            languages: one code per text, or None.
            batch_size: texts at a time; of texts longer than 256 tokens fewer, with as many tokens
                as so many of 256.
            progress: called with the number of texts just read.

        Returns:
            Scores [texts, labels] in natural log, fp32 on the CPU.
        """
        model = self.model
        llm_only = self.llm_only or model.config.llm_only
        features = model.processor.features(texts, languages=languages, llm_only=llm_only)
        scores = torch.empty(len(texts), len(self.labels))
        with model.evaluating():
            prefix = self._prefill_prefix(features)
            features = [_without_prefix(row, prefix) for row in features]
            batches = padded_batches(model, features, batch_size, progress, prefix.tokens)
            for batch in batches:
                batch_scores = self._score_batch(batch.inputs, prefix)
                scores[batch.rows] = batch_scores.cpu()
        priors = self._priors()
        return scores if priors is None else scores - priors

    def _priors(self) -> Tensor | None:
        """The labels' priors [labels]; None where there is nothing to subtract."""
        if self.llm_only or not self.calibrated:
            return None
        priors = self.model.config.label_priors
        if not all(label in priors for label in self.labels):
            return None
        return torch.tensor([priors[label] for label in self.labels])

    # ------------------------------------------------------------------ the prompt before the text
    def _prefill_prefix(self, features: Sequence[Features]) -> CachedPrefix:
        """Let the LLM read what stands before every text, such as examples, once for all of them.

        Nothing is cached where that is short, and where the LLM does not then score the shortest
        and the longest text, side by side, as it does otherwise.
        """
        processor = self.model.processor
        ids = processor.prefix_ids()
        ids = ids[:-1]  # the last one stays, so that no row is left empty
        if len(ids) < MIN_PREFIX_TOKENS or len(features) < 3:
            return NO_PREFIX
        by_length = sorted(features, key=_text_length)
        probes = [by_length[0], by_length[-1]]
        expected = self._score_batch(processor.pad(probes))
        try:
            prefix = CachedPrefix(self._read_prefix(ids), len(ids))
            probes = [_without_prefix(row, prefix) for row in probes]
            scores = self._score_batch(processor.pad(probes), prefix)
        except LIBRARY_ERRORS:  # another kind of cache, or none
            return NO_PREFIX
        return prefix if self._scores_agree(scores, expected) else NO_PREFIX

    def _read_prefix(self, ids: Sequence[int]) -> Any:
        """The LLM's cache of one row of ids."""
        device = self.model.device
        row = torch.tensor([ids], device=device)
        positions = torch.arange(len(ids), device=device)
        inputs = LLMInputs(
            inputs_embeds=self.model.embed(row),
            attention_mask=torch.ones_like(row),
            position_ids=positions[None],
            labels=None,
        )
        output = self.model.run_llm(inputs, 1, use_cache=True)
        return _cache_of(output)

    # ------------------------------------------------------------------ a batch
    def _score_batch(self, batch: BatchFeature, prefix: CachedPrefix = NO_PREFIX) -> Tensor:
        """Scores [batch, labels] of padded texts without answers and without a cached prefix."""
        inputs = self.model.llm_inputs(**batch)
        cache = None
        if prefix.tokens:
            cache = prefix.cache_for(inputs)
            inputs = prefix.before(inputs)
        output = self.model.run_llm(inputs, 1, use_cache=True, cache=cache)
        logits = output.logits[:, -1].float()
        first_logprobs: Tensor = logits.log_softmax(-1)
        first_ids = [answer[0] for answer in self._answers]
        scores = first_logprobs[:, first_ids]
        longer = [index for index, answer in enumerate(self._answers) if len(answer) > 1]
        if longer:
            read = _ReadTexts(inputs, _cache_of(output))
            answers = [self._answers[index] for index in longer]
            scores[:, longer] += self._continuation_logprobs(read, answers)
        return scores

    def _continuation_logprobs(self, read: _ReadTexts, answers: Sequence[Answer]) -> Tensor:
        """Σ log P of each answer's tokens after its first [batch, answers].

        Not every LLM takes a mask that lets tokens of one row not see each other. The first batch
        that fits is scored both ways, which shows whether this one does.
        """
        if self.packing_is_exact is False or not self._fits_packed(read, answers):
            return self._score_sequentially(read, answers)
        if self.packing_is_exact:
            return self._score_packed(read, answers)
        expected = self._score_sequentially(read, answers)
        try:
            scores = self._score_packed(read, answers)
        except LIBRARY_ERRORS:
            scores = torch.full_like(expected, torch.nan)
        self.packing_is_exact = self._scores_agree(scores, expected)
        return scores if self.packing_is_exact else expected

    def _fits_packed(self, read: _ReadTexts, answers: Sequence[Answer]) -> bool:
        """Whether there is a cache, and all that a row would hold fits the LLM's windows."""
        if read.cache is None:
            return False
        width = read.inputs.attention_mask.shape[1]
        width += sum(len(answer) for answer in answers)
        config = self.model.llm.config.get_text_config()
        for name in ("sliding_window", "attention_chunk_size"):
            window = getattr(config, name, None)
            if window and width >= window:
                return False
        return True

    def _score_packed(self, read: _ReadTexts, answers: Sequence[Answer]) -> Tensor:
        """`_continuation_logprobs` with several answers side by side in a row. The cache grows."""
        sums = []
        sees = read.inputs.attention_mask.bool()  # [batch, cached]
        for pack in _packs(answers):
            tokens = _LaterTokens.of(pack, self.model.device)
            inputs = self._packed_inputs(read, tokens, sees)
            pack_sums = self._sum_logprobs(inputs, tokens, read.cache)
            sums.append(pack_sums)
            hidden = sees.new_zeros(len(sees), len(tokens.ids))
            sees = torch.cat([sees, hidden], 1)  # later packs do not see this one
        return torch.cat(sums, 1)

    def _score_sequentially(self, read: _ReadTexts, answers: Sequence[Answer]) -> Tensor:
        """`_continuation_logprobs`, each answer after a copy of the cache.

        It is copied since some kinds cannot be cut back. Without a cache the text is read again.
        """
        sums = []
        for answer in answers:
            tokens = _LaterTokens.of([answer], self.model.device)
            inputs = self._appended_inputs(read, tokens)
            cache = copy.deepcopy(read.cache)
            answer_sums = self._sum_logprobs(inputs, tokens, cache)
            sums.append(answer_sums)
        return torch.cat(sums, 1)

    # ------------------------------------------------------------------ one call of the LLM
    def _appended_inputs(self, read: _ReadTexts, tokens: _LaterTokens) -> LLMInputs:
        """One answer after the texts: after their cache, or after themselves if there is none."""
        text = read.inputs
        rows = len(text.attention_mask)
        embeds = self.model.embed(tokens.ids)
        embeds = embeds.to(text.inputs_embeds.dtype).expand(rows, -1, -1)
        positions = text.position_ids[:, -1:] + tokens.depth
        answer_mask = text.attention_mask.new_ones(rows, len(tokens.ids))
        mask = torch.cat([text.attention_mask, answer_mask], 1)
        if read.cache is None:
            embeds = torch.cat([text.inputs_embeds, embeds], 1)
            positions = torch.cat([text.position_ids, positions], 1)
        return LLMInputs(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            labels=None,
        )

    def _packed_inputs(
        self,
        read: _ReadTexts,
        tokens: _LaterTokens,
        sees: Tensor,
    ) -> LLMInputs:
        """Several answers after the texts' cache, that do not see each other.

        Args:
            read: the texts.
            tokens: of the answers.
            sees: [batch, cached], which cached tokens the answers see.
        """
        inputs = self._appended_inputs(read, tokens)
        dtype = inputs.inputs_embeds.dtype
        rows = len(sees)
        count = len(tokens.ids)
        same_answer = tokens.answer[:, None] == tokens.answer
        not_later = tokens.depth[:, None] >= tokens.depth
        sees_answers = same_answer & not_later  # [tokens, tokens]
        visible = torch.cat(
            [
                sees[:, None].expand(-1, count, -1),
                sees_answers.expand(rows, -1, -1),
            ],
            2,
        )
        hidden = ~visible[:, None]  # [batch, 1, tokens, cached and tokens]
        mask = torch.zeros_like(hidden, dtype=dtype)
        mask = mask.masked_fill(hidden, torch.finfo(dtype).min)
        return replace(inputs, attention_mask=mask)

    def _sum_logprobs(
        self,
        inputs: LLMInputs,
        tokens: _LaterTokens,
        cache: Any,
    ) -> Tensor:
        """Σ log P of each answer's later tokens [batch, answers], which end the input."""
        count = len(tokens.targets)
        output = self.model.run_llm(inputs, count, cache=cache, use_cache=cache is not None)
        logprobs = []
        # One position after the other: all at once, it would need copies of all logits.
        for position, target in enumerate(tokens.targets):
            logits = output.logits[:, position].float()
            logprob = logits[:, target] - logits.logsumexp(-1)
            logprobs.append(logprob)
        rows = len(inputs.inputs_embeds)
        sums = torch.zeros(rows, tokens.answers, device=self.model.device)
        return sums.index_add(1, tokens.answer, torch.stack(logprobs, 1))

    def _scores_agree(self, scores: Tensor, expected: Tensor) -> bool:
        """Whether scores [batch, answers] differ by rounding alone.

        In 16 bits there is so much of it that only the mean tells.
        """
        difference = (scores - expected).abs()
        size = expected.abs()
        if self.model.llm.dtype == torch.float32:
            agree = difference <= 1e-3 * size.clamp(min=1)
            return bool(agree.all())
        return bool(difference.mean() <= 2e-2 * size.mean())


def score_labels(
    model: PalamModel,
    texts: Sequence[str],
    labels: Sequence[str],
    languages: Sequence[str | None] | None = None,
    *,
    llm_only: bool = False,
    calibrated: bool = True,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Tensor:
    """The log-probability of each label as the answer to each text, less its prior.

    For many calls with the same labels, one [`LabelScorer`] is faster.

    Args:
        model, labels, llm_only, calibrated: see [`LabelScorer`].
        texts, languages, batch_size, progress: see [`LabelScorer.score`].

    Returns:
        Scores [texts, labels] in natural log, fp32 on the CPU.

    Raises:
        PalamError: no label, or an empty one.
    """
    scorer = LabelScorer(model, labels, llm_only=llm_only, calibrated=calibrated)
    return scorer.score(texts, languages, batch_size=batch_size, progress=progress)


# ---------------------------------------------------------------------- batches and answers
def padded_batches(
    model: PalamModel,
    features: Sequence[Features],
    batch_size: int,
    progress: Progress | None,
    prefix_tokens: int = 0,
) -> Iterator[PaddedBatch]:
    """Padded batches of texts, the longest first.

    Args:
        model: whose processor pads.
        features: of each text.
        batch_size: texts at a time; of texts longer than 256 tokens fewer.
        progress: called with the number of texts after each batch.
        prefix_tokens: how many the LLM has read before each text.
    """
    lengths = [_text_length(row) for row in features]
    places = range(len(features))
    order = sorted(places, key=lambda row: -lengths[row])
    while order:
        longest = prefix_tokens + lengths[order[0]]
        fitting = batch_size * FULL_BATCH_TOKENS // max(1, longest)
        size = max(1, min(batch_size, fitting))
        rows = order[:size]
        order = order[size:]
        inputs = model.processor.pad([features[row] for row in rows])
        yield PaddedBatch(rows, inputs)
        if progress:
            progress(len(rows))


def _text_length(row: Features) -> int:
    """Tokens of a text: the encoder's where it reads it, else the LLM's."""
    name = "encoder_input_ids" if "encoder_input_ids" in row else "input_ids"
    return len(row[name])


def _without_prefix(row: Features, prefix: CachedPrefix) -> Features:
    """A text's features without the tokens that the prefix holds."""
    later_ids = row["input_ids"][prefix.tokens :]
    return {**row, "input_ids": later_ids}


def _packs(answers: Sequence[Answer]) -> Iterator[list[Answer]]:
    """Answers in their order, as many at a time as `MAX_PACKED_TOKENS` allows, one at least."""
    pack: list[Answer] = []
    tokens = 0
    for answer in answers:
        later = len(answer) - 1
        if pack and tokens + later > MAX_PACKED_TOKENS:
            yield pack
            pack = []
            tokens = 0
        pack.append(answer)
        tokens += later
    yield pack


def _cache_of(output: Any) -> Any:
    """The cache in the LLM's output, or None."""
    # transformers' newer releases call it `cache`, and warn of the old name.
    for name in ("cache", "past_key_values"):
        if name in output:
            return output[name]
    return None
