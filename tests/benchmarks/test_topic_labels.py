"""Topics by the encoder's similarity: `benchmarks/topic_labels.py`."""

import json
import sys

import numpy as np
import pytest
import torch
from helpers import benchmark_script

from palam.tasks.readers import RowSource
from palam.tasks.soft_labels import read_soft_labels


@pytest.fixture(scope="module")
def topic_labels():
    return benchmark_script("topic_labels")


def test_a_topic_is_as_near_as_it_is_to_other_texts(topic_labels):
    generator = torch.Generator().manual_seed(0)
    texts, topics = (
        torch.nn.functional.normalize(torch.randn(n, 6, generator=generator), dim=-1)
        for n in (9, 4)
    )
    similarity = texts.numpy() @ topics.numpy().T
    expected = (similarity - similarity.mean(0)) / similarity.std(0, ddof=1)
    scores = topic_labels.topic_scores(texts, topics)
    assert np.allclose(scores.numpy(), expected, atol=1e-5)
    nearest = topic_labels.soft_labels(scores[2], ["a", "b", "c", "d"])
    order = np.argsort(-expected[2])
    assert list(nearest) == ["abcd"[place] for place in order]
    assert max(nearest.values()) == pytest.approx(3 * expected[2].max(), abs=1e-3)


def test_the_clearest_texts_are_taken(topic_labels):
    scores = torch.tensor([[0.0, 0.1, 0.2], [0.0, 0.0, 3.0], [0.0, 1.0, 1.1], [2.0, 0.0, 0.1]])
    assert topic_labels.clearest(scores, 0.5) == [1, 3]
    assert topic_labels.clearest(scores, 1.0) == [0, 1, 2, 3]


def test_a_file_of_texts(topic_labels, tiny_model, tmp_path, monkeypatch):
    tiny_model().save_pretrained(tmp_path / "bridge")
    english = tmp_path / "english.txt"
    english.write_text("The team won.\n\nRice is food.\nA book about the Moon.\nI am home.\n")
    out = tmp_path / "topics.jsonl"
    options = [str(english), "--out", str(out), "--bridge", str(tmp_path / "bridge")]
    monkeypatch.setattr(sys, "argv", ["topic_labels.py", *options, "--share", "1"])
    topic_labels.main()
    rows = list(read_soft_labels(RowSource(out), {"text": "text"}))
    assert [row.fields["text"] for row in rows][:2] == ["The team won.", "Rice is food."]
    assert len(rows) == 4
    known = set(topic_labels.topic_words())
    assert {"science", "daily life"} < known
    assert all(set(row.answer.answers) <= known for row in rows)
    assert len(json.loads(out.read_text().splitlines()[0])["scores"]) == 8
