"""Distillation: the LLM that reads the text itself teaches the LLM that reads by the bridge."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from palam.errors import PalamError
from palam.inference.generation import generate_ids
from palam.models.modeling import PalamModel
from palam.models.processing import IGNORE, Answer, LanguageCodes, PalamProcessor
from palam.models.template import Template
from palam.tasks.readers import read_texts
from palam.training.datasets import Features, seeded_number
from palam.training.raw_text import RawTextDataset
from palam.utils.processes import gather, own_share

MAX_ANSWER_TOKENS = 28
"""Of the LLM's answer to a prompt."""


def distillation_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """KL(teacher ‖ model), summed over the labels and divided by their number.

    Both sequences end with the same labels, and have logits at their last positions: those of the
    longest answer and one before it at least.

    Args:
        logits: [batch, positions, vocabulary], of the LLM that reads through the bridge.
        teacher_logits: [batch, positions, vocabulary], of the LLM that reads the text itself; the
            positions may be more or fewer.
        labels: [batch, LLM tokens], `-100` where there is no loss.
        num_items_in_batch: by which the sum is divided; None is this batch's number of labels.
    """
    positions = min(logits.shape[1], teacher_logits.shape[1])
    logits = logits[:, -positions:]
    teacher_logits = teacher_logits[:, -positions:]
    last_labels = labels[:, -positions:]
    has_label = last_labels[:, 1:] != IGNORE  # of the position after each one's logits
    total = F.kl_div(
        _log_probs(logits, has_label),
        _log_probs(teacher_logits, has_label),
        log_target=True,
        reduction="sum",
    )
    if num_items_in_batch is None:
        return total / has_label.sum().clamp(min=1)
    return total / num_items_in_batch


def hidden_distance(
    states: Tensor,
    teacher_states: Tensor,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """Σ |h − t|² / |t|² over the labels, divided by their number: 0 where the states are equal.

    h and t are the LLM's last hidden states at the position before a label, h where it reads
    through the bridge and t where it reads the text itself.

    Args:
        states: [batch, positions, d_llm], of the LLM that reads through the bridge.
        teacher_states: [batch, positions, d_llm], of the LLM that reads the text itself; the
            positions may be more or fewer.
        labels, num_items_in_batch: see [`distillation_loss`].
    """
    positions = min(states.shape[1], teacher_states.shape[1])
    has_label = labels[:, -positions:][:, 1:] != IGNORE
    own = states[:, -positions:-1][has_label].float()
    taught = teacher_states[:, -positions:-1][has_label].float()
    sizes = taught.square().sum(-1).clamp(min=1e-12)
    total = ((own - taught).square().sum(-1) / sizes).sum()
    if num_items_in_batch is None:
        return total / has_label.sum().clamp(min=1)
    return total / num_items_in_batch


def _log_probs(logits: Tensor, has_label: Tensor) -> Tensor:
    """Log-probabilities [labels, vocabulary] at the positions whose next one has a label."""
    before_label = logits[:, :-1][has_label]
    return before_label.float().log_softmax(-1)


def answer_prompts_with_llm(
    model: PalamModel,
    dataset: RawTextDataset,
    prompts_file: Path,
    *,
    mode: str,
    seed: int,
) -> None:
    """Let the LLM answer a prompt about each text, which it reads itself, for training on it.

    Several processes each ask about a share of the texts.

    Args:
        model: whose LLM answers.
        dataset: its source's `prompted` rows are filled in, and its first epoch is drawn anew; a
            text without an answer gets none.
        prompts_file: prompts with a `{text}` slot, one a line; each text gets one of them.
        mode: of the prompts, `"prompt"` or `"chat"`.
        seed: which text gets which prompt.

    Raises:
        PalamError: a file without prompts, a prompt without its slot, or no answer to any text,
            where nothing but answers is learned.
    """
    for prompt, rows in rows_by_prompt(prompts_file, len(dataset.texts), seed).items():
        processor = model.processor
        template = processor.template.with_prompt(mode, prompt, processor.llm_tokenizer)
        # Where the LLM is spread over the processes, each answers all with the others.
        own_rows = rows if model.shards_llm else own_share(rows)
        if own_rows:
            with using_template(model, template):
                _answer_prompt(model, dataset, own_rows)
    for prompted in gather(dataset.source.prompted):
        dataset.source.prompted.update(prompted)
    dataset.set_epoch(0)
    if not len(dataset):
        raise PalamError(
            f"the LLM answers nothing to the prompts of {prompts_file} about any text to train on, "
            "or to validate on, and nothing else is learned: give other prompts, or more text"
        )


def rows_by_prompt(prompts_file: Path, num_rows: int, seed: int) -> dict[str, list[int]]:
    """The prompts of a file, each with the rows that it is for.

    Args:
        prompts_file, seed: see [`answer_prompts_with_llm`].
        num_rows: how many rows there are.

    Raises:
        PalamError: a file without prompts.
    """
    prompts = list(read_texts(prompts_file))
    if not prompts:
        raise PalamError(f"{prompts_file} holds no prompt")
    rows: dict[str, list[int]] = {prompt: [] for prompt in prompts}
    for row in range(num_rows):
        number = seeded_number("prompt", seed, row) % len(prompts)
        rows[prompts[number]].append(row)
    return rows


@contextmanager
def using_template(model: PalamModel, template: Template) -> Iterator[None]:
    """Within the block, a model's inputs are made by another template, and are not counted."""
    processor = model.processor
    model.processor = replace(processor, template=template)
    try:
        yield
    finally:
        model.processor = processor


def _answer_prompt(model: PalamModel, dataset: RawTextDataset, rows: Sequence[int]) -> None:
    """Fill in the prompted rows of these rows, by the model's own template."""
    texts = [dataset.texts[row] for row in rows]
    languages = [dataset.source.language] * len(texts)
    processor = model.processor
    answers = generate_ids(
        model,
        texts,
        llm_only=True,
        max_new_tokens=MAX_ANSWER_TOKENS,
    )
    # The LLM's own ids: read again, its words may be other tokens.
    prompted = prompted_features(processor, texts, answers, languages)
    for row, answer, features in zip(rows, answers, prompted, strict=True):
        if answer:
            dataset.source.prompted[row] = {**features, "row": row}


def prompted_features(
    processor: PalamProcessor,
    texts: Sequence[str],
    answers: Sequence[Answer],
    languages: LanguageCodes,
) -> list[Features]:
    """What is learned from answers to a prompt: the bridge's side, and what the LLM read itself.

    Args:
        processor: with the prompt as its template.
        texts, answers, languages: see [`PalamProcessor.features`].
    """
    by_bridge = processor.features(texts, answers, languages)
    by_llm = processor.features(texts, answers, languages, llm_only=True)
    prompted: list[Features] = []
    for row, teacher_row in zip(by_bridge, by_llm, strict=True):
        prompted.append({**row, "teacher_ids": teacher_row["input_ids"]})
    return prompted
