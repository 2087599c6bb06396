"""`palam classify` and `generate` that are stopped: what is done stays, and is gone on with."""

import errno
import json
from types import SimpleNamespace

import pytest
from helpers import write_jsonl

from palam import PalamModel
from palam.cli._journal import Journal
from palam.cli._output import is_device
from palam.errors import PalamError
from palam.inference.scoring import LabelScorer
from palam.models import bases
from palam.utils.locks import output_lock

CPU = ("--device", "cpu", "--dtype", "fp32")
ROWS = [{"id": i, "text": f"මම ගෙදර යනවා {i}", "note": "mine", "lang": "si"} for i in range(9)]
CLASSIFY = ("classify", "--labels", "good,bad", "--batch-size", 4)
GENERATE = ("generate", "--max-new-tokens", 2, "--batch-size", 4)
SAMPLE = ("--temperature", 3, "--max-new-tokens", 4)


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    write_jsonl(path, ROWS)
    return path


@pytest.fixture(autouse=True)
def chunks_of_one_batch(monkeypatch):
    monkeypatch.setattr("palam.cli._rows.CHUNK_BATCHES", 1)


@pytest.fixture
def run(palam, untrained, texts, tmp_path):
    """`run(CLASSIFY, "--resume")`: the command with `out.jsonl`, and what it came to."""

    def call(command, *options, out=tmp_path / "out.jsonl", file=texts):
        name, *settings = command
        return palam(name, untrained, "--file", file, "--out", out, *settings, *CPU, *options)

    return call


@pytest.fixture
def stop(run, monkeypatch):
    """`stop(CLASSIFY, after=1)`: the same, stopped after so many chunks."""

    def call(command, *options, after=1, error=KeyboardInterrupt, **places):
        with monkeypatch.context() as patch:
            for target in ("palam.inference.scoring.LabelScorer.score", GENERATION):
                patch.setattr(target, stopping(target, after, error))
            return run(command, *options, **places)

    return call


GENERATION = "palam.inference.generation.generate"


def stopping(target, after, error):
    """A function that does its work so many times, and then is stopped."""
    module, _, name = target.rpartition(".")
    owner = LabelScorer if module.endswith("LabelScorer") else __import__(module, fromlist=[name])
    work = getattr(owner, name)
    calls = []

    def call(*arguments, **options):
        calls.append(arguments)
        if len(calls) > after:
            raise error
        return work(*arguments, **options)

    return call


@pytest.fixture
def place(tmp_path):
    """The output and its journal: `place.out`, `place.partial`."""
    return SimpleNamespace(out=tmp_path / "out.jsonl", partial=tmp_path / "out.jsonl.partial")


def refusal(result):
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result
    return result.err.removeprefix("palam: error: ").rstrip("\n")


def done_rows(partial):
    return [json.loads(line) for line in partial.read_text(encoding="utf-8").splitlines()[1:]]


