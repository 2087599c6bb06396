"""Topics for English texts that have none, by the encoder's own similarity: soft labels.

Each text and each topic is read by the encoder of a bridge; how near they are, against how near
that topic is to the other texts, gives the topics' log-probabilities. The result is what
`palam pretrain --objectives.label 1 --soft-label-file` reads, and what `starter:bridge` has
learned labels from. Nothing is labelled by hand, and no text in another language is read::

    python benchmarks/topic_labels.py english.txt --out topics.jsonl
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from palam import PalamModel
from palam.inference.reading_references import text_vectors
from palam.tasks.readers import read_texts
from palam.utils.files import atomic_file

TOPICS = """
science, technology, travel, politics, sports, health, entertainment, geography, history,
business, crime, war, religion, education, food, nature, environment, weather, disaster, family,
art, literature, language, mathematics, shopping, fashion, work, law, philosophy, emotion,
medicine, computers, space, animals, plants, music, film, television, football, economy, money,
government, elections, police, transport, cars, aviation, ships, tourism, cities, rivers,
mountains, energy, farming, industry, agriculture, physics, chemistry, biology, psychology,
architecture, military, children, women, society, culture, media, games, books, school, sleep,
home, love, death, time, colors, daily life, human rights, social media
"""
"""Words that the LLM may answer with, between commas."""
SENTENCE = "This text is about {topic}."
"""How the encoder reads a topic."""
QUERY = "query: "
"""What E5 was trained to read in front of every text."""
SHARPNESS = 3.0
"""What a standard deviation of similarity is worth, in nats."""
KEPT_TOPICS = 8
"""Of each text, the nearest."""


def topic_words() -> list[str]:
    """Of `TOPICS`, each."""
    return [" ".join(topic.split()) for topic in TOPICS.split(",")]


def topic_scores(texts: Tensor, topics: Tensor) -> Tensor:
    """How near each text is to each topic, in standard deviations over the texts.

    Args:
        texts, topics: vectors of length 1 [n, d] and [m, d].

    Returns:
        [n, m]
    """
    similarity = texts @ topics.T
    return (similarity - similarity.mean(0)) / similarity.std(0)


def clearest(scores: Tensor, share: float) -> list[int]:
    """The texts whose nearest topic stands out most from the topic in the middle.

    Args:
        scores: [texts, topics].
        share: of the texts.
    """
    gap = scores.max(1).values - scores.median(1).values
    least = gap.quantile(1 - share)
    rows: list[int] = (gap >= least).nonzero()[:, 0].tolist()
    return rows


def soft_labels(scores: Tensor, topics: Sequence[str]) -> dict[str, float]:
    """The log-probabilities, up to a constant, of a text's nearest topics.

    Args:
        scores: of the text [topics].
        topics: their words.
    """
    nearest = scores.topk(min(KEPT_TOPICS, len(topics)))
    pairs = zip(nearest.indices.tolist(), nearest.values.tolist(), strict=True)
    return {topics[place]: round(SHARPNESS * value, 3) for place, value in pairs}


def main() -> None:
    """Label the texts of a file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("text_file", type=Path, help="English, a text a line")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    parser.add_argument("--bridge", default="starter:bridge", help="whose encoder reads")
    parser.add_argument("--share", type=float, default=0.5, help="of the texts, the clearest")
    options = parser.parse_args()
    topics = topic_words()
    texts = [text for text in read_texts(options.text_file) if text.strip()]
    model = PalamModel.from_pretrained(options.bridge)

    def vectors(read: Sequence[str]) -> Tensor:
        return text_vectors(model, [QUERY + text for text in read], "en", batch_size=64)

    with torch.no_grad():
        scores = topic_scores(vectors(texts), vectors([SENTENCE.format(topic=t) for t in topics]))
    rows = clearest(scores, options.share)
    with atomic_file(options.out) as file:
        for row in rows:
            line = {"text": texts[row], "scores": soft_labels(scores[row], topics)}
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    print(f"{len(rows):,} of {len(texts):,} texts labelled")


if __name__ == "__main__":
    main()
