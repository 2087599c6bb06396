import builtins
import json
import math
import os
import threading
from collections import Counter
from dataclasses import replace

import datasets
import pytest
from helpers import refusal

from palam.tasks.loading import (
    available,
    drained,
    load_split,
    native_language,
    task_from_file,
    train_and_dev,
)
from palam.tasks.readers import RowSource
from palam.tasks.registry import TASKS
from palam.tasks.task import Example, Hub, Task
from palam.tasks.writers import write_rows

SIB, XNLI = TASKS["sib200"], TASKS["xnli"]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("PALAM_DATA", raising=False)


def write(folder, name, rows):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rows if isinstance(rows, bytes) else "\n".join(map(json.dumps, rows)).encode())
    return path


def topics(n, text="t"):
    labels = list(SIB.labels)
    return [{"text": f"{text}{i}", "label": labels[i % 3]} for i in range(n)]


def test_a_split_of_a_data_folder(tmp_path, monkeypatch):
    write(
        tmp_path,
        "sib200/dev.sin_Sinh.jsonl",
        [{"text": "ශ්‍රී", "label": "travel"}, {"text": "", "label": 1}],
    )
    expected = [Example(0, {"text": "ශ්‍රී"}, "travel"), Example(1, {"text": ""}, "politics")]
    for split in ("dev", "validation"):
        for language in ("sin_Sinh", "si", "SIN"):
            assert load_split(SIB, split, language, data_dir=tmp_path) == expected
    monkeypatch.setenv("PALAM_DATA", str(tmp_path))
    assert load_split(SIB, "dev", "si") == expected
    assert available(SIB) == {"dev": ["sin_Sinh"]}


def test_a_folder_may_use_csv_and_iso_codes(tmp_path):
    write(tmp_path, "sib200/test.si.csv", b'label,text\nhealth,"a\nb"\n')
    assert load_split(SIB, "test", "sin_Sinh", data_dir=tmp_path) == [
        Example(0, {"text": "a\nb"}, "health")
    ]


def test_two_fields_and_the_labels_words(tmp_path):
    rows = [{"premise": "p", "hypothesis": "h", "label": x} for x in ("Neutral", 2, "0")]
    write(tmp_path, "xnli/dev.sw.jsonl", rows)
    loaded = load_split(XNLI, "dev", "swh_Latn", data_dir=tmp_path)
    assert [example.label for example in loaded] == ["neutral", "contradiction", "entailment"]
    assert loaded[0].fields == {"premise": "p", "hypothesis": "h"}


def test_what_is_missing_is_said_with_what_there_is(tmp_path, monkeypatch):
    for code in ("eng_Latn", "tam_Taml"):
        write(tmp_path, f"sib200/dev.{code}.jsonl", topics(1))
    message = refusal(load_split, SIB, "dev", "si", data_dir=tmp_path)
    assert 'no split "dev" of sib200 in Sinhala (sin_Sinh) in ' in message
    assert message.endswith("sib200: it has dev in eng_Latn, tam_Taml")
    assert 'no split "test" of sib200 in English' in refusal(
        load_split, SIB, "test", "en", data_dir=tmp_path
    )
    assert 'sib200 has no language "klingon"' in refusal(
        load_split, SIB, "dev", "klingon", data_dir=tmp_path
    )
    assert len(refusal(load_split, SIB, "dev", "klingon", data_dir=tmp_path)) < 200
    assert 'no folder "xnli" in the data folder' in refusal(
        load_split, XNLI, "dev", "en", data_dir=tmp_path
    )
    monkeypatch.setenv("PALAM_DATA", str(tmp_path / "nowhere"))
    assert refusal(load_split, SIB, "dev", "en").endswith("nowhere (PALAM_DATA)")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"", "dev.eng_Latn.jsonl is empty"),
        (b'\n{"text": "a"}', 'dev.eng_Latn.jsonl, line 2: no column "label" among text'),
        (b'{"label": "travel"}', 'line 1: no column "text" among label'),
        (b'{"text": [3], "label": "travel"}', 'line 1: column "text" holds [3], not a text'),
        (b'{"text": "a", "label": "trave"}', "line 1: label 'trave' is none of travel, politics"),
        (b'{"text": "a", "label": 7}', "line 1: label '7' is none of"),
        (b'{"text": "a", "label": null}', "dev.eng_Latn.jsonl: no row has a gold label"),
        (b'{"text": "a", "label": "nul"}', "line 1: label 'nul' is none of"),
        (b'{"text": "a", "label": ["travel"]}', "is neither a text nor a number"),
        (b'{"text": "a"', "line 1: not JSON"),
        (b"\xff\xfe", "dev.eng_Latn.jsonl is empty"),  # the mark of UTF-16, and nothing else
        (b"\xff\xfd", "line 1: not UTF-8"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path, row, message):
    write(tmp_path, "sib200/dev.eng_Latn.jsonl", row)
    assert message in refusal(load_split, SIB, "dev", "en", data_dir=tmp_path)


