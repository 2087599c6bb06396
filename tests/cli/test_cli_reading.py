"""`palam evaluate --task reading` and `--task questions`."""

import json
import re
import shutil

import pytest
import yaml
from helpers import read_jsonl
from safetensors.torch import load_file, save_file

from palam.bench.pack import main as pack_main
from palam.inference.reading_references import LLM_ALONE

CPU = ("--device", "cpu", "--dtype", "fp32")


@pytest.fixture
def reading(untrained, data):
    """The command that measures what gets across a bridge that was trained for no task."""
    return ("evaluate", untrained, "--task", "reading", "--data", data, *CPU)


def test_readings_are_shown_and_written_with_every_answer(palam, reading, tmp_path):
    json_file, page = tmp_path / "results.json", tmp_path / "page.html"
    files = ("--json", json_file, "--html", page)
    result = palam(*reading, "--languages", "si,en", "--limit", 5, *files)
    assert (result.code, result.err) == (0, "")
    content = json.loads(json_file.read_text())
    assert list(content["results"]) == ["sin_Sinh", "eng_Latn"]
    assert len(content["answers"]) == 10
    sinhala, english = content["results"].values()
    assert f"{sinhala['recall']:.1%}" in result.out
    assert f"{sinhala['chrf']:.1f}" in result.out
    # All English words stand in the text itself, so that none of them shows that it was read.
    assert list(english) == ["n", "chrf", "identified"]
    assert content["macro"] == sinhala["recall"]
    # The mean is of the languages that have a recall, all its figures.
    assert "mean of 1" in result.out
    assert "mean of 1" in page.read_text(encoding="utf-8")
    assert content["means"]["identified"] == sinhala["identified"]
    assert "recall by language" in page.read_text()


def test_a_recall_that_is_not_known_is_a_dash(palam, reading, tmp_path):
    json_file, page = tmp_path / "results.json", tmp_path / "page.html"
    files = ("--json", json_file, "--html", page, "--languages", "en", "--limit", 3)
    result = palam(*reading, *files)
    assert (result.code, result.err) == (0, "")
    assert json.loads(json_file.read_text())["macro"] is None
    assert re.search(r"^│ English[^│]*│ +3 │ +– │ +│ +\d", result.out, re.M)
    assert '<td class="figure">–</td>' in page.read_text(encoding="utf-8")


