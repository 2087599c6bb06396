"""Free answers from a [`TokenEngine`]: encoder and bridge here, the LLM there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from palam.errors import PalamError
from palam.inference.batches import Features, Progress, padded_batches
from palam.models.modeling import PalamModel
from palam.models.token_engine import Decoding, TokenEngine

UNDERSTOOD = ("max_new_tokens", "do_sample", "temperature", "top_p", "seed")
"""Arguments of [`palam.generate`] that have a meaning for an engine."""


class AnswerIds(NamedTuple):
    """An answer."""

    row: int
    """Its text's place."""
    ids: list[int]
    """With the end, if it has one."""


def decoding_of(model: PalamModel, generate_kwargs: Mapping[str, Any]) -> Decoding:
    """What an engine is told, from the arguments of [`palam.generate`].

    Args:
        model: says at which ids an answer ends.
        generate_kwargs: `max_new_tokens`, `do_sample`, `temperature`, `top_p` and `seed`.

    Raises:
        PalamError: other arguments.
    """
    others = [name for name in generate_kwargs if name not in UNDERSTOOD]
    if others:
        raise PalamError(
            f"a fast engine takes {', '.join(UNDERSTOOD)}; {', '.join(others)} cannot be used"
        )
    is_sampled = bool(generate_kwargs.get("do_sample"))
    seed = generate_kwargs.get("seed")
    if is_sampled and seed is None:
        seed = int(torch.randint(2**31, ()))  # so that what was set for torch counts here too
    return Decoding(
        max_new_tokens=generate_kwargs["max_new_tokens"],
        stop_ids=tuple(model.stop_ids()),
        temperature=generate_kwargs.get("temperature", 1.0) if is_sampled else 0.0,
        top_p=generate_kwargs.get("top_p", 1.0),
        seed=seed,
    )


def answers_of_engine(
    model: PalamModel,
    features: Sequence[Features],
    batch_size: int,
    progress: Progress | None,
    decoding: Decoding,
) -> Iterator[AnswerIds]:
    """Answers, in the order in which they are finished.

    While the engine works at one batch of prompts, the next is given to it, so that a short answer
    never waits for a long one.

    Args:
        model: whose encoder and bridge read the texts, and whose engine continues them.
        features: of each text, see [`PalamProcessor.features`].
        batch_size: texts that are encoded at a time.
        progress: called with the number of answers just finished.
        decoding: of all answers; each gets a seed of its own, the given one plus its place.

    Raises:
        PalamError: vectors that are not finite or too many, or the engine has failed.
    """
    engine = engine_of(model)
    begun: dict[int, list[int]] = {}
    batches = padded_batches(model, features, batch_size, None)
    all_are_read = False
    try:
        while begun or not all_are_read:
            if len(begun) <= batch_size and not all_are_read:
                batch = next(batches, None)
                if batch is None:
                    all_are_read = True
                    continue
                vectors = prompt_rows(model, batch.inputs)
                for row, prompt in zip(batch.rows, vectors, strict=True):
                    engine.add(str(row), prompt, _with_own_seed(decoding, row))
                    begun[row] = []
            for name, ids, is_finished in engine.step():
                row = int(name)
                begun[row] += ids
                if is_finished:
                    yield AnswerIds(row, begun.pop(row))
                    if progress:
                        progress(1)
    finally:
        engine.cancel(str(row) for row in begun)


def engine_of(model: PalamModel) -> TokenEngine:
    """The engine that a model has.

    Raises:
        PalamError: it has none.
    """
    if model.token_engine is None:
        raise PalamError("this model has no token_engine")
    return model.token_engine


def stream_answer(
    model: PalamModel, inputs: Mapping[str, Tensor], decoding: Decoding, streamer: Any
) -> None:
    """Make one answer and hand its ids on as they come.

    Args:
        model: with a `token_engine`.
        inputs: of one text, as [`PalamProcessor`] prepares them.
        decoding: how it is made.
        streamer: of transformers; its `put` gets ids [n], and `end` is called at the end.

    Raises:
        PalamError: vectors that are not finite or too many, or the engine has failed.
    """
    engine = engine_of(model)
    name = "streamed"
    engine.add(name, prompt_rows(model, inputs)[0], decoding)
    is_finished = False
    try:
        while not is_finished:
            for tokens in engine.step():
                streamer.put(torch.tensor(tokens.ids, dtype=torch.long))
                is_finished = tokens.is_finished
    finally:
        engine.cancel([name])
    streamer.end()


def _with_own_seed(decoding: Decoding, row: int) -> Decoding:
    if decoding.seed is None:
        return decoding
    return replace(decoding, seed=decoding.seed + row)


@torch.no_grad()
def prompt_rows(model: PalamModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """What the LLM reads of each row [length, d_llm], without padding.

    Args:
        model: whose encoder and bridge read the texts.
        inputs: as [`PalamProcessor`] prepares them.
    """
    with model.evaluating():
        sequences = model.llm_inputs(**inputs)
    real = sequences.attention_mask.bool()
    return [row[mask] for row, mask in zip(sequences.inputs_embeds, real, strict=True)]
