"""Classification by score: Σ log P(label tokens and EOS), the text's states computed once for all labels."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from palam.errors import PalamError
from palam.model import Assembled, PalamModel


@torch.no_grad()
def label_scores(
    model: PalamModel,
    texts: Sequence[str],
    labels: Sequence[str],
    languages: Sequence[str | None] | None = None,
    *,
    direct: bool = False,
    per_token: bool = False,
    batch_size: int = 32,
    progress: Callable[[int], Any] | None = None,
) -> Tensor:
    """The log-probability of each label as the answer to each text.

    Args:
        model: in evaluation or not; nothing is drawn at random here.
        texts: any strings, in any order; they are read in order of length and put back.
        labels: the words of each label.
        languages: one code per text, or None.
        direct: the LLM reads the text itself instead of through the bridge.
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
    was_training = model.training
    model.eval()
    rows = model.processor.features(texts, languages=languages, direct=direct)
    answers = [model.processor.answer_ids(label) for label in labels]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].get("encoder_input_ids", rows[i]["input_ids"])))
    scores = torch.empty(len(rows), len(answers))
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        batch = model.processor.pad([rows[i] for i in chosen])
        scores[chosen] = _score_batch(model, model.assemble(**_parts(batch)), answers).cpu()
        if progress:
            progress(len(chosen))
    model.train(was_training)
    return scores / torch.tensor([len(answer) for answer in answers]) if per_token else scores


def _parts(batch: Any) -> dict[str, Any]:
    names = ("encoder_input_ids", "encoder_attention_mask", "input_ids", "attention_mask")
    return {name: batch.get(name) for name in names}


def _score_batch(model: PalamModel, text: Assembled, answers: Sequence[Sequence[int]]) -> Tensor:
    """Scores [batch, answers] of one assembled batch without answers."""
    output: Any = model.run_llm(text, 1, use_cache=True)
    first: Tensor = output.logits[:, -1].float().log_softmax(-1)
    columns = []
    for answer in answers:
        ids = torch.tensor(answer, device=model.device).expand(len(first), -1)
        if len(answer) == 1:
            rest = first.new_zeros(len(first))
        elif output.past_key_values is None:
            rest = _continue(model, text, ids, None)
        else:
            # A cache grows in place, and some kinds cannot be cut back: each label continues a copy.
            rest = _continue(model, text, ids, copy.deepcopy(output.past_key_values))
        columns.append(first.gather(1, ids[:, :1])[:, 0] + rest)
    return torch.stack(columns, 1)


def _continue(model: PalamModel, text: Assembled, ids: Tensor, cache: Any) -> Tensor:
    """Σ log P of ids[:, 1:] after the text and ids[:, 0]; without a cache the text is read again."""
    embeds = model.embed(ids[:, :-1]).to(text.inputs_embeds.dtype)
    mask = torch.cat([text.attention_mask, torch.ones_like(ids[:, :-1])], 1)
    steps = torch.arange(1, ids.shape[1], device=ids.device)
    positions = text.position_ids[:, -1:] + steps
    if cache is None:
        embeds = torch.cat([text.inputs_embeds, embeds], 1)
        positions = torch.cat([text.position_ids, positions], 1)
    joined = Assembled(embeds, mask, positions, None)
    logits: Any = model.run_llm(joined, ids.shape[1] - 1, cache=cache, use_cache=cache is not None).logits
    picked: Tensor = logits.float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0].sum(1)
    return picked
