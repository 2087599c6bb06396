"""The score of each label, Σ log P(label tokens and EOS), computed on one cache."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature

from palam.errors import PalamError
from palam.models.backbones.loading import LIBRARY_ERRORS
from palam.models.modeling import PalamModel
from palam.models.sequence import LLMInputs

TOGETHER = 8  # tokens of labels in one call of the LLM: bounds their logits, each as wide as the vocabulary
USUAL_TOKENS = 256  # of a text
LONG = 64  # tokens of a prompt before the text that are worth reading once for all texts
Progress = Callable[[int], Any]  # called with the number of texts just read
Beginning = tuple[Any, int]  # the LLM's cache of a prompt before the text, and its tokens


@torch.no_grad()
def score_labels(
    model: PalamModel, texts: Sequence[str], labels: Sequence[str], languages: Sequence[str | None] | None = None, *,
    llm_only: bool = False, calibrated: bool = True, batch_size: int = 32,
    progress: Progress | None = None,
) -> Tensor:  # fmt: skip
    """The log-probability of each label as the answer to each text, less its prior where the bridge has one.

    Args:
        model: in evaluation or not; nothing is drawn at random here.
        texts: any strings, in any order; they are read in order of length and put back.
        labels: the words of each label.
        languages: one code per text, or None.
        direct: the LLM reads the text itself instead of through the bridge.
        calibrated: subtract the labels' priors, if the bridge has them for all of these (see [`measure_priors`]).
        batch_size: texts at a time; of texts longer than 256 tokens fewer, with as many tokens as so many of 256.
        progress: called with the number of texts just read.

    Returns:
        Scores [texts, labels] in natural log, fp32 on the CPU.

    Raises:
        PalamError: no label, or an empty one.
    """
    if not labels or not all(labels):
        raise PalamError(f"the labels are {list(labels)}; give at least one, and none empty")
    answers = [model.processor.answer_ids(label) for label in labels]
    scores = torch.empty(len(texts), len(answers))
    rows = model.processor.features(
        texts, languages=languages, llm_only=llm_only or model.config.llm_only
    )
    with model.evaluating():
        before = _beginning(model, rows, answers)
        for chosen, batch in padded_batches(
            model, [_cut(row, before) for row in rows], batch_size, progress, before[1]
        ):
            scores[chosen] = _score_batch(model, batch, answers, before).cpu()
    priors = model.config.label_priors
    if calibrated and not llm_only and all(label in priors for label in labels):
        scores -= torch.tensor([priors[label] for label in labels])
    return scores


def padded_batches(
    model: PalamModel,
    rows: Sequence[dict[str, Any]],
    batch_size: int,
    progress: Progress | None,
    before: int = 0,
) -> Iterator[tuple[list[int], BatchFeature]]:
    """Padded batches of features, the longest texts first, each with its texts' places.

    `before` is how many tokens the LLM has read before each row.
    """
    order = sorted(range(len(rows)), key=lambda i: -_length(rows[i]))
    while order:
        fitting = batch_size * USUAL_TOKENS // max(1, before + _length(rows[order[0]]))
        size = max(1, min(batch_size, fitting))
        chosen, order = order[:size], order[size:]
        yield chosen, model.processor.pad([rows[i] for i in chosen])
        if progress:
            progress(len(chosen))


def _length(row: dict[str, Any]) -> int:
    return len(row.get("encoder_input_ids", row["input_ids"]))


def _cut(row: dict[str, Any], before: Beginning) -> dict[str, Any]:
    return row | {"input_ids": row["input_ids"][before[1] :]}


def _beginning(
    model: PalamModel, rows: Sequence[dict[str, Any]], answers: Sequence[Sequence[int]]
) -> Beginning:
    """What the LLM reads before every text, such as examples, read once; nothing if it is short.

    Nothing too if the LLM does not then score the shortest and the longest text, side by side, as it does otherwise.
    """
    ids = torch.tensor(
        [model.processor.prefix_ids()[:-1]], device=model.device
    )  # so that no row is left empty
    count = ids.shape[1]
    if count < LONG or len(rows) < 3:
        return None, 0
    two = sorted(rows, key=_length)[:: len(rows) - 1]
    expected = _score_batch(model, model.processor.pad(two), answers)
    try:
        start = LLMInputs(
            model.embed(ids),
            torch.ones_like(ids),
            torch.arange(count, device=model.device)[None],
            None,
        )
        before = _cache(model.run_llm(start, 1, use_cache=True)), count
        found = _score_batch(
            model, model.processor.pad([_cut(row, before) for row in two]), answers, before
        )
    except LIBRARY_ERRORS:  # another kind of cache, or none
        return None, 0
    return before if _alike(model, found, expected) else (None, 0)


def _alike(model: PalamModel, found: Tensor, expected: Tensor) -> bool:
    """Whether scores differ by no more than rounding, of which 16 bits have so much that only the mean tells."""
    off = (found - expected).abs()
    if model.llm.dtype == torch.float32:
        return bool((off <= 1e-3 * expected.abs().clamp(min=1)).all())
    return bool(off.mean() <= 2e-2 * expected.abs().mean())


def _cache(output: Any) -> Any:
    names = (
        "cache",
        "past_key_values",
    )  # by the release of transformers, which warns of the old one where it can
    return next((output[name] for name in names if name in output), None)


def _score_batch(
    model: PalamModel,
    batch: BatchFeature,
    answers: Sequence[Sequence[int]],
    before: Beginning = (None, 0),
) -> Tensor:
    """Scores [batch, answers] of one padded batch without answers, and without what is `before` it."""
    text = model.build_llm_inputs(
        **{"encoder_input_ids": None, "encoder_attention_mask": None, **batch}
    )
    cache, count = copy.deepcopy(before[0]), before[1]
    if count:
        mask = text.attention_mask
        cache.reorder_cache(mask.new_zeros(len(mask)))  # its one row, for each
        mask = torch.cat([mask.new_ones(len(mask), count), mask], 1)
        text = replace(text, attention_mask=mask, position_ids=text.position_ids + count)
    output: Any = model.run_llm(text, 1, use_cache=True, cache=cache)
    cache = _cache(output)
    first: Tensor = output.logits[:, -1].float().log_softmax(-1)
    scores = first[:, [answer[0] for answer in answers]]
    longer = [index for index, answer in enumerate(answers) if len(answer) > 1]
    if longer:
        scores[:, longer] += _rest(model, text, [answers[index] for index in longer], cache)
    return scores


def _rest(
    model: PalamModel, text: LLMInputs, answers: Sequence[Sequence[int]], cache: Any
) -> Tensor:
    """Σ log P of each answer's tokens after its first [batch, answers], by the way that this LLM allows.

    Not every LLM takes a mask that lets tokens of one row not see each other. The first batch shows whether it does.
    """
    config = model.llm.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    width = text.attention_mask.shape[1] + sum(map(len, answers))
    if (
        cache is None
        or model.joint is False
        or any(window and width >= window for window in windows)
    ):
        return _one_by_one(model, text, answers, cache)
    if model.joint:
        return _together(model, text, answers, cache)
    expected = _one_by_one(model, text, answers, copy.deepcopy(cache))
    try:
        found = _together(model, text, answers, cache)
    except LIBRARY_ERRORS:
        found = torch.full_like(expected, torch.nan)
    model.joint = _alike(model, found, expected)
    return found if model.joint else expected


def _together(
    model: PalamModel, text: LLMInputs, answers: Sequence[Sequence[int]], cache: Any
) -> Tensor:
    """`_rest` with several answers side by side in a row. The cache grows."""
    seen, sums = text.attention_mask.bool()[:, None], []
    while answers:
        size = max(
            1, sum(total <= TOGETHER for total in accumulate(len(answer) - 1 for answer in answers))
        )
        sums.append(_continue(model, text, answers[:size], cache, seen))
        width = sum(len(answer) - 1 for answer in answers[:size])
        seen = torch.cat(
            [seen, seen.new_zeros(len(seen), 1, width)], 2
        )  # the next answers do not see these
        answers = answers[size:]
    return torch.cat(sums, 1)


def _one_by_one(
    model: PalamModel, text: LLMInputs, answers: Sequence[Sequence[int]], cache: Any
) -> Tensor:
    """`_rest`, each answer after a copy of the cache: some kinds cannot be cut back."""
    return torch.cat(
        [_continue(model, text, [answer], copy.deepcopy(cache)) for answer in answers], 1
    )


def _continue(
    model: PalamModel,
    text: LLMInputs,
    answers: Sequence[Sequence[int]],
    cache: Any,
    seen: Tensor | None = None,
) -> Tensor:
    """`_rest` of answers that do not see each other and, of what is in the cache, see [batch, 1, cached].

    Without that it is a single answer, with a plain mask, and if there is no cache the text is read again.
    """
    ids, wanted, owner, depth = torch.tensor(
        [(a[i - 1], a[i], k, i) for k, a in enumerate(answers) for i in range(1, len(a))],
        device=model.device,
    ).T
    rows, n = len(text.attention_mask), len(ids)
    embeds = model.embed(ids).to(text.inputs_embeds.dtype).expand(rows, -1, -1)
    positions = text.position_ids[:, -1:] + depth
    if seen is None:
        mask = torch.cat([text.attention_mask, text.attention_mask.new_ones(rows, n)], 1)
        if cache is None:
            embeds = torch.cat([text.inputs_embeds, embeds], 1)
            positions = torch.cat([text.position_ids, positions], 1)
    else:
        own = (owner[:, None] == owner) & (depth[:, None] >= depth)
        visible = torch.cat([seen.expand(-1, n, -1), own.expand(rows, -1, -1)], 2)[:, None]
        mask = torch.zeros_like(visible, dtype=embeds.dtype).masked_fill(
            ~visible, torch.finfo(embeds.dtype).min
        )
    joined = LLMInputs(embeds, mask, positions, None)
    logits = model.run_llm(joined, n, cache=cache, use_cache=cache is not None).logits
    found = []
    for place, token in enumerate(wanted):  # at once, it would need copies of all logits
        at = logits[:, place].float()
        found.append(at[:, token] - at.logsumexp(-1))
    return torch.zeros(rows, len(answers), device=model.device).index_add(
        1, owner, torch.stack(found, 1)
    )
