"""A reader of batches: what singles give, in columns; a row that fails; repeated texts."""

import pickle

import numpy as np
import pyarrow
import pytest
from helpers import refusal

from palam import PalamModel, generate, score_labels
from palam.inference.scoring import LabelScorer
from palam.scale.failures import Failure, results_or_failures
from palam.scale.reader import BridgeReader, ReaderLoading, TextColumns
from palam.scale.work import Answering, Labelling, probabilities

CPU = ReaderLoading(device="cpu", dtype="fp32")
LABELS = Labelling(("good", "bad"))
TEXTS = [f"the {number} fox " + "jumps over " * (number % 5) for number in range(12)]


@pytest.fixture
def reader(bridge):
    return BridgeReader(bridge, LABELS, loading=CPU)


def test_labels_are_those_of_single_texts(bridge, reader):
    model = PalamModel.from_pretrained(bridge)
    result = reader({"text": TEXTS})
    assert list(result) == ["text", "prediction", "confidence", "good", "bad", "error"]
    for number, text in enumerate(TEXTS):
        scores = score_labels(model, [text], ["good", "bad"])[0].tolist()
        expected = probabilities(scores)
        assert result["good"][number] == pytest.approx(expected[0], abs=1e-4)
        assert result["bad"][number] == pytest.approx(expected[1], abs=1e-4)
        assert result["confidence"][number] == pytest.approx(max(expected), abs=1e-4)
        assert result["prediction"][number] == ("good" if expected[0] > expected[1] else "bad")
    assert result["error"] == [None] * len(TEXTS)


def test_answers_are_those_of_single_texts(bridge):
    model = PalamModel.from_pretrained(bridge)
    reader = BridgeReader(bridge, Answering(max_new_tokens=4), loading=CPU)
    result = reader({"text": TEXTS})
    singles = [generate(model, [text], max_new_tokens=4)[0] for text in TEXTS]
    assert list(result) == ["text", "answer", "error"]
    assert result["answer"] == singles


@pytest.mark.parametrize("kind", ["lists", "arrays", "table", "record batch"])
def test_a_batch_of_each_kind_gives_one_of_the_same_kind(reader, kind):
    columns = {"id": [1, 2, 3], "text": ["a", "the fox", "a"]}
    batch = {
        "lists": lambda: columns,
        "arrays": lambda: {name: np.array(values) for name, values in columns.items()},
        "table": lambda: pyarrow.table(columns),
        "record batch": lambda: pyarrow.RecordBatch.from_pydict(columns),
    }[kind]()
    result = reader(batch)
    assert type(result) is type(batch)
    if kind in ("table", "record batch"):
        added = {"confidence": "double", "prediction": "string", "error": "string"}
        assert {name: str(result.schema.field(name).type) for name in added} == added
        result = result.to_pydict()
    elif kind == "arrays":
        assert all(isinstance(values, np.ndarray) for values in result.values())
    expected = reader(columns)
    for name, values in expected.items():
        assert list(result[name]) == values


def test_an_empty_batch_has_the_same_columns(reader):
    empty = reader(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}))
    assert empty.schema == reader(pyarrow.table({"text": ["a"]})).schema


def test_a_row_that_fails_has_its_error_and_the_others_their_results(reader):
    invalid = pyarrow.array([b"good text", b"\xff\xfe"], pyarrow.binary())
    bad_utf8 = pyarrow.Array.from_buffers(pyarrow.string(), 2, invalid.buffers())
    unreadable = reader(pyarrow.table({"text": bad_utf8})).column("error").to_pylist()
    assert unreadable[0] is None
    assert "utf-8" in unreadable[1]
    result = reader({"text": ["a", ["no", "text"], "the fox"]})
    assert result["prediction"][1] is None
    assert result["confidence"][1] is None
    assert "holds ['no', 'text'], not a text" in result["error"][1]
    assert [result["error"][0], result["error"][2]] == [None, None]
    assert result["prediction"][0] == reader({"text": ["a"]})["prediction"][0]


def test_a_text_that_the_model_cannot_read_fails_alone(reader, monkeypatch):
    score = LabelScorer.score

    def picky_score(self, texts, *arguments, **options):
        if any("jumps over jumps over jumps" in text for text in texts):
            raise RuntimeError("too much\nof it")
        return score(self, texts, *arguments, **options)

    monkeypatch.setattr(LabelScorer, "score", picky_score)
    errors = reader({"text": TEXTS})["error"]
    assert [error is not None for error in errors] == [number % 5 >= 3 for number in range(12)]
    assert set(errors) == {None, "RuntimeError: too much"}


def test_a_failing_device_is_no_rows_fault():
    def read(rows):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory"):
        results_or_failures(read, [0, 1])


def test_only_as_many_readings_as_failures_need():
    calls = []

    def read(rows):
        calls.append(rows)
        if 5 in rows:
            raise ValueError("five")
        return [{"row": row} for row in rows]

    results = results_or_failures(read, list(range(16)))
    assert results[5] == Failure("ValueError: five")
    assert [results[row]["row"] for row in range(16) if row != 5] == [*range(5), *range(6, 16)]
    assert len(calls) == 9  # 16, and two of each of 8, 4, 2, 1


def test_repeated_texts_are_read_once_within_a_batch_and_over_batches(reader, scored_texts):
    first = reader({"text": ["a", "b", "a", "a"]})
    assert scored_texts == ["a", "b"]
    second = reader({"text": ["b", "c", "a"]})
    assert scored_texts == ["a", "b", "c"]
    assert second["good"][2] == first["good"][0] == first["good"][3]


def test_the_memory_of_texts_is_bounded(bridge, scored_texts):
    reader = BridgeReader(bridge, LABELS, loading=CPU, memory=2)
    for text in ("a", "b", "c", "c", "a"):
        reader({"text": [text]})
    assert scored_texts == ["a", "b", "c", "a"]


def test_languages_part_texts_and_sampled_answers_are_never_shared(bridge, scored_texts):
    columns = TextColumns(language_column="lang")
    reader = BridgeReader(bridge, LABELS, columns=columns, loading=CPU)
    result = reader({"text": ["a", "a", "a"], "lang": ["en", "si", "klingon?"]})
    assert scored_texts == ["a", "a"]
    assert "which is no language" in result["error"][2]
    sampled = BridgeReader(bridge, Answering(temperature=5, max_new_tokens=8), loading=CPU)
    assert len(set(sampled({"text": ["a"] * 4})["answer"])) > 1


def test_a_reader_that_was_sent_loads_its_model_where_it_arrives(reader):
    expected = reader({"text": TEXTS})
    sent = pickle.dumps(reader)
    assert len(sent) < 2000
    assert pickle.loads(sent)({"text": TEXTS}) == expected


def test_own_columns_are_never_replaced(reader):
    result = reader({"text": ["a"], "prediction": ["mine"], "good": ["mine"], "error": [0]})
    assert [result["prediction"], result["good"], result["error"]] == [["mine"], ["mine"], [0]]
    assert result["palam_error"] == [None]
    assert {"palam_prediction", "palam_good", "bad"} <= set(result)


def test_a_missing_column_is_refused_once_and_for_all_rows(reader):
    assert refusal(reader, {"body": ["a"]}) == 'the batch has no column "text" among body'


def test_nothing_is_printed(reader, capfd):
    reader({"text": ["a"]})
    assert capfd.readouterr() == ("", "")
