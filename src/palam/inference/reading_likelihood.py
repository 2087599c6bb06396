"""Whether the LLM that reads a text finds the right English sentence likelier than others."""

import random
from collections.abc import Mapping, Sequence

import torch

from palam.errors import PalamError
from palam.inference.batches import Progress
from palam.inference.exactness import Exactness
from palam.inference.reading_metrics import without_numbers
from palam.inference.scoring import LabelScorer
from palam.models.modeling import PalamModel
from palam.models.template import clean
from palam.tasks.task import Example

NUM_CANDIDATES = 20
"""Sentences of which the right one is to be the likeliest; by chance it is in 5 of 100 rows.

Where fewer sentences differ, all of them are offered."""


def likeliest_of_several(
    model: PalamModel,
    texts: Sequence[str],
    english: Sequence[str],
    languages: Sequence[str | None] | None = None,
    *,
    llm_only: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[bool]:
    """Whether each text's English sentence is the likeliest of [`num_candidates`] after the text.

    The others are drawn from the sentences of the other rows. What holds a digit is taken out of
    all of them. A sentence's score is the mean log P of its tokens and the EOS after them.

    Args:
        model: asks as its template has it.
        texts: any strings.
        english: what each text says.
        languages: one code per text, or None.
        llm_only: the LLM reads the text itself instead of through the bridge.
        seed: of the draw.
        progress: called with the number of texts just read.

    Returns:
        One value a text.

    Raises:
        PalamError: see [`num_candidates`].
    """
    num_candidates(english)
    sentences = [_plain(sentence) for sentence in english]
    codes = languages or [None] * len(texts)
    exactness = Exactness()
    likeliest = []
    for row, (text, code) in enumerate(zip(texts, codes, strict=True)):
        candidates = _candidates(sentences, row, seed)
        scorer = LabelScorer(
            model, candidates, llm_only=llm_only, calibrated=False, exactness=exactness
        )
        (sums,) = scorer.score([text], [code])
        counts = [len(model.processor.answer_ids(candidate)) for candidate in candidates]
        means = sums / torch.tensor(counts)
        likeliest.append(bool((means[0] > means[1:]).all()))
        if progress:
            progress(1)
    return likeliest


def num_candidates(english: Sequence[str]) -> int:
    """Of how many sentences each text's own is to be the likeliest: of twenty at most.

    Args:
        english: what each text says.

    Raises:
        PalamError: no two sentences differ, so that there is nothing to choose from.
    """
    different = {_plain(sentence) for sentence in english} - {""}
    if len(different) < 2:
        raise PalamError(
            "the likeliest sentence needs two rows at least whose English sentences differ, "
            "beside numbers"
        )
    return min(NUM_CANDIDATES, len(different))


def check_candidates(examples: Mapping[str, Sequence[Example]]) -> None:
    """Refuse, before any work, rows that have no other sentences to choose from.

    Args:
        examples: by language.

    Raises:
        PalamError: the first such language.
    """
    for language, rows in examples.items():
        try:
            num_candidates([example.label for example in rows])
        except PalamError as error:
            raise PalamError(f"{language}: {error}") from None


def _plain(sentence: str) -> str:
    """A sentence as it is offered: without what holds a digit."""
    return clean(without_numbers(sentence))


def _candidates(sentences: Sequence[str], row: int, seed: int) -> list[str]:
    """A row's own sentence, and others that differ from it, in an order drawn with the seed."""
    own = sentences[row] or "."
    others = sorted({sentence for sentence in sentences if sentence} - {own})
    generator = random.Random(f"{seed} {row}")
    return [own, *generator.sample(others, min(NUM_CANDIDATES - 1, len(others)))]