def test_the_tasks_own_codes_come_first(tmp_path):
    assert native_language(SIB, "zh") == "zho_Hans"
    assert native_language(XNLI, "zho_Hans") == "zh"
    assert "it has ar, bg, de, el, en, es, fr, hi, … (15 in all)" in refusal(
        native_language, XNLI, "si"
    )
    write(tmp_path, "xnli/test.si.jsonl", topics(1))  # a language that the folder adds
    assert native_language(XNLI, "sin", data_dir=tmp_path) == "si"


def test_packaged_data_is_read_unless_a_data_folder_is_given_or_has_the_task(tmp_path, monkeypatch):
    package, data = tmp_path / "package", tmp_path / "data"
    monkeypatch.setattr("palam.tasks.folder.packaged_folder", package.joinpath)
    write(package, "own/test.eng_Latn.jsonl", topics(2, "packaged"))
    data.mkdir()
    task = replace(SIB, name="mine", hub=None, packaged="own")
    assert load_split(task, "test", "en")[0].fields == {"text": "packaged0"}
    assert 'no folder "mine" in the data folder' in refusal(
        load_split, task, "test", "en", data_dir=data
    )
    monkeypatch.setenv("PALAM_DATA", str(data))
    assert load_split(task, "test", "en")[0].fields == {"text": "packaged0"}
    monkeypatch.delenv("PALAM_DATA")
    write(data, "mine/test.eng_Latn.jsonl", topics(2, "given"))
    assert load_split(task, "test", "en", data_dir=data)[0].fields == {"text": "given0"}
    message = refusal(load_split, replace(task, packaged=None), "test", "en")
    assert "give --data DIR or set PALAM_DATA" in message


def test_an_existing_dev_split_is_used(tmp_path):
    write(tmp_path, "sib200/train.eng_Latn.jsonl", topics(9))
    write(tmp_path, "sib200/dev.eng_Latn.jsonl", topics(3, "d"))
    train, dev, note = train_and_dev(SIB, data_dir=tmp_path)
    assert (len(train), [example.fields["text"] for example in dev]) == (9, ["d0", "d1", "d2"])
    assert note == "dev.eng_Latn"


def test_without_a_dev_split_a_tenth_of_train_is_held_out(tmp_path):
    write(tmp_path, "sib200/train.eng_Latn.jsonl", topics(90))
    write(tmp_path, "sib200/dev.tam_Taml.jsonl", topics(3))  # of no use: another language
    train, dev, note = train_and_dev(SIB, data_dir=tmp_path, seed=1)
    assert sorted(e.row for e in train + dev) == list(range(90))
    assert Counter(e.label for e in dev) == dict.fromkeys(list(SIB.labels)[:3], 3)
    assert note == "held out of train.eng_Latn: 9 of 90 rows, label-stratified, seed 1"
    assert train_and_dev(SIB, data_dir=tmp_path, seed=1)[1] == dev
    assert train_and_dev(SIB, data_dir=tmp_path, seed=2)[1] != dev
    write(tmp_path, "sib200/train.eng_Latn.jsonl", topics(2))
    assert [len(part) for part in train_and_dev(SIB, data_dir=tmp_path)[:2]] == [1, 1]
    write(tmp_path, "sib200/train.eng_Latn.jsonl", topics(1))
    assert "too few to hold one out" in refusal(train_and_dev, SIB, data_dir=tmp_path)


