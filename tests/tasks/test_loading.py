import builtins
import json
import math
from collections import Counter
from dataclasses import replace

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palam.errors import PalamError
from palam.tasks.loading import (
    available,
    load_split,
    native_language,
    task_from_file,
    train_and_dev,
)
from palam.tasks.registry import TASKS
from palam.tasks.sampling import balanced, sample
from palam.tasks.task import Example, Hub, Task

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


def error(call, *args, **settings):
    with pytest.raises(PalamError) as caught:
        call(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    message = error(load_split, SIB, "dev", "si", data_dir=tmp_path)
    assert 'no split "dev" of sib200 in Sinhala (sin_Sinh) in ' in message
    assert message.endswith("sib200: it has dev in eng_Latn, tam_Taml")
    assert 'no split "test" of sib200 in English' in error(
        load_split, SIB, "test", "en", data_dir=tmp_path
    )
    assert 'sib200 has no language "klingon"' in error(
        load_split, SIB, "dev", "klingon", data_dir=tmp_path
    )
    assert len(error(load_split, SIB, "dev", "klingon", data_dir=tmp_path)) < 200
    assert 'no folder "xnli" in the data folder' in error(
        load_split, XNLI, "dev", "en", data_dir=tmp_path
    )
    monkeypatch.setenv("PALAM_DATA", str(tmp_path / "nowhere"))
    assert error(load_split, SIB, "dev", "en").endswith("nowhere (PALAM_DATA)")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"", "dev.eng_Latn.jsonl is empty"),
        (b'\n{"text": "a"}', 'dev.eng_Latn.jsonl, line 2: no column "label" among text'),
        (b'{"label": "travel"}', 'line 1: no column "text" among label'),
        (b'{"text": 3, "label": "travel"}', 'line 1: column "text" holds 3, not a text'),
        (b'{"text": "a", "label": "trave"}', "line 1: label 'trave' is none of travel, politics"),
        (b'{"text": "a", "label": 7}', "line 1: label '7' is none of"),
        (b'{"text": "a", "label": null}', "line 1: label 'None' is none of"),
        (b'{"text": "a", "label": ["travel"]}', "is none of"),
        (b'{"text": "a"', "line 1: not JSON"),
        (b"\xff\xfe", "line 1: not UTF-8"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path, row, message):
    write(tmp_path, "sib200/dev.eng_Latn.jsonl", row)
    assert message in error(load_split, SIB, "dev", "en", data_dir=tmp_path)


def test_the_tasks_own_codes_come_first(tmp_path):
    assert native_language(SIB, "zh") == "zho_Hans"
    assert native_language(XNLI, "zho_Hans") == "zh"
    assert "it has ar, bg, de, el, en, es, fr, hi, … (15 in all)" in error(
        native_language, XNLI, "si"
    )
    write(tmp_path, "xnli/test.si.jsonl", topics(1))  # a language that the folder adds
    assert native_language(XNLI, "sin", data_dir=tmp_path) == "si"


def test_packaged_data_is_read_unless_a_data_folder_is_given_or_has_the_task(tmp_path, monkeypatch):
    package, data = tmp_path / "package", tmp_path / "data"
    monkeypatch.setattr("palam.tasks.loading.__file__", str(package / "tasks" / "loading.py"))
    write(package, "own/test.eng_Latn.jsonl", topics(2, "packaged"))
    data.mkdir()
    task = replace(SIB, name="mine", hub=None, packaged="own")
    assert load_split(task, "test", "en")[0].fields == {"text": "packaged0"}
    assert 'no folder "mine" in the data folder' in error(
        load_split, task, "test", "en", data_dir=data
    )
    monkeypatch.setenv("PALAM_DATA", str(data))
    assert load_split(task, "test", "en")[0].fields == {"text": "packaged0"}
    monkeypatch.delenv("PALAM_DATA")
    write(data, "mine/test.eng_Latn.jsonl", topics(2, "given"))
    assert load_split(task, "test", "en", data_dir=data)[0].fields == {"text": "given0"}
    message = error(load_split, replace(task, packaged=None), "test", "en")
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
    assert "too few to hold one out" in error(train_and_dev, SIB, data_dir=tmp_path)


@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=60),
    st.integers(1, 70),
    st.integers(0, 5),
)
def test_a_sample_is_stratified_ordered_and_repeatable(labels, limit, seed):
    examples = [Example(i, {"text": str(i)}, label) for i, label in enumerate(labels)]
    chosen = sample(examples, limit, seed)
    rows = [example.row for example in chosen]
    assert len(rows) == len(set(rows)) == min(limit, len(labels))
    assert rows == sorted(rows)
    assert chosen == sample(examples, limit, seed)
    counts = Counter(example.label for example in chosen)
    for label, count in Counter(labels).items():
        exact = min(limit, len(labels)) * count / len(labels)
        assert math.floor(exact) <= counts[label] <= math.ceil(exact)