# --------------------------------------------------------------------------- stopped, and after
@pytest.mark.parametrize(
    ("command", "num_done"),
    [
        *[(command, num_done) for command in (CLASSIFY, GENERATE) for num_done in (0, 1, 4.5, 9)],
        *[((*GENERATE, *SAMPLE), num_done) for num_done in (1, 4, 4.5)],
    ],
)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    run, stop, place, tmp_path, command, num_done
):
    assert run(command, out=tmp_path / "whole.jsonl").code == 0
    whole = (tmp_path / "whole.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == len(ROWS)
    assert stop(command).code == 130
    header = place.partial.read_bytes().splitlines(keepends=True)[0]
    done = [header, *lines[: int(num_done)]]
    if num_done % 1:  # a line that was being written
        done.append(lines[int(num_done)][:20])
    place.partial.write_bytes(b"".join(done))
    result = run(command, "--resume")
    assert (result.code, result.err) == (0, "")
    assert place.out.read_bytes() == whole
    assert not place.partial.exists()


@pytest.mark.parametrize("command", [CLASSIFY, GENERATE])
def test_what_is_done_stays_and_one_line_says_how_to_go_on(run, stop, place, command):
    result = stop(command)
    assert result.code == 130
    assert result.err == (
        "palam: stopped after 4 of 9 rows; to go on, give the same command with --resume\n"
    )
    assert not place.out.exists()
    assert [row["id"] for row in done_rows(place.partial)] == [0, 1, 2, 3]
    assert run(command, "--resume").code == 0
    rows = [json.loads(line) for line in place.out.read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(9))


def test_what_is_done_is_not_done_again(run, stop, place, scored_texts):
    stop(CLASSIFY, after=2)
    scored_texts.clear()
    assert run(CLASSIFY, "--resume").code == 0
    assert scored_texts == [ROWS[8]["text"]]


def test_an_error_too_says_how_to_go_on(run, stop, place, texts):
    line = refusal(stop(CLASSIFY, error=PalamError("the LLM's logits are not finite")))
    advice = "stopped after 4 of 9 rows; to go on, give the same command with --resume"
    assert line == f"the LLM's logits are not finite; {advice}"
    place.partial.unlink()
    write_jsonl(texts, [*ROWS[:6], {"id": 6, "text": ["no text"]}])
    line = refusal(run(CLASSIFY))
    assert "line 7" in line
    assert "stopped after 4 of 7 rows; to go on" in line
    write_jsonl(texts, ROWS)  # mended
    assert run(CLASSIFY, "--resume").code == 0


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_a_run_may_go_on_past_what_cannot_be_read(run, texts, tmp_path, name):
    write_jsonl(texts, [*ROWS[:6], {"id": 6, "text": ["no text"]}, *ROWS[7:]])
    whole, out = tmp_path / f"whole-{name}", tmp_path / name
    assert run(CLASSIFY, "--keep-errors", out=whole).code == 0
    assert "stopped after 4 of 9 rows" in refusal(run(CLASSIFY, out=out))
    assert run(CLASSIFY, "--keep-errors", "--resume", out=out).code == 0
    assert out.read_bytes() == whole.read_bytes()


def test_a_run_that_keeps_errors_goes_on_so(stop, run):
    stop(CLASSIFY, "--keep-errors")
    assert "the --keep-errors was true, now false" in refusal(run(CLASSIFY, "--resume"))


def test_an_output_does_not_take_the_place_of_what_is_read(run, texts):
    before = texts.read_bytes()
    line = refusal(run(CLASSIFY, "--overwrite", out=texts))
    assert line == f"{texts} is what is read; give another file to write"
    assert texts.read_bytes() == before


def test_a_full_disk_is_one_line_and_loses_nothing(run, place, monkeypatch):
    make_journal = Journal.__init__

    def on_a_full_disk(self, path, file, state):
        make_journal(self, path, FullDisk(file, room=1900), state)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "__init__", on_a_full_disk)
        line = refusal(run(CLASSIFY))
    num_done = len(place.partial.read_bytes().splitlines()) - 2  # a header, half a line
    assert 0 < num_done < 9
    assert line.startswith(f"{place.partial} cannot be written: No space left on device; stopped")
    assert f"{num_done} of 9 rows" in line
    assert run(CLASSIFY, "--resume").code == 0
    assert len(place.out.read_text().splitlines()) == 9


class FullDisk:
    """A file on a disk with so much room."""

    def __init__(self, file, room):
        self.file = file
        self.room = room

    def write(self, content):
        self.file.write(content[: self.room])
        self.room -= len(content)
        if self.room < 0:
            self.file.flush()
            self.room = 0
            raise OSError(errno.ENOSPC, "No space left on device")

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_run_that_is_stopped_before_the_first_row_leaves_nothing(stop, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = stop(CLASSIFY, after=0, out=tmp_path / "new" / "folder" / "out.jsonl")
    assert (result.code, result.err) == (130, "palam: stopped\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_stream_that_is_given_again_is_gone_on_with(palam, untrained, place, stop, monkeypatch):
    stop(CLASSIFY)
    lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=iter(lines)))
    name, *settings = CLASSIFY
    streamed = (name, untrained, "--file", "-", "--out", place.out, *settings, *CPU)
    assert palam(*streamed, "--resume").code == 0
    assert len(place.out.read_text().splitlines()) == 9


# --------------------------------------------------------------------------- what is there already
def test_rows_of_an_unfinished_run_are_not_lost(run, stop, place):
    stop(CLASSIFY)
    done = place.partial.read_bytes()
    for command in (CLASSIFY, GENERATE):
        line = refusal(run(command))
        assert line == (
            f"{place.partial} holds 4 rows of an unfinished run; --resume goes on after them, "
            "--overwrite begins anew"
        )
    assert place.partial.read_bytes() == done
    assert run(GENERATE, "--overwrite").code == 0
    rows = [json.loads(line) for line in place.out.read_text().splitlines()]
    assert all("answer" in row for row in rows)
    assert not place.partial.exists()


def test_an_output_that_exists_is_replaced_only_if_that_is_asked_for(run, place):
    place.out.write_text("mine")
    line = refusal(run(CLASSIFY))
    assert line == f"{place.out} exists already; give another place, or --overwrite"
    line = refusal(run(CLASSIFY, "--resume"))
    assert line == f"{place.out} is complete, there is nothing to resume; --overwrite begins anew"
    assert place.out.read_text() == "mine"
    assert run(CLASSIFY, "--overwrite").code == 0
    assert len(place.out.read_text().splitlines()) == 9