def test_groups_of_languages_have_means(palam, untrained, data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data")
    shutil.copy(folder / "sib200" / "dev.sin_Sinh.jsonl", folder / "sib200" / "dev.fra_Latn.jsonl")
    json_file = tmp_path / "results.json"
    command = ("evaluate", untrained, "--task", "reading", "--data", folder, *CPU)
    result = palam(*command, "--limit", 3, "--json", json_file)
    assert (result.code, result.err) == (0, "")
    content = json.loads(json_file.read_text())
    french, sinhala = (content["results"][code]["recall"] for code in ("fra_Latn", "sin_Sinh"))
    assert content["groups"]["mean, Latin script (1)"]["recall"] == french
    assert content["groups"]["mean, other scripts (1)"]["recall"] == sinhala
    assert "mean, Latin script (1)" in result.out


def test_references_and_likelihood_stand_in_the_same_table(palam, refused, reading, tmp_path):
    json_file = tmp_path / "results.json"
    options = ("--languages", "si", "--limit", 4, "--references", "--likelihood")
    result = palam(*reading, *options, "--json", json_file)
    assert (result.code, result.err) == (0, "")
    references = json.loads(json_file.read_text())["references"]
    names = [
        "the text, copied",
        "an unrelated sentence",
        "answers to other texts",
        "the LLM alone",
        "nearest for the encoder",
    ]
    assert list(references) == names
    for name in names:
        assert re.search(rf"^│ +{name} ", result.out, re.M)
    result_of_sinhala = json.loads(json_file.read_text())["results"]["sin_Sinh"]
    assert "likeliest" in result_of_sinhala
    assert result_of_sinhala["candidates"] == 4
    assert "likeliest: of 4 sentences, by chance 25%" in result.out
    # One row has nothing to be compared with.
    for option in ("--references", "--likelihood"):
        message = refused(*reading, "--languages", "si", "--limit", 1, option)
        assert message.startswith("sin_Sinh: ")
        assert "two rows at least whose English sentences differ" in message


def test_readings_are_recorded_with_the_bridge(palam, untrained, data, tmp_path):
    bridge = shutil.copytree(untrained, tmp_path / "bridge")
    command = ("evaluate", bridge, "--task", "reading", "--data", data, *CPU)
    assert palam(*command, "--languages", "si", "--limit", 3, "--record").code == 0
    (record,) = json.loads((bridge / "results.json").read_text())["evaluations"]
    assert record["measure"] == "content-word recall"
    assert len(record["answers"]) == 3
    assert "decoding" not in record
    assert "reading (content-word recall)" in (bridge / "README.md").read_text(encoding="utf-8")


def test_how_answers_were_decoded_is_recorded_with_their_figures(palam, untrained, data, tmp_path):
    bridge = shutil.copytree(untrained, tmp_path / "bridge")
    command = ("evaluate", bridge, "--task", "reading", "--data", data, *CPU)
    decoding = ("--guidance-scale", 2, "--best-of", 3)
    options = ("--languages", "si", "--limit", 3, *decoding, "--record")
    assert palam(*command, *options).code == 0
    (record,) = json.loads((bridge / "results.json").read_text())["evaluations"]
    assert record["decoding"] == {"guidance_scale": 2.0, "best_of": 3}
    card = (bridge / "README.md").read_text(encoding="utf-8")
    assert "reading (content-word recall, guidance_scale 2.0, best_of 3)" in card


def test_questions_have_an_accuracy(palam, untrained):
    command = ("evaluate", untrained, "--task", "questions", "--languages", "si", *CPU)
    result = palam(*command, "--limit", 3, "--no-repeat-ngram-size", 3)
    assert (result.code, result.err) == (0, "")
    assert "accuracy" in result.out


@pytest.mark.parametrize(
    ("option", "value", "plain_value"), [("--guidance-scale", 3, 1), ("--best-of", 4, 1)]
)
def test_readings_can_be_guided_and_the_best_of_several(
    palam, reading, refused, tmp_path, option, value, plain_value
):
    files = {setting: tmp_path / f"{setting}.json" for setting in (plain_value, value)}
    for setting, path in files.items():
        options = ("--languages", "si", "--limit", 5, option, setting, "--json", path)
        result = palam(*reading, *options, "--references")
        assert (result.code, result.err) == (0, "")
    plain, other = (json.loads(path.read_text()) for path in files.values())
    assert plain["answers"] != other["answers"]
    # The LLM that reads the text itself has neither.
    assert plain["references"][LLM_ALONE] == other["references"][LLM_ALONE]
    message = refused(*reading, "--languages", "si", option, value, "--llm-only")
    assert message == f"{option} needs texts that are read through the bridge"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--references",), "--references needs the task reading"),
        (("--likelihood",), "--likelihood needs the task reading"),
        (("--no-repeat-ngram-size", "2"), "needs a task without labels"),
        (("--guidance-scale", "2"), "--guidance-scale needs a task without labels"),
        (("--best-of", "2"), "--best-of needs the task reading"),
    ],
)
def test_options_of_other_tasks_are_refused(refused, untrained, data, options, message):
    task = ("--task", "sib200", "--data", data, "--languages", "si", *CPU)
    assert message in refused("evaluate", untrained, *task, *options)


def test_a_bridge_of_another_family_is_refused(refused, trained, data):
    task = ("--task", "reading", "--data", data, "--languages", "si", *CPU)
    message = refused("evaluate", trained, *task)
    assert message == "this bridge was trained for topic (sib200); reading is reading"


def test_a_bridge_can_be_trained_to_read(palam, data, base_options, tmp_path):
    task = ("--task", "reading", "--data", data)
    options = ("--max-steps", 1, "--batch-size", 4, "--out", tmp_path / "bridge", *base_options)
    result = palam("train", *task, *options)
    assert result.code == 0, result.err
    result = palam("evaluate", tmp_path / "bridge", *task, "--languages", "si", "--limit", 3, *CPU)
    assert (result.code, result.err) == (0, "")


# --------------------------------------------------------------------------- in a benchmark
@pytest.fixture
def recipe(tmp_path, base_folder, data):
    """A recipe of general bridges: its content."""
    lines = [f"The {noun} is {word}." for noun in ("house", "river") for word in ("old", "new")]
    text = tmp_path / "english.txt"
    text.write_text("\n".join(lines * 10), encoding="utf-8")
    train = {
        "text_file": str(text),
        "encoder": str(base_folder("bert")),
        "llm": str(base_folder("llama")),
        "batch_size": 4,
        "max_steps": 2,
        "device": "cpu",
        "dtype": "fp32",
        "data": str(data),
    }
    read = {"split": "dev", "languages": ["si", "en"], "limit": 6}
    methods = {"mean": {"fusion": "mean"}, "last": {"fusion": "last"}}
    methods["alone"] = {"baseline": "llm_only"}
    translator = str(base_folder("nllb"))
    methods["translator"] = {"baseline": "translate", "translator": translator}
    return {"train": train, "read": read, "seeds": [0, 1], "methods": methods}


