"""The quickstart: all of it or nothing in its folder, and its page has what it measured."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import palam
import palam.quickstart.run as module
from palam import PalamError, PalamModel
from palam.cli.main import run
from palam.inference.evaluation import Evaluation
from palam.quickstart import first_reading
from palam.quickstart.run import LANGUAGES, quickstart
from palam.tasks.task import Example
from palam.utils.device import resolve_placement

FILES = ["bridge-last", "bridge-mean", "report.html", "results.json"]
DEMO = Path(palam.__file__).parent / "tasks" / "demo"


@pytest.fixture
def tiny_starters(base_folder, tiny_model, tmp_path_factory, monkeypatch):
    """Tiny base models in the starter models' place, and a tiny bridge in the package's."""
    bridge = tmp_path_factory.mktemp("package") / "bridge"
    tiny_model(mode="prompt", prompt="{text}\nThe same in English:").save_pretrained(bridge)
    monkeypatch.setattr(first_reading, "BRIDGE", str(bridge))
    folders = {
        "starter:encoder": str(base_folder("bert")),
        "starter:llm": str(base_folder("llama")),
    }
    load_bases = module.load_bases

    def load_tiny_bases(encoder, llm, placement):
        bases = [base._replace(name=folders[base.name]) for base in (encoder, llm)]
        return load_bases(*bases, placement)

    monkeypatch.setattr(module, "resolve", folders.__getitem__)
    monkeypatch.setattr(module, "load_bases", load_tiny_bases)


@pytest.fixture(scope="session")
def sib200(tmp_path_factory):
    """The demonstration's data in the form of SIB-200's."""
    folder = tmp_path_factory.mktemp("sib") / "sib200"
    folder.mkdir()
    for path in DEMO.glob("*.jsonl"):
        shutil.copy(path, folder / path.name.replace("test.", "dev."))
    return folder.parent


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.usefixtures("tiny_starters")
def test_everything_is_there_and_agrees(tmp_path, capsys):
    out = tmp_path / "new" / "qs"
    result = quickstart(out, console=Console()).to_dict()
    printed = " ".join(capsys.readouterr().out.split())
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert [path.name for path in out.parent.iterdir()] == ["qs"]
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == result
    assert [method["name"] for method in result["methods"]] == ["LLM alone", "last", "mean"]
    assert [language["code"] for language in result["languages"]] == LANGUAGES
    assert len(LANGUAGES) > 10
    assert len(list(DEMO.glob("train.*.jsonl"))) == 1
    trained = json.loads((out / "bridge-mean" / "results.json").read_text())
    assert result["n_train"] == trained["rows"]
    assert (result["data"], result["n_test"]) == ("demo", 35)
    for method in result["methods"]:
        assert list(method["results"]) == LANGUAGES
        assert {one["n"] for one in method["results"].values()} == {
            7 if method["name"] == "LLM alone" else 35
        }
        shares = [one["accuracy"] for code, one in method["results"].items() if code != "eng_Latn"]
        method["unseen"] = f"{sum(shares) / len(shares):.0%}"
    row = printed[printed.index("mean without English") :].split("│")
    assert [cell.strip() for cell in row[1:4]] == [method["unseen"] for method in result["methods"]]
    assert {one["language"] for one in result["examples"]} == set(LANGUAGES) - {"eng_Latn"}
    for one in result["examples"]:
        assert set(one["answers"]) == {"LLM alone", "last", "mean"}
        assert one["english"]
    readings = result["readings"]
    assert [one["language"] for one in readings] == LANGUAGES[1:]
    for number, one in enumerate(readings):
        lines = (DEMO / f"test.{one['language']}.jsonl").read_text(encoding="utf-8").splitlines()
        english = (DEMO / "test.eng_Latn.jsonl").read_text(encoding="utf-8").splitlines()
        assert one["text"] == json.loads(lines[number])["text"]
        assert one["english"] == json.loads(english[number])["text"]
        for said in (one["text"], one["english"]):
            assert " ".join(said.split()) in printed
    assert printed.index(readings[-1]["text"]) < printed.index("training on English")
    assert [view["language"] for view in result["layers"]] == ["eng_Latn", "sin_Sinh", "amh_Ethi"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "not a benchmark" in page
    assert "read 7 of them" in page
    assert "not a benchmark" in printed
    for language in result["languages"]:
        assert language["name"] in page
        assert language["name"] in printed
    assert PalamModel.from_pretrained(out / "bridge-last").config.fusion == "last"
    assert PalamModel.from_pretrained(out / "bridge-mean").config.fusion == "mean"


def test_the_sentence_is_one_that_the_llm_alone_gets_wrong_where_it_mostly_is():
    rows = [Example(number, {"text": str(number)}, "a") for number in range(4)]

    def evaluated(answers):
        evaluation = Evaluation("demo", "test", "")
        predictions = [
            {"row": row, "label": "a", "prediction": answer} for row, answer in enumerate(answers)
        ]
        evaluation.add("sin_Sinh", predictions)
        return evaluation

    bad, good = evaluated("abbb"), evaluated("abaa")
    typical = module._typical_row(rows, "sin_Sinh", {"LLM alone": bad, "mean": good})
    assert typical.row == 2  # the first on which the one is wrong and the other right
    assert module._typical_row(rows, "sin_Sinh", {"LLM alone": good}).row == 0


@pytest.mark.usefixtures("tiny_starters")
def test_the_first_sentences_are_read_as_in_python(tmp_path):
    result = quickstart(tmp_path / "qs", short=True, console=Console(quiet=True))
    assert [one.language for one in result.readings] == LANGUAGES[1:3]
    model = PalamModel.from_pretrained(first_reading.BRIDGE, **resolve_placement())
    options = {"max_new_tokens": 32, "no_repeat_ngram_size": 3}
    texts = [one.text for one in result.readings]
    for llm_only, scale, name in ((False, 1.5, "bridge"), (True, 1, "llm_alone")):
        answers = palam.generate(model, texts, llm_only=llm_only, guidance_scale=scale, **options)
        expected = [answer.partition("\n")[0].strip() for answer in answers]
        assert [getattr(one, name) for one in result.readings] == expected
    page = (tmp_path / "qs" / "report.html").read_text(encoding="utf-8")
    assert "What the sentences say" in page
    assert page.index(result.readings[0].text) < page.index("What was compared")


@pytest.mark.usefixtures("tiny_starters")
def test_the_command_that_it_ends_with_works(tmp_path, capsys):
    quickstart(tmp_path / "my qs", short=True, console=Console(width=40))
    command = capsys.readouterr().out.splitlines()[-1]
    name, *arguments = shlex.split(command)
    assert name == "palam"
    assert run([*arguments, "--device", "cpu"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["text"] in (DEMO / "test.sin_Sinh.jsonl").read_text(encoding="utf-8")
    assert row["prediction"]


@pytest.mark.usefixtures("tiny_starters")
def test_real_data_in_place_of_the_demonstration(tmp_path, sib200, capsys):
    result = quickstart(tmp_path / "qs", data=sib200, short=True, console=Console()).to_dict()
    assert result["data"] == "sib200"
    assert result["settings"]["data"] == str(sib200)
    assert "not a benchmark" not in capsys.readouterr().out
    assert {method["split"] for method in result["methods"]} == {"dev"}


@pytest.mark.usefixtures("tiny_starters")
def test_data_that_lacks_a_language_is_refused_before_anything_is_made(tmp_path, sib200):
    shutil.copytree(sib200, tmp_path / "data")
    (tmp_path / "data" / "sib200" / "dev.amh_Ethi.jsonl").unlink()
    with pytest.raises(PalamError, match="Amharic"):
        quickstart(tmp_path / "qs", data=tmp_path / "data", console=Console(quiet=True))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.usefixtures("tiny_starters")
def test_an_older_quickstart_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    out = tmp_path / "qs"
    quickstart(out, short=True, console=Console(quiet=True))
    (out / "report.html").write_text("an older one")
    before = files(out)

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_report", stop)
        with pytest.raises(KeyboardInterrupt):
            quickstart(out, short=True, console=Console(quiet=True))
    assert [path.name for path in tmp_path.iterdir()] == ["qs"]
    assert files(out) == before
    quickstart(out, short=True, console=Console(quiet=True))
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert (out / "report.html").read_text(encoding="utf-8") != "an older one"


@pytest.mark.parametrize("moment", ["resolve", "load_bases", "train", "evaluate", "write_report"])
@pytest.mark.usefixtures("tiny_starters")
def test_a_failure_leaves_nothing(tmp_path, monkeypatch, moment):
    def fail(*arguments, **options):
        raise PalamError("no more")

    monkeypatch.setattr(module, moment, fail)
    with pytest.raises(PalamError, match="no more"):
        quickstart(tmp_path / "qs", short=True, console=Console(quiet=True))
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_files_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "resolve", lambda name: pytest.fail("the models were fetched"))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.json").write_text("{}")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "results.json").write_text('{"title": "Palam quickstart"}')
    (tmp_path / "ours" / "notes.txt").write_text("mine")
    before = files(tmp_path)
    for name in ("file", "other", "ours", "file/below"):
        assert run(["quickstart", "--out", str(tmp_path / name)]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("palam: error: ")
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert name.split("/")[0] in said.err
    assert files(tmp_path) == before


@pytest.mark.starter
def test_the_installed_command_on_the_starter_models(tmp_path):
    palam_script = Path(sys.executable).with_name("palam")
    command = [palam_script, "quickstart", "--short", "--out", tmp_path / "qs"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in (tmp_path / "qs").iterdir()) == FILES
    assert "Sinhala" in ended.stdout
    assert str(tmp_path / "qs" / "report.html") in ended.stdout
