"""What readings are compared with: answers that need no bridge, and the encoder without an LLM."""

import random
from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from palam.errors import PalamError
from palam.inference.encoder_states import encoder_features, encoder_states
from palam.inference.evaluation import Evaluation
from palam.inference.prediction import (
    Prediction,
    PredictionOptions,
    Predictor,
    predictions_of_readings,
)
from palam.models.modeling import PalamModel
from palam.tasks.task import Example, Task

COPY = "the text, copied"
UNRELATED = "an unrelated sentence"
OTHER_ANSWERS = "answers to other texts"
LLM_ALONE = "the LLM alone"
NEAREST = "nearest for the encoder"


def reading_references(
    model: PalamModel,
    task: Task,
    examples: dict[str, list[Example]],
    evaluation: Evaluation,
    *,
    seed: int = 0,
    **options: Unpack[PredictionOptions],
) -> dict[str, Evaluation]:
    """What a reading is compared with, by name; each in the same languages and of the same rows.

    These are: the source text as it stands; the English sentence of another row; the bridge's own
    answers, each given to another text; the LLM that reads the text itself; and the English
    sentence that is nearest to the text for the encoder (the cosine of the mean of its last layer's
    states), by which rows can be identified alone. The last two are left out where the LLM reads
    the texts itself already.

    Args:
        model, task, examples: that were evaluated.
        evaluation: of them.
        seed: of the draws.
        **options: see [`PredictionOptions`].

    Raises:
        PalamError: see [`check_comparable`].
    """
    check_comparable(examples)
    has_bridge = not (model.config.llm_only or options.get("llm_only"))
    names = [COPY, UNRELATED, OTHER_ANSWERS]
    if has_bridge:
        names += [LLM_ALONE, NEAREST]
    references = {
        name: Evaluation(task.name, evaluation.split, name, is_reading=True) for name in names
    }
    mode = model.processor.template.mode
    llm_alone = Predictor(model, task, **_without_bridge(options))
    for language, rows in examples.items():
        texts = [task.render(example, mode) for example in rows]
        sentences = [example.label for example in rows]
        answers = [str(row["prediction"]) for row in evaluation.of_language(language)]
        others = other_rows(sentences, seed)
        given = {
            COPY: texts,
            UNRELATED: [sentences[other] for other in others],
            OTHER_ANSWERS: [answers[other] for other in others],
        }
        for name, said in given.items():
            references[name].add(language, predictions_of_readings(rows, said, texts))
        if has_bridge:
            references[LLM_ALONE].add(language, llm_alone.predict(rows, language))
            nearest = _nearest_predictions(model, task, rows, texts, language)
            references[NEAREST].add(language, nearest)
    return references


def _without_bridge(options: PredictionOptions) -> PredictionOptions:
    """The same options for the LLM that reads the texts itself, without what needs the bridge."""
    decoding = dict(options.get("decoding") or {})
    for name in ("guidance_scale", "best_of"):
        decoding.pop(name, None)
    return {**options, "llm_only": True, "decoding": decoding}


def check_comparable(examples: Mapping[str, Sequence[Example]]) -> None:
    """Refuse rows for which there is no other sentence than their own.

    Args:
        examples: by language.

    Raises:
        PalamError: the first language that has no two rows with different sentences.
    """
    for language, rows in examples.items():
        if len({example.label for example in rows}) < 2:
            raise PalamError(
                f"{language}: references need two rows at least whose English sentences differ"
            )


def other_rows(sentences: Sequence[str], seed: int) -> list[int]:
    """For each row another one with another sentence, in an order drawn with the seed.

    Where all sentences differ, each row stands there once.

    Args:
        sentences: of the rows; two of them differ.
        seed: of the draw.
    """
    order = list(range(len(sentences)))
    random.Random(seed).shuffle(order)
    others = [0] * len(order)
    for place, row in enumerate(order):
        following = (place + 1) % len(order)
        while sentences[order[following]] == sentences[row]:
            following = (following + 1) % len(order)
        others[row] = order[following]
    return others


def _nearest_predictions(
    model: PalamModel,
    task: Task,
    rows: Sequence[Example],
    texts: Sequence[str],
    language: str,
) -> list[Prediction]:
    """The English sentence that is nearest to each text for the encoder."""
    sentences = [example.label for example in rows]
    sources = text_vectors(model, texts, language)
    english = text_vectors(model, sentences, task.reference_language)
    nearest = (sources @ english.T).argmax(1).tolist()
    predictions = []
    for place, (example, chosen) in enumerate(zip(rows, nearest, strict=True)):
        prediction = Prediction(
            row=example.row,
            label=example.label,
            prediction=sentences[chosen],
            identified=chosen == place,
        )
        predictions.append(prediction)
    return predictions


def text_vectors(
    model: PalamModel, texts: Sequence[str], language: str | None, *, batch_size: int = 32
) -> Tensor:
    """The mean of the encoder's last states of each text, with length 1.

    Args:
        model: whose encoder reads; of two, the first.
        texts: any strings.
        language: of all of them, for encoders that must be told.
        batch_size: texts at a time.

    Returns:
        [texts, d_enc] in fp32 on the CPU.
    """
    features = encoder_features(model, texts, language)
    vectors = torch.zeros(len(texts), model.config.encoder_hidden_size)
    last = model.config.encoder_num_layers - 1
    for place, layers in encoder_states(model, features, batch_size=batch_size):
        vectors[place] = layers[last].float().mean(0).cpu()
    return F.normalize(vectors, dim=-1)