def test_a_users_file_becomes_a_task(tmp_path):
    path = write(tmp_path, "mail.csv", b'body,kind\n"one\ntwo",spam\nthree,ham\nfour,spam\n')
    task, examples = task_from_file(path, text_column="body", label_column="kind")
    assert (task.name, task.family, task.labels) == (
        "mail",
        "custom",
        {"spam": "spam", "ham": "ham"},
    )
    assert examples[0] == Example(0, {"text": "one\ntwo"}, "spam")
    assert task.render(examples[1], "paper") == "three Label: "
    task, _ = task_from_file(
        path,
        text_column="body",
        label_column="kind",
        labels={"ham": "wanted", "spam": "junk"},
        prompt="{text}\nMail is",
        name="m",
    )
    assert (task.name, task.prompt, list(task.labels)) == ("m", "{text}\nMail is", ["ham", "spam"])
    assert task.labels["spam"] == "junk"


def test_a_users_file_may_join_columns_and_number_its_labels(tmp_path):
    rows = [{"title": "T", "body": "{B}", "label": 5}, {"title": "U", "body": "", "label": 1}]
    task, examples = task_from_file(write(tmp_path, "a.jsonl", rows), text_column="{title}: {body}")
    assert [task.render(example) for example in examples] == ["T: {B}", "U: "]
    labels = [example.label for example in examples]
    assert labels == ["5", "1"]  # the label, not the label's number
    flags = [{"text": "a", "label": True}, {"text": "b", "label": False}]
    assert list(task_from_file(write(tmp_path, "b.jsonl", flags))[0].labels) == ["True", "False"]


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (b"", {}, "a.csv is empty"),
        (b"text,label\na,x\n", {"labels": ["y"]}, "a.csv, line 2: label 'x' is none of y"),
        (b"text,label\na,x\nb,\n", {}, "a.csv: every row has the label 'x'"),
        (b"text,label\na,x\nb,z\n", {"labels": "xy"}, "a.csv, line 3: label 'z' is none of x"),
        (
            b"text,label\na,x\n",
            {"label_column": "kind"},
            'line 2: no column "kind" among text, label',
        ),
        (
            b"text,label\na,x\n",
            {"text_column": "{body}"},
            'line 2: no column "body" among text, label',
        ),
        (b"text,label\na,x\n", {"text_column": "{body"}, "not a format string"),
        (b"text,label\na,x\n", {"prompt": "?"}, "must hold {text} once"),
    ],
)
def test_a_users_mistakes(tmp_path, data, settings, message):
    assert message in refusal(task_from_file, write(tmp_path, "a.csv", data), **settings)


HUB_CARD = """---
configs:
- config_name: en
  data_files: [{split: validation, path: en/validation.parquet}]
---
"""