def test_a_run_that_replaces_an_output_is_resumed_by_the_same_command(run, stop, place):
    place.out.write_text("mine")
    assert stop(CLASSIFY, "--overwrite").code == 130
    assert place.out.read_text() == "mine"
    assert "give --overwrite beside --resume" in refusal(run(CLASSIFY, "--resume"))
    assert place.out.read_text() == "mine"
    assert run(CLASSIFY, "--overwrite", "--resume").code == 0
    assert len(place.out.read_text().splitlines()) == 9


def test_a_run_that_was_killed_between_the_output_and_its_journal(run, place, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", lambda *_arguments, **_options: None)
        assert run(CLASSIFY).code == 0
    whole = place.out.read_bytes()
    assert place.partial.exists()
    result = run(CLASSIFY, "--resume")
    assert (result.code, result.err) == (0, "")
    assert place.out.read_bytes() == whole
    assert not place.partial.exists()


def test_two_runs_do_not_write_to_one_place(run, place):
    for options in ((), ("--resume",), ("--overwrite",)):
        with output_lock(place.out):
            line = refusal(run(CLASSIFY, *options))
        assert line.startswith(f"{place.out} is being written by another run (process ")
    assert not place.partial.exists()
    assert run(CLASSIFY).code == 0


# --------------------------------------------------------------------------- the same run
@pytest.mark.parametrize(
    ("command", "begun", "options", "message"),
    [
        (CLASSIFY, (), ("--language", "ta"), "the language was not set, now ta"),
        (CLASSIFY, ("--language", "si"), ("--language", "ta"), "the language was si, now ta"),
        (
            CLASSIFY,
            ("--language", "si"),
            ("--language-column", "lang"),
            "the language was si, now not set (also changed: language column)",
        ),
        (
            CLASSIFY,
            (),
            ("--labels", "good,worse"),
            'the labels was [["good", "good"], ["bad", "bad"]], now [["good", "good"], ["worse"',
        ),
        (CLASSIFY, (), ("--column", "note"), 'the column was ["text"], now ["note"]'),
        (CLASSIFY, (), ("--dtype", "bf16"), "the dtype was fp32, now bf16"),
        (CLASSIFY, (), ("--format", "json"), "the format was not set, now json"),
        (GENERATE, (), ("--max-new-tokens", 3), "the max_new_tokens was 2, now 3"),
        (GENERATE, (), ("--llm-only",), "the llm_only was false, now true"),
        (
            GENERATE,
            (),
            ("--mode", "prompt", "--prompt", "{text} In short:"),
            'the prompt was "{text}\\nTopic:", now "{text} In short:"',
        ),
        (GENERATE, (), ("--prompt", "{text} In short:"), "the mode was prompt, now chat (also"),
        (
            CLASSIFY,
            (),
            ("--prompt", "{text} In short:"),
            'the prompt was "{text}\\nTopic:", now "{text} In short:"',
        ),
        (GENERATE, (), ("--mode", "paper"), "the mode was prompt, now paper (also changed: prompt"),
        ((*GENERATE, *SAMPLE), (), ("--seed", 2), "the seed was 0, now 2"),
        ((*GENERATE, *SAMPLE), (), ("--batch-size", 3), "the batch size was 4, now 3"),
    ],
)
def test_a_run_is_not_gone_on_with_as_another(run, stop, place, command, begun, options, message):
    stop(command, *begun)
    done = place.partial.read_bytes()
    kept = () if "--language-column" in options else begun
    assert message in refusal(run(command, *kept, *options, "--resume"))
    assert place.partial.read_bytes() == done
    assert run(command, *begun, "--resume").code == 0


def test_the_dtype_that_was_chosen_stays_chosen(run, stop, place, tmp_path, monkeypatch):
    assert run(CLASSIFY, out=tmp_path / "whole.jsonl").code == 0
    monkeypatch.setattr("palam.utils.device.bf16_pays", lambda: False)
    stop(CLASSIFY, "--dtype", "auto")
    monkeypatch.setattr("palam.utils.device.bf16_pays", lambda: True)
    result = run(CLASSIFY, "--dtype", "auto", "--resume")
    assert (result.code, result.err) == (0, "")
    assert place.out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_run_is_not_gone_on_with_by_another_command(run, stop):
    stop(CLASSIFY)
    assert "the command was classify, now generate" in refusal(run(GENERATE, "--resume"))


def test_a_run_is_not_gone_on_with_by_another_llm(run, stop, base_folder):
    stop(CLASSIFY)
    other_llm = ("--llm", base_folder("llama", seed=1), "--allow-mismatch")
    assert "the LLM is another one" in refusal(run(CLASSIFY, "--resume", *other_llm))
    assert run(CLASSIFY, "--resume").code == 0


def test_a_run_is_not_gone_on_with_by_another_bridge(
    palam, run, stop, untrained, texts, place, tmp_path
):
    stop(CLASSIFY)
    model = PalamModel.from_pretrained(untrained)
    model.bridge.boundary.data += 1e-3
    model.save_pretrained(tmp_path / "other")
    name, *settings = CLASSIFY
    options = ("--file", texts, "--out", place.out, *settings, *CPU, "--resume")
    assert "the bridge is another one" in refusal(palam(name, tmp_path / "other", *options))
    assert run(CLASSIFY, "--resume").code == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0], {**ROWS[1], "note": "other"}, *ROWS[2:]], "its row 2 is not that of"),
        ([ROWS[0], {**ROWS[1], "id": "1"}, *ROWS[2:]], "its row 2 is not that of"),
        ([*ROWS[:3], {**ROWS[3], "more": 1}, *ROWS[4:]], "its row 4 is not that of"),
        (ROWS[1:], "its row 1 is not that of"),
        (ROWS[:3], "its row 4 is not that of"),
    ],
)
def test_every_row_that_is_done_must_be_the_files(run, stop, place, texts, rows, message):
    stop(CLASSIFY)
    done = place.partial.read_bytes()
    write_jsonl(texts, rows)
    line = refusal(run(CLASSIFY, "--resume"))
    assert message in line
    assert str(texts) in line
    assert place.partial.read_bytes() == done
    write_jsonl(texts, [*ROWS[:4], *ROWS[:2]])  # the rows that are not done may be others
    assert run(CLASSIFY, "--resume").code == 0
    assert len(place.out.read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("number", "line", "message"),
    [
        (0, b'{"id": 7, "text": "another"}\n', "is no unfinished run of Palam"),
        (0, b"\x00\x01", "is no unfinished run of Palam"),
        (0, b'{"palam_journal": 1, "run\n', "is damaged in line 1"),
        (0, b'{"palam_journal": 99, "run": {}}\n', "of another version of Palam"),
        (1, b"\n", "is damaged in line 2"),
        (2, b'{"id": 7, "text": "another"}\n', "is damaged in line 3"),
        (3, b'["a list"]\n', "is damaged in line 4"),
        (3, b"\xff\xfe\n", "is damaged in line 4"),
        (4, b"[" * 100_000 + b"\n", "is damaged in line 5"),
    ],
)
def test_a_journal_that_is_damaged_or_of_something_else(run, stop, place, number, line, message):
    stop(CLASSIFY)
    lines = place.partial.read_bytes().splitlines(keepends=True)
    lines[number] = line
    place.partial.write_bytes(b"".join(lines))
    before = place.partial.read_bytes()
    assert message in refusal(run(CLASSIFY, "--resume"))
    assert place.partial.read_bytes() == before
    if number == 0:  # it may be anyone's
        assert message in refusal(run(CLASSIFY, "--overwrite"))
        assert place.partial.read_bytes() == before


