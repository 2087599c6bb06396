"""Files that texts are repeated in: none is trained on and validated on without a word."""

import json

import pytest

from palam.errors import PalamError
from palam.training.config import DataConfig
from palam.training.data import read_training_data


def texts_of(examples):
    return {example.fields["text"] for example in examples}


def test_a_labelled_files_repeated_texts_are_on_one_side(tmp_path):
    path = tmp_path / "reviews.jsonl"
    rows = [{"text": f"Review {number}.", "label": "ab"[number % 2]} for number in range(40)] * 3
    path.write_text("\n".join(map(json.dumps, rows)))
    data = read_training_data(DataConfig(file=path), seed=0)
    assert not texts_of(data.train) & texts_of(data.dev)
    assert len(data.train) + len(data.dev) == 120
    assert len(texts_of(data.dev)) == 4
    assert data.note == (
        "held out of reviews.jsonl: 12 of 120 rows; "
        "120 rows repeat a text, and each text is on one side"
    )


def test_repeated_raw_lines_are_on_one_side(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"line {number}" for number in range(40)) + "\nline 0")
    data = read_training_data(DataConfig(text_file=path), seed=0)
    assert not texts_of(data.train) & texts_of(data.dev)
    assert len(data.train) + len(data.dev) == 41
    repeats = "2 rows repeat a text, and each text is on one side"
    assert data.note == f"{len(data.dev)} of 41 lines; {repeats}"


def test_raw_lines_to_validate_on_are_from_everywhere_in_the_file(tmp_path):
    path = tmp_path / "lines.txt"
    sources = [f"{source} {number}" for source in ("news", "web", "law") for number in range(400)]
    path.write_text("\n".join(sources))
    data = read_training_data(DataConfig(text_file=path), seed=0)
    assert len(data.dev) == 60
    assert {text.split()[0] for text in texts_of(data.dev)} == {"news", "web", "law"}
    again = read_training_data(DataConfig(text_file=path), seed=0)
    assert data.dev == again.dev
    assert data.dev != read_training_data(DataConfig(text_file=path), seed=1).dev


def test_softly_labelled_texts_that_are_validated_on_are_not_learned(tmp_path):
    rows = [{"text": f"Review {number}.", "label": "ab"[number % 2]} for number in range(40)]
    labelled = tmp_path / "reviews.jsonl"
    labelled.write_text("\n".join(map(json.dumps, rows)))
    scores = {"a": -0.1, "b": -2.4}
    soft = tmp_path / "soft.jsonl"
    texts = [row["text"].upper() for row in rows] + ["Another."]
    soft.write_text("\n".join(json.dumps({"text": text, "scores": scores}) for text in texts))
    notes = []
    config = DataConfig(file=labelled, soft_label_file=soft)
    data = read_training_data(config, seed=0, notes=notes)
    learned = {row.fields["text"].lower() for row in data.soft}
    assert len(learned) == 37
    assert not learned & {text.lower() for text in texts_of(data.dev)}
    note = "soft.jsonl: 4 of 41 texts are for validation, and not learned"
    assert notes == [note]
    assert note in data.inspection.notes
    validated = [text.upper() for text in texts_of(data.dev)]
    soft.write_text("\n".join(json.dumps({"text": text, "scores": scores}) for text in validated))
    with pytest.raises(PalamError, match="holds validation texts alone"):
        read_training_data(config, seed=0)


def test_pairs_of_a_lexicon_that_are_not_used_are_told_with_the_data(tmp_path):
    lexicon = tmp_path / "lexicon.csv"
    lexicon.write_text("word,translation,language\nline,mstari,sw\nice cream,x,sw\n")
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(f"line {number}" for number in range(40)))
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"line {n},{'ab'[n % 2]}\n" for n in range(40)))
    for source in ({"text_file": lines}, {"file": rows}):
        notes = []
        data = read_training_data(DataConfig(**source, lexicon=lexicon), seed=0, notes=notes)
        assert data.lexicon.by_language == {"sw": {"line": ("mstari",)}}
        assert data.inspection.notes == notes
        assert "1 of 2 pairs are for no single word" in notes[0]


def test_raw_text_is_of_the_column_that_is_named(tmp_path):
    path = tmp_path / "lines.csv"
    path.write_text("Article,text\n" + "".join(f"line {n},no\n" for n in range(40)))
    data = read_training_data(DataConfig(text_file=path, text_column="Article"), seed=0)
    assert texts_of([*data.train, *data.dev]) == {f"line {n}" for n in range(40)}


def test_a_lexicon_that_would_change_nothing_is_refused(tmp_path):
    """Its columns are in each other's place."""
    lexicon = tmp_path / "lexicon.csv"
    lexicon.write_text("word,translation,language\nපොත,line,si\n", encoding="utf-8")
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(f"line {number}" for number in range(40)))
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"line {n},{'ab'[n % 2]}\n" for n in range(40)))
    for source in ({"text_file": lines}, {"file": rows}):
        with pytest.raises(PalamError, match="no word of the lexicon is in the texts to train on"):
            read_training_data(DataConfig(**source, lexicon=lexicon), seed=0)