def test_a_sample_of_sorted_rows_is_not_the_first_of_them():
    examples = [Example(i, {}, "a" if i < 50 else "b") for i in range(100)]
    rows = [example.row for example in sample(examples, 20, 0)]
    assert sum(row < 50 for row in rows) == 10
    assert rows[:10] != list(range(10))
    assert rows != [example.row for example in sample(examples, 20, 1)]
    assert {sample(examples, 1, seed)[0].label for seed in range(20)} == {"a", "b"}
    assert sample(examples, None) == sample(examples, 100) == examples
    assert "1 at least" in error(sample, examples, 0)


def test_parallel_languages_give_the_same_rows():
    english = [Example(i, {"text": f"e{i}"}, "abc"[i % 3]) for i in range(30)]
    tamil = [Example(i, {"text": f"t{i}"}, "abc"[i % 3]) for i in range(30)]
    assert [e.row for e in sample(english, 7, 3)] == [e.row for e in sample(tamil, 7, 3)]


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
    assert [example.label for example in examples] == [
        "5",
        "1",
    ]  # the label, not the label's number
    flags = [{"text": "a", "label": True}, {"text": "b", "label": False}]
    assert list(task_from_file(write(tmp_path, "b.jsonl", flags))[0].labels) == ["True", "False"]


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (b"", {}, "a.csv is empty"),
        (b"text,label\na,x\n", {"labels": ["y"]}, "a.csv, line 2: label 'x' is none of y"),
        (b"text,label\na,x\nb,\n", {}, "a.csv, line 3: label '' is none of x"),
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
    assert message in error(task_from_file, write(tmp_path, "a.csv", data), **settings)


HUB_CARD = """---
configs:
- config_name: en
  data_files: [{split: validation, path: en/validation.parquet}]
---
"""


@pytest.fixture
def hub_copy(tmp_path, monkeypatch):
    """A folder laid out like facebook/xnli: one configuration a language, integer labels with names."""
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
    expected = [
        Example(
            0, {"premise": "p", "hypothesis": "h"}, "contradiction"
        ),  # by the file's names, not our order
        Example(1, {"premise": "q", "hypothesis": "i"}, "neutral"),
    ]
    assert load_split(XNLI, "dev", "en", data_dir=hub_copy.parent) == expected
    assert load_split(replace(XNLI, hub=Hub(str(hub_copy))), "validation", "eng") == expected
    message = error(load_split, XNLI, "dev", "fr", data_dir=hub_copy.parent)
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
    assert "it has train in en, si; test in en, si" in error(
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
    read = load_split(TASKS["tweet_sentiment"], "dev", "en", data_dir=tmp_path)[0].fields["text"]
    assert read == "it\u2019s \U0001f602 C:\\users \\u12"
    assert load_split(SIB, "dev", "en", data_dir=tmp_path)[0].fields["text"] == text


@pytest.mark.parametrize("seed", [0, 1])
def test_balanced_rows(seed):
    rows = [
        Example(i, {"text": str(i)}, label) for i, label in enumerate("a" * 70 + "b" * 25 + "c" * 5)
    ]
    found = balanced(rows, seed)
    assert Counter(example.label for example in found) == {"a": 34, "b": 34, "c": 34}
    times = Counter(example.row for example in found)
    assert {example.row for example in rows if example.label != "a"} <= set(times)
    for label in "abc":
        counts = [times[example.row] for example in rows if example.label == label]
        assert max(counts) - min(counts) <= 1, label
    assert balanced(rows, seed) == found
    assert balanced(rows, seed + 1) != found
    assert balanced(rows[:1]) == rows[:1]


def test_an_unreachable_hub_is_one_line(monkeypatch):

    def load_dataset(*args, **settings):
        raise ConnectionError("Couldn't reach it\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = error(load_split, SIB, "dev", "si")
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
    assert "install palam[hub], or give --data DIR" in error(load_split, SIB, "dev", "si")


def test_a_task_of_ones_own_needs_a_folder():
    task = Task(
        name="t",
        family="f",
        labels={"a": "a"},
        prompt="{text}",
        paper_text="{text}",
        languages=("en",),
    )
    assert "give --data DIR or set PALAM_DATA" in error(load_split, task, "dev", "en")