def test_general_bridges_are_compared_by_what_they_read(palam, recipe, saved, data, tmp_path):
    out = tmp_path / "out"
    assert palam("bench", saved(recipe), "--dry-run").code == 0
    result = palam("bench", saved(recipe), "--out", out)
    assert result.code == 0, result.err
    cells = read_jsonl(out / "cells.jsonl")
    names = [(cell["method"], cell["seed"]) for cell in cells]
    assert names[:4] == [("mean", 0), ("mean", 1), ("last", 0), ("last", 1)]
    assert names[4:] == [("alone", 0), ("translator", 0)]
    for cell in cells:
        # English words stand in the text itself: nothing can be measured by them.
        assert list(cell["results"]) == ["sin_Sinh"]
        rows = read_jsonl(out / "predictions" / f"{cell['method']}.{cell['seed']}.jsonl")
        recalls = [row["recall"] for row in rows if row["language"] == "sin_Sinh"]
        assert cell["results"]["sin_Sinh"] == pytest.approx(sum(recalls) / len(recalls))
        for name in ("chrf", "identified"):
            values = [row[name] for row in rows if row["language"] == "sin_Sinh"]
            assert cell[name]["sin_Sinh"] == pytest.approx(sum(values) / len(values))
    (bridge,) = (out / "bridges").glob("mean-*-0")
    settings = yaml.safe_load((bridge / "settings.yaml").read_text())
    assert settings["prompt"] == "{text}\nThe same in English:"
    assert (settings["objectives"], settings["swap_words"]) == ({"repeat": 1.0}, 0.15)
    figures = tmp_path / "figures.json"
    command = ("evaluate", bridge, "--task", "reading", "--data", data, "--limit", 6, *CPU)
    assert palam(*command, "--languages", "si", "--json", figures).code == 0
    alone = json.loads(figures.read_text())["results"]["sin_Sinh"]["recall"]
    assert cells[0]["results"]["sin_Sinh"] == pytest.approx(alone)


def test_readings_of_a_benchmark_are_decoded_as_the_recipe_says(
    palam, recipe, saved, data, tmp_path
):
    del recipe["methods"]["last"], recipe["methods"]["translator"]
    recipe["read"] |= {"languages": ["si"], "guidance_scale": 3, "best_of": 4}
    recipe["seeds"] = [0]
    out = tmp_path / "out"
    assert palam("bench", saved(recipe), "--out", out).code == 0
    assert "# reading, split dev, guidance_scale 3, best_of 4" in palam("report", out).out
    (bridge,) = (out / "bridges").glob("mean-*-0")
    command = ("evaluate", bridge, "--task", "reading", "--data", data, "--limit", 6, *CPU)
    decoding = ("--guidance-scale", 3, "--best-of", 4)
    rows = tmp_path / "rows.jsonl"
    assert palam(*command, "--languages", "si", *decoding, "--predictions", rows).code == 0
    cell = read_jsonl(out / "predictions" / "mean.0.jsonl")
    said = [row["prediction"] for row in read_jsonl(rows)]
    assert [row["prediction"] for row in cell] == said


def test_the_report_of_readings_says_what_it_shows_and_stays_when_packed(
    palam, recipe, saved, tmp_path
):
    out = tmp_path / "out"
    assert palam("bench", saved(recipe), "--out", out).code == 0
    shown = palam("report", out).out
    lead = "Trained on the English text of english.txt, read in one language."
    assert f"# reading, split dev\n\n{lead} Content-word recall" in shown
    assert "one answer is worth up to 16.7 points there" in shown
    assert "Wilcoxon's signed-rank test" in shown
    assert "McNemar" not in shown
    page = tmp_path / "page.html"
    assert palam("report", out, "--html", page).code == 0
    content = page.read_text(encoding="utf-8")
    assert "Content-word recall by language" in content
    assert f'<h1>reading, split dev</h1>\n<p class="lead">{lead}</p>' in content
    assert "is worth up to 16.7 points there" in content
    assert pack_main([str(out)]) == 0
    assert not (out / "predictions").exists()
    assert palam("report", out).out == shown
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    of_mean = summary["methods"]["mean"]
    seeds = [of_mean["seeds"][seed]["sin_Sinh"]["recall"] for seed in ("0", "1")]
    assert of_mean["mean_of_seeds"] == seeds
    cells = [cell for cell in read_jsonl(out / "cells.jsonl") if cell["method"] == "mean"]
    chrf = sum(cell["chrf"]["sin_Sinh"] for cell in cells) / 2
    identified = sum(cell["identified"]["sin_Sinh"] for cell in cells) / 2
    assert of_mean["chrf"] == pytest.approx(chrf, abs=1e-6)
    assert of_mean["identified"] == pytest.approx(identified, abs=1e-6)
    assert "| wins | chrF | identified |" in shown
    assert re.search(rf"^\| mean \| .* \| {chrf:.1f} \| {100 * identified:.1f} \|$", shown, re.M)
    assert f"<td>{chrf:.1f}</td>" in page.read_text(encoding="utf-8")
    # A third seed is added to what is packed.
    assert palam("bench", saved(recipe, seeds=[0, 1, 2]), "--out", out).code == 0
    assert "| mean |" in palam("report", out).out


