"""`palam bench` and `palam report`: cells are done once, rates are chosen in English, a report says what was found."""

import json
import re
import shutil

import pytest
import yaml

from palam.bench import runner as bench_run
from palam.bench.recipe import FOLDER, load_recipe
from palam.bench.report import _groups
from palam.cli import run
from palam.tasks.registry import get_task
from palam.training.trainer import NonFiniteLoss

RECIPE = {
    "train": {
        "task": "sib200",
        "epochs": 1,
        "limit": 20,
        "batch_size": 4,
        "device": "cpu",
        "dtype": "fp32",
    },
    "read": {"split": "dev", "languages": ["si", "en"]},
    "seeds": [0, 1],
    "curve": [0, 3],
    "methods": {
        "last": {"fusion": "last", "lr": [1e-3, 1e-2]},
        "mean": {"fusion": "mean", "init": "random", "average": 0.2},
        "lora": {"direct": True, "lora_rank": 2},
        "most": {"baseline": "majority"},
        "LLM alone": {"baseline": "direct"},
        "translated": {"baseline": "translate"},
        "head": {"baseline": "head", "layers": "mean"},
    },
    "published": {"note": "A note.", "last": {"si": 71.66, "mean": 50}},
}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def results(data, base_folder, tmp_path_factory):
    """A recipe and its finished results; not to be changed."""
    folder = tmp_path_factory.mktemp("bench")
    bases = {
        "encoder": str(base_folder("bert")),
        "llm": str(base_folder("llama")),
        "data": str(data),
    }
    translated = {"baseline": "translate", "translator": str(base_folder("nllb"))}
    recipe = RECIPE | {
        "train": RECIPE["train"] | bases,
        "methods": RECIPE["methods"] | {"translated": translated},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    assert run(["bench", str(folder / "recipe.yaml"), "--out", str(folder / "out")]) == 0
    return folder


@pytest.fixture
def again(results, tmp_path):
    return shutil.copytree(results, tmp_path / "again")


def test_every_cell_has_its_results_and_predictions(results):
    cells = rows(results / "out" / "cells.jsonl")
    trained = [(name, seed) for name in ("last", "mean", "lora") for seed in (0, 1)]
    baselines = [(name, 0) for name in ("most", "LLM alone", "translated", "head")]
    assert [(c["method"], c["seed"]) for c in cells] == [*trained, *baselines]
    for cell in cells:
        said = rows(results / "out" / "predictions" / f"{cell['method']}.{cell['seed']}.jsonl")
        assert len(said) == 42
        for code, accuracy in cell["results"].items():
            right = [one["prediction"] == one["label"] for one in said if one["language"] == code]
            assert accuracy == pytest.approx(sum(right) / 21)
    assert cells[6]["results"] == pytest.approx({"sin_Sinh": 1 / 7, "eng_Latn": 1 / 7})


def test_the_rate_with_the_lowest_english_loss_is_used_for_all_seeds(results):
    tried = {
        (r["method"], r["lr"], r["seed"]): r["validation_loss"]
        for r in rows(results / "out" / "rates.jsonl")
    }
    assert len(tried) == 7  # two rates and a second seed; one rate with two seeds, twice
    best = min((1e-3, 1e-2), key=lambda lr: tried["last", lr, 0])
    assert {c["lr"] for c in rows(results / "out" / "cells.jsonl") if c["method"] == "last"} == {
        best
    }
    assert not (results / "out" / "bridges" / f"last-{1e-3 + 1e-2 - best:g}-0").exists()


def test_curves_are_read_at_the_steps_and_change_nothing(results, again, palam):
    points = [
        c for c in rows(results / "out" / "curve.jsonl") if c["method"] == "mean" and c["seed"] == 0
    ]
    assert [c["at"] for c in points] == [0, 3]
    assert points[0]["results"].keys() == {"sin_Sinh", "eng_Latn"}
    options = (
        "--out",
        again / "plain",
        "--set",
        "curve=[]",
        "--set",
        "methods=mean",
        "--set",
        "seeds=[0]",
    )
    assert palam("bench", again / "recipe.yaml", *options).code == 0
    (plain,) = rows(again / "plain" / "cells.jsonl")
    assert plain["validation_loss"] == next(
        c["validation_loss"] for c in rows(results / "out" / "cells.jsonl") if c["method"] == "mean"
    )


def test_what_is_finished_is_not_repeated_and_the_rest_is_done(again, palam, monkeypatch):
    train, trained = bench_run.train, []
    monkeypatch.setattr(
        bench_run,
        "train",
        lambda s, out, **options: trained.append(out.name) or train(s, out, **options),
    )
    options = ("bench", again / "recipe.yaml", "--out", again / "out")
    before = (again / "out" / "cells.jsonl").read_bytes()
    assert palam(*options).code == 0
    assert (trained, (again / "out" / "cells.jsonl").read_bytes()) == ([], before)
    (again / "out" / "cells.jsonl").write_bytes(
        before[:-20]
    )  # killed while the last cell's line was written
    assert palam(*options).code == 0
    cells = bench_run.lines(again / "out" / "cells.jsonl")
    assert (len(cells), trained, cells[-1]["method"]) == (10, [], "head")
    curve, (method, lr, seed) = (
        (again / "out" / "curve.jsonl").read_bytes(),
        (cells[0][k] for k in ("method", "lr", "seed")),
    )
    (again / "out" / "cells.jsonl").write_bytes(
        before.partition(b"\n")[2]
    )  # killed before the kept bridge was removed
    bridges = again / "out" / "bridges"
    shutil.copytree(bridges / f"{method}-{lr:g}-{seed}", bridges / f"{method}-{lr:g}-{seed}.at-3")
    assert palam(*options).code == 0
    assert (again / "out" / "curve.jsonl").read_bytes() == curve
    assert not list(bridges.glob("*.at-*"))
    assert trained == []
    assert palam(*options, "--set", "seeds=[2]", "--set", "methods=last,most").code == 0
    assert trained == [
        f"last-{lr:g}-2"
    ]  # the rows and the rate stay those of the first seed of all
    assert yaml.safe_load((again / "out" / "recipe.yaml").read_text())["seeds"] == [0, 1, 2]
    shown = palam("report", again / "out").out
    assert "| most |" in shown  # methods that were there stay, and so does the one to test against
    assert "## Against last," in shown


def test_a_rate_at_which_training_fails_is_not_chosen(again, palam, monkeypatch):
    train = bench_run.train

    def failing(settings, out, **options):
        if settings.lr == 1e-3:
            raise NonFiniteLoss("the loss is not finite")
        return train(settings, out, **options)

    monkeypatch.setattr(bench_run, "train", failing)
    options = (
        "--out",
        again / "new",
        "--set",
        "methods=last",
        "--set",
        "seeds=[0]",
        "--set",
        "curve=[]",
    )
    assert palam("bench", again / "recipe.yaml", *options).code == 0
    assert [cell["lr"] for cell in rows(again / "new" / "cells.jsonl")] == [1e-2]
    assert len(rows(again / "new" / "rates.jsonl")) == 2
    assert (
        palam(
            "bench", again / "recipe.yaml", *options, "--set", "lr=1e-3", "--out", again / "alone"
        ).code
        == 2
    )


def test_other_settings_or_data_are_refused(again, palam):
    options = ("bench", again / "recipe.yaml", "--out", again / "out")
    assert "other settings (train.epochs)" in palam(*options, "--set", "epochs=2").err
    assert "other settings (read.limit)" in palam(*options, "--set", "read.limit=7").err
    found = json.loads((again / "out" / "run.json").read_text())
    (again / "out" / "run.json").write_text(
        json.dumps(found | {"data": found["data"] | {"dev": "0"}})
    )
    assert "results on other data" in palam(*options).err


def test_the_report_in_markdown_latex_and_html(results, palam, tmp_path):
    cells = rows(results / "out" / "cells.jsonl")
    shown = palam("report", results / "out")
    assert shown.code == 0
    line = next(line for line in shown.out.splitlines() if line.startswith("| Sinhala |"))
    found = [float(cell.strip(" *")) for cell in line.split("|")[3:-1]]
    for value, name in zip(found, RECIPE["methods"], strict=True):
        seeds = [100 * c["results"]["sin_Sinh"] for c in cells if c["method"] == name]
        assert value == pytest.approx(sum(seeds) / len(seeds), abs=0.051)
    assert "**" in line
    assert f"| last | si | 71.7 | {found[0]:.1f} |" in shown.out
    ends = [c for c in cells if c["method"] == "mean"]
    end = sum(100 * c["results"]["sin_Sinh"] for c in ends) / len(ends)
    curve = next(line for line in shown.out.splitlines() if line.startswith("- mean: "))
    assert re.fullmatch(
        rf"- mean: \S+ at step 0, \S+ at step 3, {end:.1f} at step {ends[0]['steps']}", curve
    )
    latex = palam("report", results / "out", "--latex").out
    assert latex.count(r" \\") == 1 + 2 + 1
    assert r"\begin{tabular}{lrrrrrrrr}" in latex
    assert palam("report", results / "out", "--html", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 6 + 1
    assert not re.search(r'(?:src|href)="|https?:', page)
    layers = next(c["layers"] for c in cells if c["method"] == "mean")
    assert layers.keys() == {"sin_Sinh", "eng_Latn"}
    assert [sum(shares) for shares in layers.values()] == pytest.approx([1, 1])
    assert page.count('<table class="heat">') == 1  # of `mean`; `last` has one layer, the LoRA none


def test_what_many_languages_come_to_stands_before_them(again, palam):
    out = again / "out"
    codes = ["eng_Latn", *(code for code in get_task("sib200").languages if code != "eng_Latn")]
    for file in (out / "predictions").iterdir():
        own = [one for one in rows(file) if one["language"] == "sin_Sinh"]
        said = [one | {"language": code} for code in codes[:41] for one in own]
        file.write_text("".join(json.dumps(one) + "\n" for one in said))
    (out / "curve.jsonl").unlink()
    shown = palam("report", out).out.splitlines()
    (means,) = (
        i for i, line in enumerate(shown) if line.startswith("| mean without English | 40 |")
    )
    first = next(i for i, line in enumerate(shown) if line.startswith("| English |"))
    assert means < shown.index("## Against last, mean without English") < first
    assert palam("report", out, "--html", again / "page.html").code == 0
    page = (again / "page.html").read_text()
    assert page.index("mean without English</th><td>40<") < page.index("English <small>eng_Latn<")
    assert ">arb_Latn</text>" in page  # its name would run into the picture
    assert (
        r"\begin{longtable}{lrrrrrrrr}" in palam("report", out, "--latex").out
    )  # a tabular ends with its page


def test_the_tests_are_against_the_method_that_is_named(results, again, palam, refused):
    shown = palam("report", results / "out", "--against", "LLM alone").out
    assert "## Against LLM alone," in shown
    table = shown.partition("## Against LLM alone,")[2].splitlines()
    assert next(line for line in table if line.startswith("| last |")).count("to") == 1
    assert next(line for line in table if line.startswith("| LLM alone |")).count("to") == 0
    message = refused("report", results / "out", "--against", "first")
    assert "against is 'first', which is no method" in message
    assert "there are last, mean, lora, most, LLM alone, translated, head" in message
    kept = [
        line
        for line in (again / "out" / "curve.jsonl").read_text().splitlines()
        if '"seed": 1' not in line
    ]
    (again / "out" / "curve.jsonl").write_text(
        "\n".join(kept)
    )  # a curve of seed 0 alone ends at its bridge
    (cell,) = (
        c for c in rows(results / "out" / "cells.jsonl") if (c["method"], c["seed"]) == ("mean", 0)
    )
    line = next(
        line
        for line in palam("report", again / "out").out.splitlines()
        if line.startswith("- mean: ")
    )
    assert line.endswith(f"{100 * cell['results']['sin_Sinh']:.1f} at step {cell['steps']}")


def test_of_several_methods_the_one_with_the_lowest_english_loss_is_chosen_for_each_seed(
    again, palam, refused
):
    out, recipe = again / "out", yaml.safe_load((again / "recipe.yaml").read_text())
    before = [json.loads(line) for line in (out / "cells.jsonl").read_text().splitlines()]
    loss = {
        ("last", 0): 2.0,
        ("mean", 0): 1.0,
        ("lora", 0): 3.0,
        ("last", 1): 1.0,
        ("mean", 1): 2.0,
        ("lora", 1): 3.0,
    }
    changed = [one | {"validation_loss": loss.get((one["method"], one["seed"]))} for one in before]
    (out / "cells.jsonl").write_text("".join(json.dumps(one) + "\n" for one in changed))
    recipe["methods"]["chosen"] = {"best_of": ["last", "mean", "lora"]}
    (again / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    assert palam("bench", again / "recipe.yaml", "--out", out).code == 0
    assert rows(out / "cells.jsonl") == changed  # nothing is run for it
    found = {(one["method"], one["seed"]): 100 * one["results"]["sin_Sinh"] for one in before}
    shown = palam("report", out, "--against", "last").out
    assert (
        "chosen is, for each seed, the method with the lowest English validation loss: mean, last."
        in shown
    )
    each = f"{found['mean', 0]:.1f}, {found['last', 1]:.1f}"
    assert any(line.startswith(f"| chosen | {each} |") for line in shown.splitlines())
    assert palam("report", out, "--html", again / "page.html").code == 0
    page = (again / "page.html").read_text()
    seconds = sum(one["seconds"] for one in before if one["method"] in ("last", "mean", "lora"))
    assert re.search(
        rf"<th scope=\"row\">chosen</th><td>2</td><td>–</td><td>–</td><td>–</td><td>{seconds:.0f}<",
        page,
    )
    for wrong in (["last", "most"], ["last", "chosen"], [], "last"):
        recipe["methods"]["chosen"] = {"best_of": wrong}
        (again / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        message = refused("bench", again / "recipe.yaml", "--out", out)
        assert "a list of trained methods, of: last, mean, lora" in message


def test_files_of_your_own_are_compared_like_tasks(base_folder, palam, refused, tmp_path):
    def write(name, texts, labels=("good", "bad")):
        lines = [f"{text} {i},{labels[i % 2]}" for i, text in enumerate(texts * 10)]
        (tmp_path / name).write_text("\n".join(["review,verdict", *lines]), encoding="utf-8")
        return str(tmp_path / name)

    train = {
        "file": write("en.csv", ["It works", "It broke"]),
        "text_column": "review",
        "label_column": "verdict",
    }
    train |= {
        "encoder": str(base_folder("bert")),
        "llm": str(base_folder("llama")),
        "batch_size": 4,
        "max_steps": 2,
    }
    files = {"si": write("si.csv", ["එය හොඳයි"]), "ta": write("ta.csv", ["நல்லது", "கெட்டது"])}
    read = {"files": files, "limit": 8}
    methods = {
        "mean": {"fusion": "mean"},
        "last": {"fusion": "last"},
        "head": {"baseline": "head", "layers": "last"},
    }
    recipe = {"train": train, "read": read, "seeds": [0], "methods": methods}
    path = tmp_path / "recipe.yaml"

    def saved(**changed):
        path.write_text(yaml.safe_dump(recipe | changed, sort_keys=False))
        return path

    assert palam("bench", saved(), "--dry-run").code == 0
    wrong = palam(
        "bench", saved(train=train | {"encoder": str(tmp_path)}), "--out", tmp_path / "out"
    )
    assert (wrong.code, wrong.err.count("palam: error: encoder")) == (2, 1)
    assert not (tmp_path / "out").exists()
    assert palam("bench", saved(), "--out", tmp_path / "out").code == 0
    cells = rows(tmp_path / "out" / "cells.jsonl")
    assert [(one["method"], set(one["results"])) for one in cells] == [
        (name, {"si", "ta"}) for name in methods
    ]
    said = rows(tmp_path / "out" / "predictions" / "mean.0.jsonl")
    assert [one["language"] for one in said] == ["si"] * 8 + ["ta"] * 8
    assert {one["label"] for one in said} == {"good", "bad"}
    shown = palam("report", tmp_path / "out").out
    assert "si.csv, ta.csv, trained on English en.csv." in shown
    assert "| Sinhala | 8 |" in shown
    assert "jointly" not in shown
    assert (
        palam("bench", saved(read=read | {"parallel": True}), "--out", tmp_path / "out").code == 0
    )
    assert rows(tmp_path / "out" / "cells.jsonl") == cells
    assert "jointly" in palam("report", tmp_path / "out").out
    (tmp_path / "moved").mkdir()
    moved = {code: shutil.move(one, tmp_path / "moved") for code, one in files.items()}
    assert (
        palam("bench", saved(read={"files": moved, "limit": 8}), "--out", tmp_path / "out").code
        == 0
    )
    assert rows(tmp_path / "out" / "cells.jsonl") == cells  # the same rows in another place
    write("moved/si.csv", ["එය හොඳයි"], ("good", "fine"))
    again = ("bench", saved(read={"files": moved}), "--out", tmp_path / "x")
    assert "moved/si.csv, line 3: label 'fine' is none of good, bad" in refused(*again)
    assert "train.file and read.files go together" in refused(
        "bench", saved(read={"task": "sib200"})
    )
    assert "a file for each language" in refused("bench", saved(read={"files": ["si.csv"]}))
    assert "read.parallel is true or false" in refused(
        "bench", saved(read=read | {"parallel": "si"})
    )
    assert "tasks know it of theirs" in refused(
        "bench", "starter/sib200", "--set", "read.parallel=true"
    )


def test_means_are_shown_by_groups_that_divide_the_languages():
    groups = dict(_groups(["eng_Latn", "sin_Sinh", "swh_Latn", "hin_Deva", "yor_Latn"]))
    assert groups.pop("mean without English") == ["sin_Sinh", "swh_Latn", "hin_Deva", "yor_Latn"]
    assert groups == {
        "mean, Latin script": ["swh_Latn", "yor_Latn"],
        "mean, other scripts": ["sin_Sinh", "hin_Deva"],
        "mean, high-resource": ["hin_Deva"],
        "mean, low-resource": ["sin_Sinh", "swh_Latn", "yor_Latn"],
        "mean, in XLM-R's training data": ["sin_Sinh", "swh_Latn", "hin_Deva"],
        "mean, not in XLM-R's training data": ["yor_Latn"],
    }
    assert list(dict(_groups(["si", "ta"]))) == ["mean without English"]


def test_mistakes(refused, results, tmp_path, palam):
    recipe = results / "recipe.yaml"
    assert "give a YAML file, or one of: paper/amazon_reviews" in refused(
        "bench", "nothing", "--out", tmp_path / "x"
    )
    assert "there is no setting 'epoch'" in refused(
        "bench", recipe, "--set", "epoch=2", "--out", tmp_path / "x"
    )
    assert "no method 'fast'" in refused(
        "bench", recipe, "--set", "methods=fast", "--out", tmp_path / "x"
    )
    assert "no language" in refused(
        "bench", recipe, "--set", "read.languages=[xx]", "--out", tmp_path / "x"
    )
    assert "of the family nli" in refused(
        "bench", recipe, "--set", "read.task=lingnli", "--set", "read.split=dev", "--set", "read.languages=[en]",
        "--set", f"data={_nli(results)}", "--out", tmp_path / "x"
    )  # fmt: skip
    assert "holds no results" in refused("report", tmp_path)


def _nli(results):
    folder = results / "nli"
    for name in ("lingnli", "sib200"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    pair = {"premise": "a", "hypothesis": "b", "label": "neutral"}
    (folder / "lingnli" / "dev.en.jsonl").write_text(json.dumps(pair) + "\n")
    for split in ("train", "dev"):
        (folder / "sib200" / f"{split}.eng_Latn.jsonl").write_text(
            '{"text": "a", "label": "travel"}\n' * 2
        )
    return folder


@pytest.mark.parametrize(
    "name", sorted(p.relative_to(FOLDER).with_suffix("").as_posix() for p in FOLDER.rglob("*.yaml"))
)
def test_the_packages_recipes_can_be_planned_with_other_models(name, palam, base_folder):
    made = load_recipe(name)
    assert made.against in made.methods
    bases = (
        "--set",
        f"encoder={base_folder('mt5')}",
        "--set",
        f"llm={base_folder('llama')}",
        "--set",
        "dtype=fp32",
    )
    result = palam("bench", name, "--dry-run", "--tflops", 1, *bases)
    assert result.code == 0, result.err
    assert [line.split("  ")[0] for line in result.out.splitlines()[1:]] == [
        m for m, own in made.methods.items() if "best_of" not in own
    ]


def test_a_recipe_extends_another_with_what_it_gives_itself(tmp_path):
    (tmp_path / "folder").mkdir()
    first, second = tmp_path / "folder" / "first.yaml", tmp_path / "folder" / "second.yaml"
    first.write_text(
        "title: First\nextends: starter/sib200\nseeds: [7]\nmethods: {mean: {lr: 2.0e-3}, new: {fusion: last}}\n"
    )
    second.write_text(
        "extends: first.yaml\ntrain: {task: xnli}\n"
    )  # beside it, wherever the command is run
    base, made = (
        load_recipe("starter/sib200"),
        load_recipe(str(second), ["methods=mean,new,majority"]),
    )
    assert (made.title, made.seeds, made.train, made.read["split"]) == (
        "First",
        [7],
        {"task": "xnli"},
        "dev",
    )
    assert made.methods == {
        "mean": {"lr": 2e-3},
        "new": {"fusion": "last"},
        "majority": base.methods["majority"],
    }
    assert list(load_recipe(str(first)).methods) == [*base.methods, "new"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: here.yaml", "extends itself"),
        ("extends: starter/none", "no recipe starter/none"),
        ("extends: starter/sib200\nmethods: [mean]", "methods is ['mean']; it must be"),
    ],
)
def test_a_recipe_that_extends_nothing_good_is_refused(text, message, palam, tmp_path):
    (tmp_path / "here.yaml").write_text(text)
    result = palam("bench", tmp_path / "here.yaml", "--dry-run", "--tflops", 1)
    assert (result.code, message in result.err) == (2, True)


def test_a_dry_run_needs_no_hub(palam):
    result = palam("bench", "paper/xnli", "--dry-run", "--tflops", 100)
    assert result.code == 0
    assert "cannot be reached" in result.out


def test_a_dry_run_counts_the_rows_that_are_at_hand(results, palam, data, refused):
    def tokens(*options):
        shown = palam(
            "bench", results / "recipe.yaml", "--dry-run", "--tflops", 1, *options
        ).out.splitlines()
        return int(
            next(line for line in shown if line.startswith("mean ")).split()[2].replace(",", "")
        )

    rows = len((data / "sib200" / "train.eng_Latn.jsonl").read_text().splitlines())
    assert (
        tokens("--set", "limit=null")
        == tokens("--set", f"limit={rows}")
        > tokens("--set", "limit=4")
        > 0
    )
    demo = ("--set", "task=demo", "--set", "data=null")  # a tenth of its 350 rows is held out
    assert (
        tokens(*demo, "--set", "limit=null") == tokens(*demo, "--set", "limit=315") > tokens(*demo)
    )
    options = ("--dry-run", "--set", f"data={data / 'nothing'}")
    assert "nothing" in refused("bench", results / "recipe.yaml", *options)
