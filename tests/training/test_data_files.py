"""Files that texts are repeated in: none is trained on and validated on without a word."""

import json

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


def test_raw_lines_that_are_trained_on_and_validated_on_are_told(tmp_path):
    path = tmp_path / "lines.txt"
    lines = [f"line {number}" for number in range(39)] + ["line 0"]
    path.write_text("\n".join(lines))
    data = read_training_data(DataConfig(text_file=path), seed=0)
    assert len(data.train) == 38
    assert data.note == "the last 2 of 40 lines; 1 of them have a text that is trained on"


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