def test_results_are_resumed_with_the_same_files_and_bridges_alone(
    palam, refused, recipe, saved, tmp_path
):
    lexicon = tmp_path / "lexicon.csv"
    lexicon.write_text("word,translation,language\nold,vieux,fr\nnew,neuf,fr\n", encoding="utf-8")
    methods = {"words": {"fusion": "mean", "lexicon": str(lexicon)}}
    content = recipe | {"methods": methods, "seeds": [0]}
    out = ("--out", tmp_path / "out")
    assert palam("bench", saved(content), *out).code == 0
    before = json.loads((tmp_path / "out" / "run.json").read_text())
    assert list(before["inputs"]) == ["words: lexicon"]
    # A method that is added has its own.
    (trained,) = (tmp_path / "out" / "bridges").glob("words-*")
    bridge = shutil.copytree(trained, tmp_path / "start")
    methods["further"] = {"fusion": "mean", "init_from": str(bridge)}
    assert palam("bench", saved(content), *out).code == 0
    assert list(json.loads((tmp_path / "out" / "run.json").read_text())["inputs"]) == [
        "words: lexicon",
        "further: init_from",
    ]
    weights = bridge / "model.safetensors"
    tensors = {name: tensor + 1 for name, tensor in load_file(weights).items()}
    save_file(tensors, weights)
    lexicon.write_text("word,translation,language\nold,ancien,fr\n", encoding="utf-8")
    message = refused("bench", saved(content), *out)
    assert "results of other contents (words: lexicon, further: init_from)" in message


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lexicon": "nowhere.csv"}, "words: lexicon is nowhere.csv, which cannot be read: "),
        ({"init_from": "nowhere"}, "words: init_from: checkpoint 'nowhere' cannot"),
    ],
)
def test_what_a_method_names_is_looked_for_before_any_training(
    refused, recipe, saved, tmp_path, setting, message
):
    content = recipe | {"methods": {"mean": {"fusion": "mean"}, "words": setting}}
    assert message in refused("bench", saved(content), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("methods", {"most": {"baseline": "majority"}}, "method most: majority needs labels"),
        ("methods", {"head": {"baseline": "head"}}, "the baselines beside texts are llm_only and"),
        ("read", {"languages": ["en"]}, "give read.languages others than English"),
        ("read", {"task": "nothing"}, 'unknown task "nothing"'),
        ("train", {"text_file": "/nowhere.txt"}, "nowhere.txt"),
    ],
)
def test_what_cannot_be_compared_by_reading_is_refused(
    refused, recipe, saved, tmp_path, part, change, message
):
    content = recipe | {part: recipe[part] | change}
    assert message in refused("bench", saved(content), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bridge_that_learns_labels_is_not_asked_to_read(refused, results, tmp_path):
    recipe = (results / "recipe.yaml", "--set", "methods=mean", "--set", "read.task=reading")
    message = refused("bench", *recipe, "--out", tmp_path / "out")
    assert message.startswith("a bridge that is trained on labels does not answer reading")


def test_general_bridges_read_tasks_with_labels_too(palam, recipe, saved, tmp_path):
    out = tmp_path / "out"
    read = recipe["read"] | {"task": "sib200"}
    methods = {name: recipe["methods"][name] for name in ("mean", "alone", "translator")}
    content = recipe | {"read": read, "methods": methods, "seeds": [0]}
    result = palam("bench", saved(content), "--out", out)
    assert result.code == 0, result.err
    for cell in read_jsonl(out / "cells.jsonl"):
        assert list(cell["results"]) == ["sin_Sinh", "eng_Latn"]
    shown = palam("report", out).out
    assert "Accuracy in percent" in shown
    assert "chrF" not in shown
