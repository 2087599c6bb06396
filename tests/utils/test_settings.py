"""Values become what a settings field is declared as, in one place, and come back from YAML."""

import contextlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
import yaml
from helpers import refusal
from hypothesis import given
from hypothesis import strategies as st

from palam.errors import PalamError
from palam.utils.settings import (
    check_least,
    check_range,
    convert,
    convert_fields,
    dump_yaml,
    parse_yaml,
    plain,
    read_settings,
)

Mode = Literal["paper", "prompt", "chat"]


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (True, bool, True),
        ("true", bool, True),
        ("false", bool, False),
        (3, int, 3),
        ("3", int, 3),
        (" -3 ", int, -3),
        (3, float, 3.0),
        ("1e-3", float, 0.001),  # YAML takes it for text
        ("inf", float, math.inf),
        (-math.inf, float, -math.inf),
        ("text", str, "text"),
        (3, str, "3"),
        (0.5, str, "0.5"),
        (Path("a/b"), str, "a/b"),
        ("a/b", Path, Path("a/b")),
        (Path("a/b"), Path, Path("a/b")),
        (7, Path, Path("7")),
        ("chat", Mode, "chat"),
        ({"rank": 8}, dict, {"rank": 8}),
        ({"rank": 8}, dict[str, Any], {"rank": 8}),
        (["1", 2], list[int], [1, 2]),
        ([1, 2], tuple[float, ...], (1.0, 2.0)),
        ((1, "a"), list, [1, "a"]),
        (3.5j, complex, 3.5j),
        (3.5j, Any, 3.5j),
        (None, Any, None),
        (None, int | None, None),
        (None, Optional[int], None),  # noqa: UP045 (written so in older code)
        ("3", int | None, 3),
        ("fast", int | str, "fast"),
        ("3", int | str, 3),
        ("4bit", Literal["8bit", "4bit"] | None, "4bit"),
    ],
)
def test_a_value_becomes_what_is_declared(value, annotation, expected):
    converted = convert("name", value, annotation)
    assert converted == expected
    assert type(converted) is type(expected)


def test_not_a_number_is_a_float_too():
    assert math.isnan(convert("lr", "nan", float))
    assert math.isnan(convert("lr", math.nan, float))


def test_a_mapping_is_copied():
    options = {"rank": 8}
    assert convert("options", options, dict) is not options


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, bool, "true or false"),
        ("yes", bool, "true or false"),
        (None, bool, "true or false"),
        (True, int, "a whole number"),
        (3.0, int, "a whole number"),
        ("3.0", int, "a whole number"),
        ("three", int | None, "a whole number"),
        ("fast", float, "a number"),
        (False, float, "a number"),
        ([1.0], float, "a number"),
        (False, str, "text"),  # YAML's `no`
        (None, str, "text"),
        ([], str, "text"),
        (3.5j, Path, "a path"),
        ("rank=8", dict, "`name: value` pairs"),
        ([("rank", 8)], dict, "`name: value` pairs"),
        ("plain", Mode, "one of: paper, prompt, chat"),
        (None, Mode, "one of: paper, prompt, chat"),
        (["chat"], Mode, "one of: paper, prompt, chat"),
        ("123", list[int], "a list, each item a whole number"),
        ([1, "x"], list[int], "a list, each item a whole number"),
        ({1: 2}, tuple, "a list"),
        ("fast", int | float, "a whole number or a number"),
        ("3.5j", complex, "a complex"),
    ],
)
def test_a_value_that_is_none_is_refused(value, annotation, expected):
    message = refusal(convert, "name", value, annotation)
    assert message == f"name is {value!r}; it must be {expected}"


def test_known_names_decide_where_they_are_given():
    names = {"mean": 1, "last": 2}
    assert convert("fusion", "mean", str, names) == "mean"
    assert convert("fusion", None, str | None, names) is None
    for wrong in ("sum", None, ["mean"], True):
        message = refusal(convert, "fusion", wrong, str, names)
        assert message == f"fusion is {wrong!r}; it must be one of: mean, last"


