"""Label scores: how likely the LLM finds each label as the answer to a text.

A label's score is Σ log P of its tokens and the EOS after them. How labels are read fast is not
taken on trust: it is compared with plain reading, and where it differs every text is read again
with each label.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from palam.errors import PalamError
from palam.inference.answers import Answer, spread
from palam.inference.batches import Features, Progress, padded_batches, text_length
from palam.inference.cached_prefix import NO_PREFIX, CachedPrefix, common_prefix
from palam.inference.exactness import Exactness, scores_agree
from palam.inference.label_reading import COMPARED_LABELS, LabelReading
from palam.inference.reading_comparison import ReadingComparison
from palam.inference.task_prompt import label_template
from palam.models.backbones.loading import LIBRARY_ERRORS
from palam.models.finite import check_finite
from palam.models.modeling import PalamModel
from palam.models.processing import PalamProcessor
from palam.models.template import Template
from palam.utils.texts import checked_texts

MAX_LABEL_TOKENS = 512
"""How long a label may be."""
MIN_PREFIX_TOKENS = 64
"""How long a prompt before the text must be to be worth reading once for all texts."""


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
        exactness: of another scorer of the same model, whose labels may be others of about the same
            length; None is found out anew.

    Attributes:
        labels: the words of each label.
        exactness: how this LLM may read labels, as far as is known; it may be shared.

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
        exactness: Exactness | None = None,
    ) -> None:
        self.labels = checked_texts(labels, "labels")
        if not self.labels or not all(self.labels):
            raise PalamError(f"the labels are {self.labels}; give at least one, and none empty")
        self.model = model
        self.llm_only = llm_only
        self.calibrated = calibrated
        self.exactness = Exactness() if exactness is None else exactness
        own_processor = None if template is None else model.processor.with_template(template)
        self._own_processor = own_processor
        self._answers = _tokenised(self._processor, self.labels)
        longest = max(len(answer) for answer in self._answers)
        self._reading = LabelReading(model, self.exactness, longest)

    @property
    def _processor(self) -> PalamProcessor:
        """The model's, with this scorer's template if it has one."""
        return self._own_processor or self.model.processor

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
            ReadingComparison(self._reading, self._processor, self._answers).compare(features)
            prefix = self._read_prefix(features)
            features = [prefix.taken_from(row) for row in features]
            if self.exactness.padding is False:
                batch_size = 1
            batches = padded_batches(model, features, batch_size, progress, prefix.tokens)
            for batch in batches:
                batch_scores = self._reading.score_batch(batch.inputs, self._answers, prefix)
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

    def _read_prefix(self, features: Sequence[Features]) -> CachedPrefix:
        """Let the LLM read what all texts begin with, such as examples, once for all of them.

        Nothing is cached where that is short, and where the LLM does not then score the shortest
        and the longest text, side by side, as it does otherwise.
        """
        if not self.exactness.cache or len(features) < 3:
            return NO_PREFIX
        ids = common_prefix([row["input_ids"] for row in features])
        ids = ids[:-1]  # the last one stays, so that no row is left empty
        if len(ids) < MIN_PREFIX_TOKENS:
            return NO_PREFIX
        pad = self._processor.pad
        score_batch = self._reading.score_batch
        by_length = sorted(features, key=text_length)
        probes = [by_length[0], by_length[-1]]
        answers = spread(self._answers, COMPARED_LABELS)
        expected = score_batch(pad(probes), answers)
        try:
            prefix = CachedPrefix.read(self.model, ids)
            later = [prefix.taken_from(row) for row in probes]
            scores = score_batch(pad(later), answers, prefix)
        except LIBRARY_ERRORS:  # another kind of cache, or none
            return NO_PREFIX
        return prefix if scores_agree(self.model.llm, scores, expected) else NO_PREFIX


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
