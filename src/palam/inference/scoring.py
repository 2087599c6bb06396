"""Label scores: how likely the LLM finds each label as the answer to a text.

A label's score is Σ log P of its tokens and the EOS after them. The LLM reads each text once; its
last logits give the first token of every label, and the later tokens continue from its cache:
several labels packed side by side in one row where the LLM keeps them apart, one after the other
elsewhere. What an LLM gives so is not taken on trust: it is compared with plain reading, and where
it differs every text is read again with each label.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BatchFeature

from palam.errors import PalamError
from palam.inference.answers import Answer, spread
from palam.inference.batches import Features, text_length
from palam.inference.batches import PaddedBatch as PaddedBatch
from palam.inference.batches import Progress as Progress
from palam.inference.batches import padded_batches as padded_batches
from palam.inference.continuation import MAX_TREE_TOKENS, AnswerReader, ReadTexts
from palam.inference.finite import check_scores
from palam.inference.task_prompt import label_template
from palam.models.backbones.llm import rounds_much
from palam.models.backbones.loading import LIBRARY_ERRORS
from palam.models.finite import check_finite
from palam.models.llm_cache import cache_of
from palam.models.modeling import PalamModel
from palam.models.processing import TEXT_SLOT, PalamProcessor
from palam.models.sequence import LLMInputs
from palam.models.template import Template
from palam.utils.memory import is_out_of_memory
from palam.utils.texts import checked_texts, first_line

MAX_PACKED_TOKENS = 8
"""Label tokens in one call of the LLM: bounds their logits, each as wide as the vocabulary."""
MAX_LABEL_TOKENS = 512
"""How long a label may be."""
MIN_PREFIX_TOKENS = 64
"""How long a prompt before the text must be to be worth reading once for all texts."""
COMPARED_LABELS = 8
"""How many labels are read plainly to compare with, at most."""
COMPARED_TOKENS = 4096
"""How many tokens of a text with its labels are read plainly; two labels are always."""
SURELY_ALIKE_TOKENS = 256
"""Up to this length, no text is so much longer than one that was compared as to need it again."""

LaterScores = Callable[["ReadTexts", Sequence[Answer]], Tensor]
"""Gives Σ log P of each answer's tokens after its first, [batch, answers]."""


# ---------------------------------------------------------------------- what is passed on
class CachedPrefix(NamedTuple):
    """What stands before every text, as the LLM has read it."""

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