TEXTS = st.text(st.characters(codec="utf-8"))
PATHS = TEXTS.map(lambda text: Path(text.replace("\0", "")))
FLOATS = st.floats(allow_nan=False)
INTEGERS = st.integers(-(2**63) + 1, 2**63 - 1)
KINDS = [
    (bool, st.booleans()),
    (int, INTEGERS),
    (float, FLOATS),
    (str, TEXTS),
    (Path, PATHS),
    (Mode, st.sampled_from(["paper", "prompt", "chat"])),
    (dict, st.dictionaries(TEXTS, st.none() | st.booleans() | st.integers() | FLOATS | TEXTS)),
    (list[int], st.lists(INTEGERS)),
    (tuple[float, ...], st.lists(FLOATS).map(tuple)),
    (list[Path], st.lists(PATHS)),
]


@pytest.mark.parametrize(("annotation", "values"), KINDS, ids=lambda value: str(value)[:30])
@given(data=st.data())
def test_a_setting_comes_back_from_its_plain_value(annotation, values, data):
    value = data.draw(values)
    plain_value = plain(value)
    converted = convert("name", plain_value, annotation)
    assert converted == value
    assert type(converted) is type(value)
    assert convert("name", plain_value, annotation | None) == value
    assert convert("name", plain(None), annotation | None) is None


@pytest.mark.parametrize(("annotation", "values"), KINDS, ids=lambda value: str(value)[:30])
@given(data=st.data())
def test_a_setting_comes_back_from_yaml(annotation, values, data):
    value = data.draw(values)
    content = yaml.safe_dump({"name": plain(value)})
    assert convert("name", yaml.safe_load(content)["name"], annotation) == value


@pytest.mark.parametrize("annotation", [int, float, Path, str])
@given(data=st.data())
def test_a_setting_comes_back_from_its_text(annotation, data):
    value = data.draw(dict(KINDS[:5])[annotation])
    assert convert("name", str(value), annotation) == value


@given(value=st.none() | st.booleans() | st.integers() | FLOATS | TEXTS | st.lists(st.integers()))
def test_any_value_is_converted_or_refused(value):
    for annotation, _ in KINDS:
        with contextlib.suppress(PalamError):
            convert("name", value, annotation)


@dataclass(frozen=True, kw_only=True)
class Settings:
    lr: float = 1e-3
    steps: int | None = None
    out: "Path | None" = None
    fusion: str = field(default="mean", metadata={"names": ("mean", "last")})

    def __post_init__(self):
        convert_fields(self)


def test_the_fields_of_a_frozen_dataclass_are_converted():
    settings = Settings(lr="3e-5", steps="7", out="a b")
    assert settings == Settings(lr=3e-5, steps=7, out=Path("a b"))
    assert (settings.lr, settings.steps, settings.out) == (3e-5, 7, Path("a b"))
    assert refusal(Settings, fusion="sum") == "fusion is 'sum'; it must be one of: mean, last"
    assert refusal(Settings, lr=[]) == "lr is []; it must be a number"


def test_least_values():
    check_least(Settings(steps=1), steps=1, lr=0)
    check_least(Settings(), steps=1)  # not set
    message = refusal(check_least, Settings(steps=0), lr=0, steps=1)
    assert message == "steps is 0; it must be at least 1"
    assert refusal(check_least, Settings(lr="nan"), lr=0) == "lr is nan; it must be at least 0"


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_settings(path, {"batch_size", "lr"})


def test_a_file_of_settings(tmp_path):
    path = tmp_path / "my.yaml"
    assert read(path, "batch-size: 8\nlr: 1e-3\n") == {"batch_size": 8, "lr": "1e-3"}
    assert read(path, "") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("rate: 1", "there is no setting 'rate'; the settings are: batch_size, lr"),
        ("1: 1", "there is no setting '1'"),
        ("- lr", "must hold settings as `name: value` lines"),
        ("lr: [", "cannot be read as YAML: while parsing"),
        (b"lr: \xff", "cannot be read as YAML: 'utf-8' codec can't decode"),
        ("lr: 2024-99-99", "cannot be read as YAML: month must be in 1..12"),
        ("lr: " + "9" * 5000, "cannot be read as YAML: Exceeds the limit"),
        ("[" * 500, "cannot be read as YAML: maximum recursion depth exceeded"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, content, message):
    line = refusal(read, tmp_path / "my.yaml", content)
    assert line.startswith(str(tmp_path / "my.yaml"))
    assert message in line


def test_a_missing_file_is_one_line(tmp_path):
    message = refusal(read_settings, tmp_path / "none.yaml", set())
    assert "none.yaml cannot be read as YAML: [Errno 2] No such file or directory" in message