def test_a_journal_of_which_nothing_was_written_yet(run, stop, place):
    stop(CLASSIFY)
    header = place.partial.read_bytes().splitlines(keepends=True)[0]
    for content in (b"", header[:5], header[:40], header):
        place.partial.write_bytes(content)
        result = run(CLASSIFY)
        assert (result.code, result.err) == (0, "")
        place.out.unlink()


def test_a_journals_place_that_is_no_file(run, place):
    place.partial.symlink_to("/dev/full")
    assert is_device(place.partial)
    assert "is no file" in refusal(run(CLASSIFY))
    place.partial.unlink()
    place.partial.mkdir()
    assert "is no file" in refusal(run(CLASSIFY, "--resume"))


def test_there_must_be_a_file_to_resume(refused, trained, texts, tmp_path):
    message = "--resume needs --file and --out"
    assert refused("classify", trained, "--text", "a", "--resume", *CPU) == message
    assert refused("classify", trained, "--file", texts, "--resume", *CPU) == message
    files = ("--file", texts, "--out", tmp_path / "nowhere.jsonl")
    missing = ("--resume", "--column", "none")
    assert 'no column "none"' in refused("classify", trained, *files, *missing, *CPU)


def test_the_base_models_are_looked_at_once(palam, untrained, texts, tmp_path, monkeypatch):
    parts = []
    look = bases.fingerprint

    def counting(model, tokenizer):
        parts.append(model)
        return look(model, tokenizer)

    monkeypatch.setattr(bases, "fingerprint", counting)
    out = tmp_path / "out.jsonl"
    command, *options = CLASSIFY
    assert palam(command, untrained, "--file", texts, "--out", out, *options, *CPU).code == 0
    assert len(parts) == 2
