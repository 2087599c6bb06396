"""How much of a text an English answer says, as the encoder judges it without any reference."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from palam.inference.batches import Features
from palam.inference.encoder_states import encoder_features, encoder_states
from palam.models.modeling import PalamModel

ANSWER_LANGUAGE = "en"
"""For encoders that must be told a text's language."""


def coverage(text: Sequence[Tensor], answer: Sequence[Tensor]) -> float:
    """How near the nearest of an answer's tokens is to each of a text's, in the mean.

    For each token of the text the highest cosine with any token of the answer, in the mean over the
    tokens, special ones too, and over the layers: the recall of BERTScore (Zhang et al., arXiv
    1904.09675) between two languages, with all layers of the encoder.

    Args:
        text, answer: the states of each layer, [tokens of it, d_enc].

    Returns:
        From -1 to 1, a number only to compare answers to one text by; 0 where either has no token.
    """
    if not len(text[0]) or not len(answer[0]):
        return 0.0
    of_layers = [
        (F.normalize(mine.float(), dim=-1) @ F.normalize(other.float(), dim=-1).T).amax(1).mean()
        for mine, other in zip(text, answer, strict=True)
    ]
    return float(torch.stack(of_layers).mean())


def check_can_judge(model: PalamModel) -> None:
    """Refuse a model whose encoder cannot read answers, before any is made.

    Raises:
        PalamError: it must be told the language, and does not know English.
    """
    encoder_features(model, [""], ANSWER_LANGUAGE)


def best_answers(
    model: PalamModel,
    features: Sequence[Features],
    answers: Sequence[Sequence[str]],
    *,
    batch_size: int = 32,
) -> list[int]:
    """Which of the answers to each text says most of it, by [`coverage`]; of equals, the first.

    One without a word is taken only where all are.

    Args:
        model: whose encoder judges.
        features: of each text, as the encoder reads it.
        answers: to each text, one at least.
        batch_size: texts at a time.

    Returns:
        The place of an answer among those to its text, for each text.
    """
    distinct = list(dict.fromkeys(answer for of_text in answers for answer in of_text))
    of_answers = dict(
        encoder_states(
            model, encoder_features(model, distinct, ANSWER_LANGUAGE), batch_size=batch_size
        )
    )
    states_of = {answer: of_answers[place] for place, answer in enumerate(distinct)}
    chosen = [0] * len(features)
    for place, layers in encoder_states(model, features, batch_size=batch_size):
        scores = [
            coverage(layers, states_of[answer]) if says_something(answer) else -math.inf
            for answer in answers[place]
        ]
        chosen[place] = scores.index(max(scores))
    return chosen


def says_something(answer: str) -> bool:
    """Whether there is a letter or a digit in an answer."""
    return any(character.isalnum() for character in answer)
