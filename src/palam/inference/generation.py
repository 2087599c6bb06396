"""Free answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from palam.inference.batches import Features, Progress, padded_batches
from palam.inference.best_of import SeveralAnswers, best_of_answers
from palam.inference.engine_generation import answers_of_engine, decoding_of
from palam.models.guidance_scale import NO_GUIDANCE
from palam.models.modeling import PalamModel
from palam.models.template import Template
from palam.utils.texts import checked_texts

SHORT_ANSWER_NGRAM_SIZE = 3
"""`no_repeat_ngram_size` for short answers of small LLMs, which go round in circles without it."""
GUIDANCE_SCALE = 1.5
"""`guidance_scale` where answers are to keep to the text, see [`default_guidance`]."""


def generate(
    model: PalamModel,
    texts: Sequence[str],
    languages: Sequence[str | None] | None = None,
    *,
    llm_only: bool = False,
    batch_size: int = 32,
    progress: Progress | None = None,
    **generate_kwargs: Any,
) -> list[str]:
    """What the LLM answers to each text, greedily unless `generate_kwargs` say otherwise.

    Args:
        model: see [`LabelScorer`]. If it has a `token_engine`, that makes the answers.
        llm_only: see [`LabelScorer`].
        texts, languages, batch_size, progress: see [`LabelScorer.score`]; with `best_of`, the batch
            size is of answers.
        **generate_kwargs: those of transformers' `generate`; `max_new_tokens` is 64 by default.
            `guidance_scale` as in [`PalamModel.generate`]; `best_of` makes so many answers to each
            text, the greedy one among them, and gives the one that says most of it for the encoder,
            see [`coverage`]: for answers that are to say what the text says. They are always the
            same, and `first_line_only` lets it judge them by their first line. A `token_engine`
            takes `max_new_tokens`, `do_sample`, `temperature`, `top_p` and `seed`.

    Returns:
        An answer for each text, without white space at its ends.

    Raises:
        PalamError: texts that are no strings, options that cannot be used, or numbers that are not
            finite: the message names the part that they come from.
    """
    features = _features(model, checked_texts(texts), languages, llm_only)
    return _decoded(model, features, batch_size, progress, generate_kwargs)


def generate_about(
    model: PalamModel,
    texts: Sequence[str],
    templates: Sequence[Template],
    languages: Sequence[str | None] | None = None,
    *,
    llm_only: bool = False,
    batch_size: int = 32,
    progress: Progress | None = None,
    **generate_kwargs: Any,
) -> list[str]:
    """The same as [`generate`], where something else stands around each text.

    Args:
        model, texts, languages, llm_only, batch_size, progress, **generate_kwargs: see
            [`generate`].
        templates: of each text; of one mode. Texts with the same object are tokenised together.

    Returns:
        An answer for each text, without white space at its ends.

    Raises:
        PalamError: see [`generate`].
    """
    texts = checked_texts(texts)
    codes = languages or [None] * len(texts)
    places_by_template: dict[int, list[int]] = {}  # by its `id`
    for place, template in enumerate(templates):
        places_by_template.setdefault(id(template), []).append(place)
    features: list[Features] = [{} for _ in texts]
    for places in places_by_template.values():
        with asked_with(model, templates[places[0]]):
            made = _features(
                model,
                [texts[place] for place in places],
                [codes[place] for place in places],
                llm_only,
            )
        for place, row in zip(places, made, strict=True):
            features[place] = row
    with asked_with(model, templates[0] if templates else None):
        return _decoded(model, features, batch_size, progress, generate_kwargs)


def default_guidance(model: PalamModel, *, llm_only: bool = False) -> float:
    """The `guidance_scale` with which a bridge is best used, where none is given.

    It is `GUIDANCE_SCALE` for a bridge that is asked for the text in English: an answer that keeps
    to the text is what is wanted. Answers to questions are worse with it, they say the text again.
    [`generate`] itself does not set it.

    Args:
        model: as it is asked.
        llm_only: see [`LabelScorer`].

    Returns:
        `NO_GUIDANCE` for other prompts, and where no guidance can be had: no text is read through
        the bridge, a `token_engine` answers, or the LLM's class generates from ids alone.
    """
    processor = model.processor
    is_guided = (
        processor.template.wants_text_in_english
        and not (llm_only or model.config.llm_only or processor.append_source_tokens)
        and model.token_engine is None
        and model.generates_from_vectors
    )
    return GUIDANCE_SCALE if is_guided else NO_GUIDANCE


@contextmanager
def asked_with(model: PalamModel, template: Template | None) -> Iterator[None]:
    """Within the block, what stands around the model's texts is another template.

    Args:
        model: any.
        template: None is the model's own.
    """
    own = model.processor.template
    model.processor.template = template or own
    try:
        yield
    finally:
        model.processor.template = own


def generate_ids(
    model: PalamModel,
    texts: Sequence[str],
    languages: Sequence[str | None] | None = None,
    *,
    llm_only: bool = False,
    batch_size: int = 32,
    progress: Progress | None = None,
    **generate_kwargs: Any,
) -> list[list[int]]:
    """The same answers as [`generate`] gives, as the LLM's ids without the end.

    Args:
        model, texts, languages, llm_only, batch_size, progress, **generate_kwargs: see
            [`generate`].

    Returns:
        The ids of an answer for each text; [] where the LLM says nothing.

    Raises:
        PalamError: see [`generate`].
    """
    texts = checked_texts(texts)
    answers: list[list[int]] = [[] for _ in texts]
    stops = set(model.stop_ids())
    features = _features(model, texts, languages, llm_only)
    for rows, ids in _generated(model, features, batch_size, progress, generate_kwargs):
        for row, generated in zip(rows, ids.tolist(), strict=True):
            answers[row] = list(takewhile(lambda token: token not in stops, generated))
    return answers


def _features(
    model: PalamModel,
    texts: Sequence[str],
    languages: Sequence[str | None] | None,
    llm_only: bool,
) -> list[Features]:
    llm_only = llm_only or model.config.llm_only
    features: list[Features] = model.processor.features(
        texts, languages=languages, llm_only=llm_only
    )
    return features


def _decoded(
    model: PalamModel,
    features: Sequence[Features],
    batch_size: int,
    progress: Progress | None,
    generate_kwargs: dict[str, Any],
) -> list[str]:
    """An answer in words for each text."""
    answers = [""] * len(features)
    for rows, ids in _generated(model, features, batch_size, progress, generate_kwargs):
        for row, answer in zip(rows, model.processor.decode(ids), strict=True):
            answers[row] = answer
    return answers


def _generated(
    model: PalamModel,
    features: Sequence[Features],
    batch_size: int,
    progress: Progress | None,
    generate_kwargs: dict[str, Any],
) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of answers: the texts' places, and ids [batch, n] with the end and padding."""
    settings = {"max_new_tokens": 64, "do_sample": False, **generate_kwargs}
    best_of = settings.pop("best_of", 1)
    if best_of != 1:
        wanted = SeveralAnswers.of(best_of, settings)
        for row, answer in best_of_answers(model, features, wanted, batch_size, progress):
            yield [row], torch.tensor([answer], dtype=torch.long)
        return
    if model.token_engine is not None:
        decoding = decoding_of(model, settings)
        for row, answer in answers_of_engine(model, features, batch_size, progress, decoding):
            yield [row], torch.tensor([answer], dtype=torch.long)
        return
    for batch in padded_batches(model, features, batch_size, progress):
        ids = model.generate(**batch.inputs, **settings)
        yield batch.rows, ids