@pytest.fixture
def hub_copy(tmp_path, monkeypatch):
    """A folder like facebook/xnli: one configuration a language, integer labels with names."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        premise=datasets.Value("string"),
        hypothesis=datasets.Value("string"),
        label=datasets.ClassLabel(names=["contradiction", "entailment", "neutral"]),
    )
    columns = {"premise": ["p", "q"], "hypothesis": ["h", "i"], "label": [0, 2]}
    folder = tmp_path / "xnli"
    (folder / "en").mkdir(parents=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(
        folder / "en" / "validation.parquet"
    )
    (folder / "README.md").write_text(HUB_CARD)
    return folder


def test_a_copy_of_the_hubs_repository(hub_copy):
    expected = [  # labels by the file's names, not in our order
        Example(0, {"premise": "p", "hypothesis": "h"}, "contradiction"),
        Example(1, {"premise": "q", "hypothesis": "i"}, "neutral"),
    ]
    assert load_split(XNLI, "dev", "en", data_dir=hub_copy.parent) == expected
    assert load_split(replace(XNLI, hub=Hub(str(hub_copy))), "validation", "eng") == expected
    message = refusal(load_split, XNLI, "dev", "fr", data_dir=hub_copy.parent)
    assert "cannot load" in message
    assert "(fr, validation)" in message
    assert "--data DIR or set PALAM_DATA" in message


class Rows(list):
    features: dict = {}


def test_the_hub_is_asked_for_the_tasks_names(monkeypatch):
    asked = []

    def load_dataset(path, config, *, split, revision):
        asked.append((path, config, split, revision))
        return Rows([{"sentence": "s", "text": "s", "label": "Science", "category": "health"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_split(SIB, "dev", "si")[0].label == "health"
    assert load_split(TASKS["sinhala_news"], "test", "sin")[0] == Example(
        0, {"text": "s"}, "Science/Technology"
    )
    pinned = replace(SIB, hub=replace(SIB.hub, revision="v1"))
    load_split(pinned, "test", "ta")
    assert asked == [
        ("Davlan/sib200", "sin_Sinh", "validation", None),
        ("Themira/en_si_news_classification_with_label_name", None, "test_si", None),
        ("Davlan/sib200", "tam_Taml", "test", "v1"),
    ]
    assert "it has train in en, si; test in en, si" in refusal(
        load_split, TASKS["sinhala_news"], "dev", "si"
    )
    assert available(XNLI)["dev"] == list(XNLI.languages)


def test_the_hubs_own_codes_integers_and_missing_labels(monkeypatch):
    asked = []

    def load_dataset(path, config, *, split, revision):
        asked.append((config, split, revision))
        return Rows(
            [
                {"premise": "p", "hypothesis": "h", "text": "a", "label": label}
                for label in (1, -1, 0)
            ]
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [e.label for e in load_split(TASKS["amazon_reviews"], "dev", "de")] == ["2", "1"]
    assert [e.label for e in load_split(TASKS["snli"], "dev", "en")] == ["neutral", "entailment"]
    assert [e.label for e in load_split(TASKS["tweet_sentiment"], "dev", "hi")] == [
        "neutral",
        "negative",
    ]
    load_split(TASKS["mnli"], "dev", "en")
    assert asked == [
        ("de", "validation", None),
        (None, "validation", None),
        ("hindi", "validation", "refs/convert/parquet"),
        (None, "validation_matched", None),
    ]


def test_escapes_are_read_as_characters(tmp_path):
    text = r"it\u2019s \ud83d\ude02 C:\users \u12"
    write(tmp_path, "tweet_sentiment/dev.en.jsonl", [{"text": text, "label": "positive"}])
    write(tmp_path, "sib200/dev.eng_Latn.jsonl", [{"text": text, "label": "health"}])
    (tweet,) = load_split(TASKS["tweet_sentiment"], "dev", "en", data_dir=tmp_path)
    assert tweet.fields["text"] == "it\u2019s \U0001f602 C:\\users \\u12"
    assert load_split(SIB, "dev", "en", data_dir=tmp_path)[0].fields["text"] == text


def test_an_unreachable_hub_is_one_line(monkeypatch):

    def load_dataset(*args, **settings):
        raise ConnectionError("Couldn't reach it\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = refusal(load_split, SIB, "dev", "si")
    assert message.startswith(
        "cannot load Davlan/sib200 (sin_Sinh, validation): Couldn't reach it; give --data"
    )


def test_without_the_extra_the_hub_needs_it(monkeypatch):
    real = builtins.__import__

    def without_datasets(name, *args, **settings):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **settings)

    monkeypatch.setattr(builtins, "__import__", without_datasets)
    assert 'pip install "palam[hub]", or give --data DIR' in refusal(load_split, SIB, "dev", "si")


def test_a_task_of_ones_own_needs_a_folder():
    task = Task(
        name="t",
        family="f",
        labels={"a": "a"},
        prompt="{text}",
        paper_text="{text}",
        languages=("en",),
    )
    assert "give --data DIR or set PALAM_DATA" in refusal(load_split, task, "dev", "en")


# --------------------------------------------------------------------------- gold labels
def test_rows_without_a_gold_label_are_skipped_and_counted_in_a_folder(tmp_path):
    missing = (-1, "-1", -1.0, "-", "", " ", None, math.nan)
    labels = ["travel", *missing, 1]
    rows = [{"text": f"t{number}", "label": label} for number, label in enumerate(labels)]
    path = write(tmp_path, "sib200/dev.eng_Latn.jsonl", rows)
    notes = []
    examples = load_split(SIB, "dev", "en", data_dir=tmp_path, notes=notes)
    assert [(example.row, example.label) for example in examples] == [
        (0, "travel"),
        (9, "politics"),
    ]
    assert notes == [
        f"{path}: 8 of 10 rows have no gold label (-1, -, empty) and are left out",
    ]


def test_rows_without_a_gold_label_are_skipped_and_counted_on_the_hub(monkeypatch):
    rows = [{"premise": "p", "hypothesis": "h", "label": label} for label in (0, -1, None, 2.0)]
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: Rows(rows))
    notes = []
    examples = load_split(TASKS["snli"], "dev", "en", notes=notes)
    assert [example.row for example in examples] == [0, 3]
    assert [example.label for example in examples] == ["entailment", "contradiction"]
    assert "2 of 4 rows have no gold label (-1, empty)" in notes[0]


def test_rows_without_a_gold_label_are_skipped_and_counted_in_a_file(tmp_path, caplog):
    path = write(tmp_path, "a.csv", b"text,label\na,0\nb,1\nc,-1\nd,-\n")
    task, examples = task_from_file(path)
    assert list(task.labels) == ["0", "1"]
    assert len(examples) == 2
    expected = "a.csv: 2 of 4 rows have no gold label (-1, -) and are left out; if -1 is a label"
    assert expected in caplog.text
    _, examples = task_from_file(path, labels=["-1", "0", "1", "-"], notes=[])
    assert [example.label for example in examples] == ["0", "1", "-1", "-"]


def test_minus_one_is_an_answer_where_numbers_are_worked_out(tmp_path):
    task = TASKS["mgsm"]
    column = task.label_column
    fields = dict.fromkeys(task.fields, "?")
    rows = [{**fields, column: answer} for answer in (-1, "-1", "", "-", None)]
    write(tmp_path, "mgsm/test.de.jsonl", rows)
    examples = load_split(task, "test", "de", data_dir=tmp_path, notes=[])
    assert [example.label for example in examples] == ["-1", "-1"]


@pytest.mark.parametrize("values", [(1.0, 5.0), ("1.0", "5.0"), (1, 5.0)])
def test_whole_numbers_that_pandas_wrote_as_floats_are_whole(tmp_path, values):
    rows = [{"text": str(value), "label": value} for value in values * 3]
    task, examples = task_from_file(write(tmp_path, "a.jsonl", rows))
    assert list(task.labels) == ["1", "5"]
    assert [example.label for example in examples] == ["1", "5"] * 3


def test_floats_that_are_not_whole_stay(tmp_path):
    rows = [{"text": "a", "label": value} for value in (1.0, 1.5, "2.0")]
    task, examples = task_from_file(write(tmp_path, "a.jsonl", rows))
    assert list(task.labels) == ["1.0", "1.5", "2.0"]
    assert [example.label for example in examples] == ["1.0", "1.5", "2.0"]


def test_a_whole_number_is_one_label_however_it_is_written(tmp_path):
    rows = [{"text": "a", "label": value} for value in (1, 1.0, 1.5, "2.0", 2)]
    task, examples = task_from_file(write(tmp_path, "a.jsonl", rows))
    assert list(task.labels) == ["1", "1.5", "2.0"]
    assert [example.label for example in examples] == ["1", "1", "1.5", "2.0", "2.0"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "a.jsonl: no row has a gold label"),
        (-1, "a.jsonl: no row has a gold label"),
        (["a"], "line 1: label \"['a']\" is neither a text nor a number"),
        ({"a": 1}, "is neither a text nor a number"),
    ],
)
def test_a_file_without_labels_is_refused(tmp_path, value, message):
    path = write(tmp_path, "a.jsonl", [{"text": "a", "label": value}] * 4)
    assert message in refusal(lambda: task_from_file(path))


COMPOSED, IN_PARTS = "caf\u00e9", "cafe\u0301"
SPELLINGS = [COMPOSED, IN_PARTS, "Caf\u00e9", f" {COMPOSED} ", COMPOSED, "bar"]


def test_labels_that_differ_in_case_and_space_are_named(tmp_path):
    rows = [{"text": f"t{number}", "label": label} for number, label in enumerate(SPELLINGS)]
    path = write(tmp_path, "a.jsonl", rows)
    notes = []
    task, examples = task_from_file(path, notes=notes)
    composed = [COMPOSED, COMPOSED, *SPELLINGS[2:]]  # in parts, it is the same to the LLM
    assert list(task.labels) == list(dict.fromkeys(composed))
    assert [example.label for example in examples] == composed
    (note,) = notes
    assert "differ only in case or space" in note
    assert f"'{COMPOSED}' (3 rows), 'Caf\u00e9' (1 rows), ' {COMPOSED} ' (1 rows)" in note
    assert "bar" not in note


def test_labels_that_differ_in_case_space_and_normal_form_can_be_merged(tmp_path):
    rows = [{"text": f"t{number}", "label": label} for number, label in enumerate(SPELLINGS)]
    path = write(tmp_path, "a.jsonl", rows)
    notes = []
    task, examples = task_from_file(path, merge_labels=True, notes=notes)
    assert list(task.labels) == [COMPOSED, "bar"]
    assert [example.label for example in examples] == [COMPOSED] * 5 + ["bar"]
    assert notes == []


def test_a_tasks_own_labels_are_found_whatever_their_spelling(tmp_path):
    rows = [{"text": "a", "label": " Travel\u00a0"}, {"text": "b", "label": "SCIENCE"}]
    write(tmp_path, "sib200/dev.eng_Latn.jsonl", rows)
    labels = [example.label for example in load_split(SIB, "dev", "en", data_dir=tmp_path)]
    assert labels == ["travel", "science/technology"]


# --------------------------------------------------------------------------- repeated texts
def repeated(num_texts, times):
    rows = [
        {"text": f"Review {i}.", "label": ("travel", "health")[i % 2]} for i in range(num_texts)
    ]
    return rows * times


def test_a_repeated_text_is_on_one_side_of_the_split(tmp_path):
    write(tmp_path, "sib200/train.eng_Latn.jsonl", repeated(40, 3))
    train, dev, note = train_and_dev(SIB, data_dir=tmp_path)
    texts = [{example.fields["text"] for example in part} for part in (train, dev)]
    assert not texts[0] & texts[1]
    assert len(texts[1]) == 4
    assert (len(train), len(dev)) == (108, 12)
    assert Counter(example.label for example in dev) == {"travel": 6, "health": 6}
    assert note.endswith("seed 0; 120 rows repeat a text, and each text is on one side")


def test_a_single_text_cannot_be_held_out(tmp_path):
    write(tmp_path, "sib200/train.eng_Latn.jsonl", [{"text": "A a", "label": "travel"}] * 20)
    message = refusal(train_and_dev, SIB, data_dir=tmp_path)
    assert message == "20 rows with one text are too few to hold some out"


def test_texts_of_the_dev_split_that_are_trained_on_are_told(tmp_path):
    write(tmp_path, "sib200/train.eng_Latn.jsonl", topics(9))
    write(tmp_path, "sib200/dev.eng_Latn.jsonl", [*topics(2, "T"), *topics(3, "d")])
    notes = []
    _, dev, note = train_and_dev(SIB, data_dir=tmp_path, notes=notes)
    assert len(dev) == 5
    assert note == "dev.eng_Latn; 2 of its 5 rows have a text that is trained on"
    assert notes == [f"sib200: {note.replace(';', ':')}"]


# --------------------------------------------------------------------------- files
def test_a_data_folder_may_have_tables_and_arrays(tmp_path):
    write(tmp_path, "sib200/dev.en.tsv", b"text\tlabel\na\thealth\n")
    write(tmp_path, "sib200/test.en.json", b'[{"text": "a", "label": "health"}]')
    for split in ("dev", "test"):
        (example,) = load_split(SIB, split, "en", data_dir=tmp_path)
        assert example == Example(0, {"text": "a"}, "health")
    write(tmp_path, "sib200/dev.en.csv", b"text,label\na,health\n")
    assert "holds dev.en.csv and dev.en.tsv: take one out" in refusal(
        load_split, SIB, "dev", "en", data_dir=tmp_path
    )


@pytest.mark.parametrize("ending", ["xlsx", "parquet"])
def test_a_data_folder_may_have_workbooks_and_parquet(tmp_path, ending):
    folder = tmp_path / "sib200"
    folder.mkdir()
    for split, text in (("dev", "ශ්‍රී"), ("test", 7)):
        with (folder / f"{split}.sin_Sinh.{ending}").open("wb") as file:
            write_rows([{"text": text, "label": "health"}], ["text", "label"], file, ending)
    (folder / f"~$dev.sin_Sinh.{ending}").write_bytes(b"opened by")
    (example,) = load_split(SIB, "dev", "si", data_dir=tmp_path)
    assert example == Example(0, {"text": "ශ්‍රී"}, "health")
    (example,) = load_split(SIB, "test", "si", data_dir=tmp_path)
    assert example.fields == {"text": "7"}


def test_a_sheet_or_a_format_that_is_named_is_the_one_read(tmp_path):
    path = tmp_path / "letters.data"
    with path.open("wb") as file:
        rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
        write_rows(rows, ["text", "label"], file, "xlsx")
    source = RowSource(path, file_format="xlsx", sheet="Sheet1")
    _, examples = task_from_file(source)
    assert [example.label for example in examples] == ["x", "y"]


def test_columns_may_have_any_names(tmp_path):
    data = b"review.text,0,label,a{b\nsoup,x,bad,1\ncake,y,good,2\n"
    path = write(tmp_path, "a.csv", data)
    for template, texts in {
        "{review.text}": ["soup", "cake"],
        "{0}": ["x", "y"],
        "{{{0}}} {review.text}!": ["{x} soup!", "{y} cake!"],
        "review.text": ["soup", "cake"],
    }.items():
        task, examples = task_from_file(path, text_column=template)
        assert [task.render(example) for example in examples] == texts


def test_a_labelled_pipe_is_read_once(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    data = "text,label\na,x\nb,y\n"
    writer = threading.Thread(target=(tmp_path / "a.csv").write_text, args=(data,), daemon=True)
    writer.start()
    _, examples = task_from_file(tmp_path / "a.csv")
    assert len(examples) == 2


def test_rows_leave_the_list_as_they_are_read():
    rows = [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    reading = drained(rows)
    assert next(reading) == {"text": "a"}
    assert len(rows) == 2
    assert list(reading) == [{"text": "b"}, {"text": "c"}]
    assert rows == []