WHOLE = "it must be a whole number from -9223372036854775807 to 9223372036854775807"
NUMBER = "it must be a number from -1.8e+308 to 1.8e+308, or inf"


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (10**30, int, WHOLE),
        (-(10**30), int | None, WHOLE),
        ("1" + "0" * 30, int, WHOLE),
        ("9" * 5000, int, WHOLE),
        (10**400, float, NUMBER),
        ("1e999", float, NUMBER),
    ],
)
def test_a_number_that_is_too_large_is_refused_with_its_range(value, annotation, expected):
    message = refusal(convert, "batch_size", value, annotation)
    assert message.startswith("batch_size is ")
    assert message.endswith(expected)
    assert len(message) < 300


def test_a_number_that_python_does_not_write_out():
    shown = "lr is too large a value to be shown; "
    assert refusal(convert, "lr", 1 << 20_000, int) == shown + WHOLE
    assert refusal(convert, "lr", 1 << 20_000, float | None) == shown + NUMBER


def test_a_long_value_is_cut_in_the_message():
    message = refusal(convert, "steps", "x" * 10_000, int)
    assert message.endswith("x…; it must be a whole number")
    assert len(message) < 150


def test_a_path_holds_no_nul():
    assert refusal(convert, "out", "a\0b", Path) == "out is 'a\\x00b'; it must be a path"


def test_ranges():
    check_range(Settings(steps=0), steps=(0, 9))
    check_range(Settings(), steps=(0, 9))
    for steps in (-5, 10):
        message = refusal(check_range, Settings(steps=steps), steps=(0, 9))
        assert message == f"steps is {steps}; it must be from 0 to 9"


def test_an_alias_is_refused_before_it_grows(tmp_path):
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1]"]
    for level in range(1, 12):
        items = ",".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} [{items}]")
    message = refusal(read, tmp_path / "my.yaml", "\n".join(lines))
    assert "the alias *a0 stands for another value" in message
    assert "alias" in refusal(read, tmp_path / "my.yaml", "lr: &x {<<: *x}")


def test_a_large_file_is_refused(tmp_path):
    message = refusal(read, tmp_path / "my.yaml", "#" * 2**21)
    assert message.endswith("my.yaml cannot be read as YAML: it is larger than 1 MB")


def test_a_number_to_base_60_is_refused_before_it_is_reckoned(tmp_path):
    for number in ("1" + ":59" * 300_000, "1" + ":59" * 300_000 + ".5"):
        assert "Exceeds the limit" in refusal(read, tmp_path / "my.yaml", f"lr: {number}")


@pytest.mark.parametrize("content", ["lr: 1\nlr: 2", "batch-size: 1\nbatch_size: 2"])
def test_a_setting_that_comes_twice_is_refused(tmp_path, content):
    assert "comes twice" in refusal(read, tmp_path / "my.yaml", content)


def test_a_number_of_thousands_of_digits_in_hexadecimal(tmp_path):
    settings = read(tmp_path / "my.yaml", "lr: 0x" + "f" * 300)
    assert "from -9223372036854775807" in refusal(convert, "lr", settings["lr"], int)


def test_yaml_of_any_kind_is_read_or_refused():
    assert parse_yaml("a: {b: [1, 2.5, text, null, true]}") == {
        "a": {"b": [1, 2.5, "text", None, True]}
    }
    for text in ("*a", "&a [*a]", "!!python/object:os.system {}", "? [a]\n: b", "a: b: c", "\0"):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            parse_yaml(text)


TEXT = st.text(
    st.one_of(
        st.sampled_from("\x85\u2028\u2029\ufeff\n\r\t #:-'\"%&*!|>{}[],?"),
        st.characters(exclude_categories=["Cs"]),
    )
)


@given(TEXT, TEXT)
def test_every_text_in_yaml_reads_back_equal(name, text):
    values = {name: text, "list": [text, [name]], "mapping": {"": {"text": text}}}
    if name in ("list", "mapping"):
        return
    assert parse_yaml(dump_yaml(values)) == values


@given(TEXT)
def test_a_file_of_settings_reads_back_equal(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("yaml") / "settings.yaml"
    path.write_text(dump_yaml({"prompt": text}), encoding="utf-8")
    assert read_settings(path, {"prompt"}) == {"prompt": text}
    path.write_text("\ufeff" + dump_yaml({"prompt": text}), encoding="utf-8")
    assert read_settings(path, {"prompt"}) == {"prompt": text}