# ---------------------------------------------------------------------- scoring
class LabelScorer:
    """Scores the same labels for any number of texts, in one call or in many.

    How this LLM may read labels is found out by comparing, on the shortest and the longest of the
    first texts, with one plain reading: each text alone with each label behind it, without padding
    and without a cache. It holds for all later texts that are not much longer, so one scorer should
    serve all texts with the same labels: the languages of an evaluation, the chunks of a file.

    Args:
        model: in evaluation or not; nothing is drawn at random here. The labels are tokenised as
            its template has them now.
        labels: the words of each label.
        llm_only: the LLM reads the text itself instead of through the bridge.
        calibrated: subtract the labels' priors, if the bridge is used and has them for all of these
            labels; see [`measure_priors`].
        template: what stands around each text; None is the model's own.

    Attributes:
        cache_is_exact: whether this LLM scores the tokens of a label after its cache of the text as
            it scores them after the text itself; None is not known yet. Where it is not, texts are
            read again with each label.
        packing_is_exact: whether it scores labels that are packed in one row as it scores each
            alone; None is not known yet.
        padding_is_exact: whether a text in a batch is scored as it is alone; None is not known yet.
            Where it is not, texts are read one at a time.

        All three can be set to what another scorer of the same LLM has found.

    Raises:
        PalamError: no label, an empty one, one of more than 512 tokens, or two that are the same to
            the LLM.
    """

    def __init__(
        self,
        model: PalamModel,
        labels: Sequence[str],
        *,
        llm_only: bool = False,
        calibrated: bool = True,
        template: Template | None = None,
    ) -> None:
        self.labels = checked_texts(labels, "labels")
        if not self.labels or not all(self.labels):
            raise PalamError(f"the labels are {self.labels}; give at least one, and none empty")
        self.model = model
        self._own_processor = None if template is None else model.processor.with_template(template)
        self.llm_only = llm_only
        self.calibrated = calibrated
        self.cache_is_exact: bool | None = None
        self.packing_is_exact: bool | None = None
        self.padding_is_exact: bool | None = None
        self._one_token_at_a_time = False
        self._reader = AnswerReader(model)
        self._compared_length = 0
        self._answers = _tokenised(self._processor, self.labels)

    @property
    def _processor(self) -> PalamProcessor:
        """The model's, with this scorer's template if it has one."""
        return self._own_processor or self.model.processor

    def read_as(self, other: "LabelScorer") -> None:
        """Read labels as another scorer has found that this LLM may read them.

        Args:
            other: of the same model; its labels may be others, of about the same length.
        """
        self.cache_is_exact = other.cache_is_exact
        self.packing_is_exact = other.packing_is_exact
        self.padding_is_exact = other.padding_is_exact
        self._one_token_at_a_time = other._one_token_at_a_time
        self._compared_length = other._compared_length

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
            Scores [texts, labels] in natural log, fp32 on the CPU; all of them finite.

        Raises:
            PalamError: texts that are no strings, or a score that is not finite: the message names
                the part it comes from.
            RuntimeError: memory does not suffice; a smaller batch needs less.
        """
        texts = checked_texts(texts)
        model = self.model
        llm_only = self.llm_only or model.config.llm_only
        priors = self._priors()
        features = self._processor.features(texts, languages=languages, llm_only=llm_only)
        scores = torch.empty(len(texts), len(self.labels))
        with model.evaluating():
            self._compare_readings(features)
            prefix = self._prefill_prefix(features)
            features = [_without_prefix(row, prefix) for row in features]
            if self.padding_is_exact is False:
                batch_size = 1
            batches = padded_batches(model, features, batch_size, progress, prefix.tokens)
            for batch in batches:
                batch_scores = self._score_batch(batch.inputs, self._answers, prefix)
                scores[batch.rows] = batch_scores.cpu()
        return scores if priors is None else scores - priors

    def _priors(self) -> Tensor | None:
        """The labels' priors [labels]; None where there is nothing to subtract."""
        if self.llm_only or not self.calibrated:
            return None
        priors = self.model.config.label_priors
        if not all(label in priors for label in self.labels):
            return None
        check_finite(priors, "the labels' priors")
        return torch.tensor([priors[label] for label in self.labels])

    # ------------------------------------------------------------------ how this LLM may read
    def _compare_readings(self, features: Sequence[Features]) -> None:
        """Compare with plain reading, where texts are of a kind that was not compared yet."""
        by_length = sorted(features, key=text_length)
        if not by_length or not self._to_compare(by_length):
            return
        found = (self.cache_is_exact, self.packing_is_exact, self.padding_is_exact)
        compared_length = self._compared_length
        try:
            self._compare_with_plain(by_length)
        except Exception:  # such as memory that did not suffice: it tells nothing of the LLM
            self.cache_is_exact, self.packing_is_exact, self.padding_is_exact = found
            self._compared_length = compared_length
            raise

    def _compare_with_plain(self, by_length: Sequence[Features]) -> None:
        """Compare with plain reading on the shortest and the longest of these texts."""
        probes = [by_length[0], by_length[-1]] if len(by_length) > 1 else by_length
        length = _llm_length(by_length[-1])
        labels = max(2, COMPARED_TOKENS // max(1, length))
        answers = spread(self._answers, min(COMPARED_LABELS, labels))
        try:
            plain = [self._score_plainly(row, answers) for row in probes]
        except PalamError:
            raise
        except LIBRARY_ERRORS as error:
            _raise_if_out_of_memory(error)
            reason = first_line(error)
            raise PalamError(f"LLM {self._llm_name()!r} cannot score labels: {reason}") from None
        self._compared_length = max(2 * length, SURELY_ALIKE_TOKENS)
        batch = self._processor.pad(probes)
        expected = torch.cat(plain)
        if self.cache_is_exact is not False:
            self._compare_cached(batch, answers, expected)
        if len(probes) > 1:
            self.padding_is_exact = self.cache_is_exact or self._agrees(
                lambda: self._score_read(
                    self._read_texts(batch, use_cache=False), answers, self._score_whole_sequences
                ),
                expected,
            )

    def _to_compare(self, by_length: Sequence[Features]) -> bool:
        """Whether these texts, the shortest first, are of a kind that was not compared yet."""
        if self.cache_is_exact is None:
            return True
        if not self._compared_length:  # set by the caller
            return False
        if len(by_length) > 1 and self.padding_is_exact is None:
            return True
        return _llm_length(by_length[-1]) > self._compared_length

    def _llm_name(self) -> str:
        llm = self.model.llm
        return str(llm.name_or_path or type(llm).__name__)

    def _score_plainly(self, row: Features, answers: Sequence[Answer]) -> Tensor:
        """Scores [1, answers] of one text with each answer behind it, without padding or cache."""
        batch = self._processor.pad([row])
        read = self._read_texts(batch, use_cache=False)
        scores = self._score_read(read, answers, self._score_whole_sequences)
        check_scores(self.model, batch, scores)
        return scores

    def _compare_cached(
        self, batch: BatchFeature, answers: Sequence[Answer], expected: Tensor
    ) -> None:
        """Find out whether the cache, and packing after it, give the expected scores.

        Args:
            batch: the texts, padded.
            answers: what is scored.
            expected: scores [batch, answers].
        """
        self.cache_is_exact = False
        try:
            read = self._read_texts(batch)
        except LIBRARY_ERRORS as error:
            _raise_if_out_of_memory(error)
            return
        if read.cache is None:
            return
        for one_token_at_a_time in (False, True):
            self._one_token_at_a_time = one_token_at_a_time
            self.cache_is_exact = self._agrees(
                lambda: self._score_read(read, answers, self._score_sequentially), expected
            )
            if self.cache_is_exact:
                break
        if not self.cache_is_exact or self._one_token_at_a_time:
            self.packing_is_exact = False
        elif self.packing_is_exact is not False and self._fits_packed(read, answers):
            self.packing_is_exact = self._agrees(
                lambda: self._score_read(read, answers, self._score_packed), expected
            )

    def _compare_packed(self, read: ReadTexts) -> None:
        """Find out whether packing gives what one answer after the other gives."""
        longer = [answer for answer in self._answers if len(answer) > 1]
        answers = spread(longer, COMPARED_LABELS)
        expected = self._score_sequentially(read, answers)
        trial = read._replace(cache=copy.deepcopy(read.cache))
        self.packing_is_exact = self._agrees(lambda: self._score_packed(trial, answers), expected)

    def _agrees(self, score: Callable[[], Tensor], expected: Tensor) -> bool:
        """Whether scores can be had, and are the expected ones."""
        try:
            scores = score()
        except LIBRARY_ERRORS as error:
            _raise_if_out_of_memory(error)
            return False
        return self._scores_agree(scores, expected)

    def _scores_agree(self, scores: Tensor, expected: Tensor) -> bool:
        """Whether scores [batch, answers] differ by rounding alone; NaN never agrees."""
        difference = (scores - expected).abs()
        size = expected.abs()
        if not rounds_much(self.model.llm):
            agree = difference <= 1e-3 * size.clamp(min=1)
            return bool(agree.all())
        return bool(difference.mean() <= 2e-2 * size.mean().clamp(min=1))

    # ------------------------------------------------------------------ what all texts begin with
    def _prefill_prefix(self, features: Sequence[Features]) -> CachedPrefix:
        """Let the LLM read what all texts begin with, such as examples, once for all of them.

        Nothing is cached where that is short, and where the LLM does not then score the shortest
        and the longest text, side by side, as it does otherwise.
        """
        if not self.cache_is_exact or len(features) < 3:
            return NO_PREFIX
        processor = self._processor
        ids = _common_prefix([row["input_ids"] for row in features])
        ids = ids[:-1]  # the last one stays, so that no row is left empty
        if len(ids) < MIN_PREFIX_TOKENS:
            return NO_PREFIX
        by_length = sorted(features, key=text_length)
        probes = [by_length[0], by_length[-1]]
        answers = spread(self._answers, COMPARED_LABELS)
        expected = self._score_batch(processor.pad(probes), answers)
        try:
            prefix = CachedPrefix(self._read_prefix(ids), len(ids))
            probes = [_without_prefix(row, prefix) for row in probes]
            scores = self._score_batch(processor.pad(probes), answers, prefix)
        except LIBRARY_ERRORS:  # another kind of cache, or none
            return NO_PREFIX
        return prefix if self._scores_agree(scores, expected) else NO_PREFIX

    def _read_prefix(self, ids: Sequence[int]) -> Any:
        """The LLM's cache of one row of ids."""
        device = self.model.device
        row = torch.tensor([ids], device=device)
        inputs = LLMInputs.of_vectors(self.model.embed(row))
        output = self.model.run_llm(inputs, 1, use_cache=True)
        return cache_of(output)

    # ------------------------------------------------------------------ a batch
    def _score_batch(
        self,
        batch: BatchFeature,
        answers: Sequence[Answer],
        prefix: CachedPrefix = NO_PREFIX,
    ) -> Tensor:
        """Scores [batch, answers] of padded texts without answers and without a cached prefix."""
        read = self._read_texts(batch, prefix, use_cache=bool(self.cache_is_exact))
        scores = self._score_read(read, answers, self._continuation_logprobs)
        check_scores(self.model, batch, scores)
        return scores

    def _read_texts(
        self,
        batch: BatchFeature,
        prefix: CachedPrefix = NO_PREFIX,
        *,
        use_cache: bool = True,
    ) -> ReadTexts:
        """Let the LLM read padded texts, after a prefix if there is one."""
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
        """Refuse texts that leave the longest label no room in the LLM's table of positions."""
        most = self.model.processor.llm_positions
        longest = max(len(answer) for answer in self._answers)
        if most is not None and text_tokens + longest - 1 > most:
            raise PalamError(
                f"the LLM has {most} positions; a text with its prompt takes {text_tokens}, the "
                f"longest label {longest}; shorten the labels or the prompt, or lower max_length"
            )

    def _score_read(self, read: ReadTexts, answers: Sequence[Answer], later: LaterScores) -> Tensor:
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

    def _continuation_logprobs(self, read: ReadTexts, answers: Sequence[Answer]) -> Tensor:
        """Σ log P of each answer's tokens after its first [batch, answers].

        Not every LLM takes a mask that lets tokens of one row not see each other. The first batch
        that fits is scored both ways, which shows whether this one does.
        """
        if read.cache is None:
            return self._score_whole_sequences(read, answers)
        if self.packing_is_exact is False or not self._fits_packed(read, answers):
            return self._score_sequentially(read, answers)
        if self.packing_is_exact is None:
            self._compare_packed(read)
        if self.packing_is_exact:
            return self._score_packed(read, answers)
        return self._score_sequentially(read, answers)

    def _score_packed(self, read: ReadTexts, answers: Sequence[Answer]) -> Tensor:
        """`_continuation_logprobs` with several answers side by side in a row. The cache grows."""
        return self._reader.score_packed(read, answers, MAX_PACKED_TOKENS)

    def _score_sequentially(self, read: ReadTexts, answers: Sequence[Answer]) -> Tensor:
        """`_continuation_logprobs`, each answer after a copy of the cache."""
        return self._reader.score_sequentially(
            read, answers, one_token_at_a_time=self._one_token_at_a_time
        )

    def _score_whole_sequences(self, read: ReadTexts, answers: Sequence[Answer]) -> Tensor:
        """`_continuation_logprobs` without a cache: each text is read again with each answer."""
        return self._reader.score_whole_sequences(read, answers)

    def _fits_packed(self, read: ReadTexts, answers: Sequence[Answer]) -> bool:
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

    A bridge that was trained on no task, and whose own prompt asks for no label, is asked for one;
    see [`label_template`]. For many calls with the same labels, one [`LabelScorer`] is faster.

    Args:
        model, labels, llm_only, calibrated: see [`LabelScorer`].
        texts, languages, batch_size, progress: see [`LabelScorer.score`].

    Returns:
        Scores [texts, labels] in natural log, fp32 on the CPU; all of them finite.

    Raises:
        PalamError: labels or texts that cannot be used, or a score that is not finite; see
            [`LabelScorer`] and [`LabelScorer.score`].
    """
    scorer = LabelScorer(
        model,
        labels,
        llm_only=llm_only,
        calibrated=calibrated,
        template=label_template(model.processor, model.config),
    )
    return scorer.score(texts, languages, batch_size=batch_size, progress=progress)


# ---------------------------------------------------------------------- texts and answers
def _tokenised(processor: PalamProcessor, labels: Sequence[str]) -> list[Answer]:
    """The ids of labels.

    Raises:
        PalamError: one is too long, or two are the same.
    """
    answers: list[Answer] = []
    label_of: dict[tuple[int, ...], str] = {}
    for label in labels:
        answer = processor.answer_ids(label)
        if len(answer) > MAX_LABEL_TOKENS:
            raise PalamError(
                f"the label {label[:40]!r}... has {len(answer)} tokens; "
                f"{MAX_LABEL_TOKENS} at most can be scored"
            )
        other = label_of.setdefault(tuple(answer), label)
        if len(label_of) == len(answers):
            raise PalamError(
                f"the labels {other!r} and {label!r} are the same to the LLM; give each once"
            )
        answers.append(answer)
    return answers


def _raise_if_out_of_memory(error: Exception) -> None:
    """Let memory that did not suffice be told: it tells nothing of how the LLM may read.

    Raises:
        Exception: the error, if it says so.
    """
    if is_out_of_memory(error):
        raise error


def _llm_length(row: Features) -> int:
    """About how many tokens the LLM reads of a text, with what stands around it."""
    return len(row["input_ids"]) + len(row.get("encoder_input_ids", ()))


def _common_prefix(rows: Sequence[Sequence[int]]) -> Sequence[int]:
    """The ids that all rows begin with, up to the text's slot."""
    lists = [list(row) for row in rows]
    first = min(lists)
    last = max(lists)  # what these two share, all between them share
    length = 0
    for ours, theirs in zip(first, last, strict=False):
        if ours != theirs or ours == TEXT_SLOT:
            break
        length += 1
    return first[:length]


def _without_prefix(row: Features, prefix: CachedPrefix) -> Features:
    """A text's features without the tokens that the prefix holds."""
    later_ids = row["input_ids"][prefix.tokens :]
    return {**row, "input_ids": later_ids}
