"""`palam check`: a look at data, with and without an encoder."""

import io
import json
import subprocess
import sys

import pytest

SHOW_IMPORTS = """
import sys
from palam.cli.main import run
code = run(sys.argv[1:])
print("heavy:", *[name for name in ("torch", "transformers") if name in sys.modules])
sys.exit(code)
"""


@pytest.fixture
def letters(tmp_path):
    """A table of labelled letters with everything that is doubtful."""
    lines = ["Article;Topic"]
    lines += [f"The rice price went up by {number}.;Business" for number in range(60)]
    lines += [f"The team won match {number}.;sports" for number in range(30)]
    lines += ["The rice price went up by 1.;business ", ";sports", "The Moon is far.;"]
    path = tmp_path / "letters.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


COLUMNS = ("--text-column", "Article", "--label-column", "Topic")


def test_a_labelled_file(palam, letters):
    result = palam("check", letters, *COLUMNS)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == f"{letters}: 93 rows"
    assert lines[1] == "labels (3): Business 60, sports 31, business  1"
    assert lines[2].endswith("; Latin script")
    problems = [line for line in lines if line.startswith("! ")]
    assert len(problems) == len(lines) - 3
    for words in (
        "1 of 93 rows have no gold label",
        "labels that differ only in case or space",
        "empty texts: 1 row",
        "texts that a row before has too: 1 row",
        "texts with several labels: 2 rows",
        "few labelled rows: 92; 200 or more are usual",
    ):
        assert any(words in line for line in problems), words
    merged = palam("check", letters, *COLUMNS, "--merge-labels").out
    assert "labels (2): Business 61, sports 31" in merged


def test_it_loads_no_library_of_models_and_says_if_all_is_well(tmp_path):
    path = tmp_path / "sound.jsonl"
    rows = [{"text": f"Text {row}.", "label": "ab"[row % 2]} for row in range(200)]
    path.write_text("\n".join(map(json.dumps, rows)))
    command = [sys.executable, "-c", SHOW_IMPORTS, "check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    *_, last, heavy = done.stdout.splitlines()
    assert (last, heavy) == ("no problems found", "heavy:")


def test_texts_without_labels_from_a_pipe(palam, monkeypatch):
    content = "මම ගෙදර යනවා\nසහල් මිල\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    result = palam("check", "-", "--format", "text", "--language", "si")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0] == "standard input: 2 rows"
    assert lines[1].endswith("; Sinhala script")
    assert lines[2].startswith('! no column "label", so the texts are looked at alone')


def test_with_an_encoder_or_a_bridge_it_counts_what_would_be_lost(
    palam, letters, base_folder, trained
):
    for name in (base_folder("bert"), base_folder("xlmr"), trained):
        result = palam("check", letters, *COLUMNS, "--encoder", name)
        assert result.code == 0, result.err
        (line,) = [line for line in result.out.splitlines() if "cut at" in line]
        assert line.startswith("0 of 93 texts (0%) are cut at 128 tokens; ")
        assert line.endswith("% of the tokens are unknown to the encoder")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--text-column", "Body"), 'no column "Body" among Article, Topic'),
        ((*COLUMNS[:2], "--label-column", "Theme"), 'no column "Theme" among Article, Topic'),
        ((*COLUMNS, "--language", "xx"), "language is 'xx', which is unknown"),
        ((*COLUMNS, "--format", "xls"), "xls"),
        ((*COLUMNS, "--sheet", "1"), "has no sheets"),
        ((*COLUMNS, "--encoder", "/nowhere"), "no such folder"),
    ],
)
def test_what_is_wrong_is_one_line(refused, letters, options, message):
    assert message in refused("check", letters, *options)


def test_a_file_that_is_missing_or_empty(refused, tmp_path):
    assert "No such file" in refused("check", tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    assert "empty" in refused("check", tmp_path / "empty.csv")
