"""`palam classify A B C` and `palam evaluate A B C`: several bridges, one answer."""

import json
import math

import pytest
from helpers import read_jsonl
from tiny import TEXT

from palam.models.shared_bases import load_models
from palam.scale.identity import identity_together, model_identity
from palam.utils.device import resolve_placement

CPU = ("--device", "cpu", "--dtype", "fp32")


@pytest.fixture(scope="module")
def others(data, base_options, tmp_path_factory):
    """Two more bridges on the small task, with another seed and another fusion."""
    from palam.cli.main import run

    bridges = []
    for number, own in enumerate([("--seed", 5), ("--fusion", "last", "--mapper", "mlp")]):
        out = tmp_path_factory.mktemp("others") / f"bridge{number}"
        options = ("--task", "sib200", "--data", data, "--out", out, "--max-steps", 3, *own)
        assert run(["train", *map(str, (*options, *base_options))]) == 0
        bridges.append(out)
    return bridges


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    words = TEXT["en"].split()
    rows = [{"text": " ".join(words[start : start + 4])} for start in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def classified(palam, jsonl, texts):
    """`classified(bridge, ...)`: the rows that come out."""

    def call(*bridges_and_options):
        result = palam("classify", *bridges_and_options, "--file", texts, *CPU)
        assert result.code == 0, result.err
        return jsonl(result.out)

    return call


def test_the_scores_are_the_mean_of_the_bridges(trained, others, classified):
    bridges = [trained, *others]
    singles = [classified(bridge) for bridge in bridges]
    together = classified(*bridges)
    for number, row in enumerate(together):
        for label, score in row["scores"].items():
            mean = sum(single[number]["scores"][label] for single in singles) / 3
            assert score == pytest.approx(mean, abs=2e-4)
        best = max(row["scores"], key=row["scores"].get)
        assert row["prediction"] == best
        weights = {label: math.exp(score) for label, score in row["scores"].items()}
        share = weights[best] / sum(weights.values())
        assert row["confidence"] == pytest.approx(share, abs=1e-5)


def test_their_order_does_not_matter(trained, others, classified):
    first, second = others
    assert classified(first, trained, second) == classified(trained, first, second)


def test_a_bridge_that_is_named_twice_answers_as_once(trained, classified):
    assert classified(trained, trained) == classified(trained)


def test_base_models_of_one_name_are_loaded_once(trained, others):
    models = load_models([str(trained), *map(str, others)], resolve_placement("cpu", "fp32"))
    assert len({id(model.encoder) for model in models}) == 1
    assert len({id(model.llm) for model in models}) == 1


def test_the_identity_holds_all_bridges_in_any_order(trained, others):
    first, second, third = load_models(
        [str(trained), *map(str, others)], resolve_placement("cpu", "fp32")
    )
    identity = identity_together([first, second])
    assert identity == identity_together([second, first])
    assert identity != identity_together([first, third])
    assert identity.keys() == model_identity(first).keys()
    assert identity["dtype"] == "fp32"


def test_a_run_goes_on_with_the_same_bridges_alone(
    palam, refused, trained, others, texts, tmp_path
):
    one, other = others
    out = tmp_path / "out.jsonl"
    command = ("--file", texts, "--out", out, *CPU)
    assert palam("classify", trained, one, *command).code == 0
    finished = out.read_text()
    out.unlink()
    lines = texts.read_text().splitlines(keepends=True)
    texts.write_text("".join([*lines[:8], '{"text": 3.5e}\n']))
    small = ("--batch-size", 1)
    assert palam("classify", trained, one, *command, *small).code == 2
    texts.write_text("".join(lines))
    resume = (*command, *small, "--resume")
    assert "the bridge is another one" in refused("classify", trained, other, *resume)
    assert "the bridge is another one" in refused("classify", trained, *resume)
    assert palam("classify", one, trained, *resume).code == 0
    assert len(out.read_text().splitlines()) == len(finished.splitlines())


def test_labels_of_ones_own(trained, others, classified):
    rows = classified(trained, *others, "--labels", "good,bad")
    assert set(rows[0]["scores"]) == {"good", "bad"}


def test_bridges_of_other_labels_are_refused(palam, refused, trained, base_options, tmp_path):
    own = tmp_path / "own.csv"
    own.write_text("text,label\n" + "the dog,good\nthe fox,bad\n" * 8)
    out = tmp_path / "own"
    options = ("--file", own, "--out", out, "--max-steps", 1, *base_options)
    assert palam("train", *options).code == 0
    line = refused("classify", trained, out, "--text", "a", *CPU)
    assert "bridges that answer together need the same, or --labels" in line
    assert palam("classify", trained, out, "--text", "a", "--labels", "x,y", *CPU).code == 0


def test_a_named_column_is_read_by_bridges_that_were_trained_on_others(
    palam, refused, base_options, tmp_path
):
    rows = "the dog,good\nthe fox,bad\n" * 8
    bridges = []
    for name, header in (("usual", "text,label"), ("own", "Body,Tag")):
        table = tmp_path / f"{name}.csv"
        table.write_text(f"{header}\n{rows}")
        text, label = header.split(",")
        columns = ("--text-column", text, "--label-column", label)
        out = tmp_path / name
        options = ("--file", table, "--out", out, "--max-steps", 1, *columns, *base_options)
        assert palam("train", *options).code == 0
        bridges.append(out)
    table = tmp_path / "own.csv"
    line = refused("classify", *bridges, "--file", table, *CPU)
    assert line == (
        f"{bridges[1]} reads a row as '{{Body}}', and {bridges[0]} as '{{text}}'; "
        "bridges that answer together must read the same"
    )
    named = palam("classify", *bridges, "--file", table, "--column", "Body", *CPU)
    assert named.code == 0, named.err
    assert palam("classify", *bridges, "--text", "the dog", *CPU).code == 0
    columns = ("--text-column", "Body", "--label-column", "Tag")
    evaluated = palam("evaluate", *bridges, "--file", table, *columns, *CPU)
    assert evaluated.code == 0, evaluated.err


@pytest.mark.parametrize(
    ("options", "what"),
    [(("--workers", 2), "--workers"), (("--engine", "ray"), "--engine ray")],
)
def test_several_processes_are_for_one_bridge(refused, trained, texts, options, what):
    line = refused("classify", trained, trained, "--file", texts, *options, *CPU)
    assert line == f"{what} is for one bridge; several answer together in one process"


@pytest.fixture
def evaluated(palam, data, tmp_path):
    """`evaluated(bridge, ...)`: the predictions on the small task's rows, and the results."""

    def call(*bridges):
        files = {name: tmp_path / name for name in ("predictions", "json")}
        options = ("--task", "sib200", "--data", data, *CPU)
        for name, path in files.items():
            options += (f"--{name}", path)
        result = palam("evaluate", *bridges, *options)
        assert result.code == 0, result.err
        return read_jsonl(files["predictions"]), json.loads(files["json"].read_text())

    return call


def test_they_are_measured_together(trained, others, evaluated):
    singles = [evaluated(bridge)[0] for bridge in (trained, *others)]
    rows, results = evaluated(trained, *others)
    assert results["model"] == " + ".join(map(str, (trained, *others)))
    for number, row in enumerate(rows):
        for label, score in row["scores"].items():
            mean = sum(single[number]["scores"][label] for single in singles) / 3
            assert score == pytest.approx(mean, rel=1e-6)
    for language, figures in results["results"].items():
        of_language = [row for row in rows if row["language"] == language]
        num_right = sum(row["prediction"] == row["label"] for row in of_language)
        assert figures["accuracy"] == num_right / len(of_language)


def test_a_bridge_that_is_measured_with_itself_reaches_the_same(trained, evaluated):
    assert evaluated(trained, trained)[0] == evaluated(trained)[0]


def test_a_labelled_file_is_read_by_bridges_of_its_labels(
    palam, refused, trained, others, base_options, tmp_path
):
    own = tmp_path / "own.csv"
    own.write_text("text,label\n" + "the dog,good\nthe fox,bad\n" * 8)
    out = tmp_path / "own"
    options = ("--file", own, "--out", out, "--max-steps", 1, *base_options)
    assert palam("train", *options).code == 0
    assert palam("evaluate", out, out, "--file", own, *CPU).code == 0
    line = refused("evaluate", out, trained, "--file", own, *CPU)
    assert line.startswith(f"{trained} has the labels ")
    assert f"and {out} " in line
    assert line.endswith("bridges that answer together need the same")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--record",), "--record is for one bridge"),
        (("--llm-only",), "--llm-only reads without a bridge"),
        (("--method", "generate"), "give --method score"),
    ],
)
def test_what_one_bridge_alone_has(refused, trained, data, options, what):
    line = refused("evaluate", trained, trained, "--task", "sib200", "--data", data, *options, *CPU)
    assert what in line


def test_free_answers_are_not_added_up(refused, trained):
    command = ("evaluate", trained, trained, "--task", "questions", "--languages", "si", *CPU)
    assert refused(*command) == (
        "several bridges answer together on tasks with labels; questions has none"
    )
