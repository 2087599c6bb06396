"""Classification by score: Σ log P(label tokens and EOS), the text's states computed once for all labels."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature

from palam.errors import PalamError
from palam.model import Assembled, PalamModel

Progress = Callable[[int], Any]  # called with the number of texts just read


@torch.no_grad()
def label_scores(
    model: PalamModel, texts: Sequence[str], labels: Sequence[str], languages: Sequence[str | None] | None = None, *,
    direct: bool = False, per_token: bool = False, calibrated: bool = True, batch_size: int = 32,
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
        per_token: divide by the number of the label's tokens (off by default).
        batch_size: texts at a time.
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
    for chosen, batch in read_batches(model, texts, languages, direct, batch_size, progress):
        scores[chosen] = _score_batch(model, batch, answers).cpu()
    priors = model.config.label_priors
    if calibrated and not direct and all(label in priors for label in labels):
        scores -= torch.tensor([priors[label] for label in labels])
    return scores / torch.tensor([len(answer) for answer in answers]) if per_token else scores


def measure_priors(
    model: PalamModel, texts: Sequence[str], labels: Sequence[str], languages: Sequence[str | None] | None = None,
    **options: Any,
) -> None:  # fmt: skip
    """Learn how much the LLM is inclined to each label whatever it reads, and let [`label_scores`] make up for it.

    A bridge that was solved and not trained leaves the LLM with its own liking for some words. The mean score over
    unlabelled English texts measures it (batch calibration, arXiv 2309.17249, on texts that are not those to classify).

    Args:
        model: its configuration takes the priors up, and they are saved with the bridge.
        texts, labels, languages, **options: see [`label_scores`]. The texts should be about all labels alike.
    """
    scores = label_scores(model, texts, labels, languages, calibrated=False, **options)
    model.config.label_priors = dict(zip(labels, scores.mean(0).tolist(), strict=True))


def read_batches(
    model: PalamModel, texts: Sequence[str], languages: Sequence[str | None] | None, direct: bool, batch_size: int,
    progress: Progress | None,
) -> Iterator[tuple[list[int], BatchFeature]]:  # fmt: skip
    """Padded batches, the longest texts first, each with its texts' places; the model is in evaluation meanwhile."""
    rows = model.processor.features(texts, languages=languages, direct=direct)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].get("encoder_input_ids", rows[i]["input_ids"])))
    with model.evaluating():
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            yield chosen, model.processor.pad([rows[i] for i in chosen])
            if progress:
                progress(len(chosen))


def _score_batch(model: PalamModel, batch: BatchFeature, answers: Sequence[Sequence[int]]) -> Tensor:
    """Scores [batch, answers] of one padded batch without answers."""
    text = model.assemble(**{"encoder_input_ids": None, "encoder_attention_mask": None, **batch})
    output: Any = model.run_llm(text, 1, use_cache=True)
    cache = output.get("cache", output.get("past_key_values"))  # its name depends on the release of transformers
    first: Tensor = output.logits[:, -1].float().log_softmax(-1)
    columns = []
    for answer in answers:
        ids = torch.tensor(answer, device=model.device).expand(len(first), -1)
        columns.append(first.gather(1, ids[:, :1])[:, 0])
        if len(answer) > 1:
            # A cache grows in place, and some kinds cannot be cut back: each label continues a copy.
            columns[-1] = columns[-1] + _continue(model, text, ids, copy.deepcopy(cache))
    return torch.stack(columns, 1)


def _continue(model: PalamModel, text: Assembled, ids: Tensor, cache: Any) -> Tensor:
    """Σ log P of ids[:, 1:] after the text and ids[:, 0]; without a cache the text is read again."""
    embeds = model.embed(ids[:, :-1]).to(text.inputs_embeds.dtype)
    mask = torch.cat([text.attention_mask, torch.ones_like(ids[:, :-1])], 1)
    positions = text.position_ids[:, -1:] + torch.arange(1, ids.shape[1], device=ids.device)
    if cache is None:
        embeds = torch.cat([text.inputs_embeds, embeds], 1)
        positions = torch.cat([text.position_ids, positions], 1)
    joined = Assembled(embeds, mask, positions, None)
    logits: Tensor = model.run_llm(joined, ids.shape[1] - 1, cache=cache, use_cache=cache is not None).logits
    return logits.float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0].sum(1)
