"""`palam bench`: a cell is done once, rates are chosen in English, a recipe can be planned."""

import json
import shutil
from dataclasses import replace

import pytest
import yaml
from helpers import read_jsonl
from rich.console import Console

from palam.bench import method_trainer
from palam.bench.estimate import estimate
from palam.bench.method_trainer import MethodTrainer
from palam.bench.methods import BaselineMethod, ChoiceMethod, TrainedMethod
from palam.bench.recipe_file import load_recipe, recipe_names
from palam.bench.results import ResultsFolder
from palam.training.trainer import NonFiniteLoss
from palam.utils.locks import output_lock


def changes(*settings):
    """`--set` before each setting."""
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture
def trained_bridges(monkeypatch):
    """The names of the bridges that are trained from now on."""
    train = method_trainer.train
    names = []

    def recording_train(config, out, **options):
        names.append(out.name)
        return train(config, out, **options)

    monkeypatch.setattr(method_trainer, "train", recording_train)
    return names


# --------------------------------------------------------------------------- cells
def test_every_cell_has_its_results_and_predictions(results):
    cells = read_jsonl(results / "out" / "cells.jsonl")
    trained = [(name, seed) for name in ("last", "mean", "lora") for seed in (0, 1)]
    baselines = [(name, 0) for name in ("most", "LLM alone", "translated", "head")]
    assert [(cell["method"], cell["seed"]) for cell in cells] == [*trained, *baselines]
    for cell in cells:
        name = f"{cell['method']}.{cell['seed']}.jsonl"
        predictions = read_jsonl(results / "out" / "predictions" / name)
        assert len(predictions) == 42
        for code, accuracy in cell["results"].items():
            rows = [row for row in predictions if row["language"] == code]
            num_right = sum(row["prediction"] == row["label"] for row in rows)
            assert accuracy == pytest.approx(num_right / 21)
    assert cells[6]["results"] == pytest.approx({"sin_Sinh": 1 / 7, "eng_Latn": 1 / 7})


def test_the_rate_with_the_lowest_english_loss_is_used_for_all_seeds(results):
    runs = read_jsonl(results / "out" / "rates.jsonl")
    losses = {(run["method"], run["lr"], run["seed"]): run["validation_loss"] for run in runs}
    assert len(losses) == 7  # two rates and a second seed; one rate with two seeds, twice
    best = min((1e-3, 1e-2), key=lambda lr: losses["last", lr, 0])
    cells = read_jsonl(results / "out" / "cells.jsonl")
    assert {cell["lr"] for cell in cells if cell["method"] == "last"} == {best}
    other = 1e-3 + 1e-2 - best
    assert not (results / "out" / "bridges" / f"last-{other:g}-0").exists()


def test_curves_are_read_at_the_steps_and_change_nothing(results, again, palam):
    points = read_jsonl(results / "out" / "curve.jsonl")
    points = [point for point in points if (point["method"], point["seed"]) == ("mean", 0)]
    assert [point["at"] for point in points] == [0, 3]
    assert points[0]["results"].keys() == {"sin_Sinh", "eng_Latn"}
    plain = again / "plain"
    settings = changes("curve=[]", "methods=mean", "seeds=[0]")
    assert palam("bench", again / "recipe.yaml", "--out", plain, *settings).code == 0
    (cell,) = read_jsonl(plain / "cells.jsonl")
    cells = read_jsonl(results / "out" / "cells.jsonl")
    first = next(cell for cell in cells if cell["method"] == "mean")
    assert cell["validation_loss"] == first["validation_loss"]


def test_a_finished_run_is_not_repeated(again, palam, trained_bridges):
    out = again / "out"
    before = (out / "cells.jsonl").read_bytes()
    assert palam("bench", again / "recipe.yaml", "--out", out).code == 0
    assert trained_bridges == []
    assert (out / "cells.jsonl").read_bytes() == before


def test_a_run_that_was_killed_is_resumed(again, palam, trained_bridges):
    out = again / "out"
    bench = ("bench", again / "recipe.yaml", "--out", out)
    before = (out / "cells.jsonl").read_bytes()
    # Killed while the last cell's line was written.
    (out / "cells.jsonl").write_bytes(before[:-20])
    assert palam(*bench).code == 0
    cells = method_trainer.ResultsFolder(out).cells()
    assert (len(cells), cells[-1].method) == (10, "head")
    # Killed before the bridges that were kept for the curve were removed.
    curve = (out / "curve.jsonl").read_bytes()
    (out / "cells.jsonl").write_bytes(before.partition(b"\n")[2])
    bridge = out / "bridges" / f"{cells[0].method}-{cells[0].lr:g}-{cells[0].seed}"
    shutil.copytree(bridge, method_trainer.bridge_at_step(bridge, 3))
    assert palam(*bench).code == 0
    assert (out / "curve.jsonl").read_bytes() == curve
    assert not list((out / "bridges").glob("*.at-*"))
    assert trained_bridges == []


@pytest.mark.parametrize(
    "setting",
    [{"llm_revision": "abc"}, {"encoder_revision": "abc"}, {"gradient_checkpointing": True}],
)
def test_a_method_with_another_revision_or_model_has_bases_of_its_own(again, monkeypatch, setting):
    """What it changes in its LLM changes no other method, and no other revision is taken for it."""
    given = {}

    def recording_train(config, out, *, bases, **options):
        given[out.name.split("-")[0]] = bases
        raise NonFiniteLoss("stopped here")

    monkeypatch.setattr(method_trainer, "train", recording_train)
    recipe = load_recipe(str(again / "recipe.yaml"))
    methods = {
        "shared": TrainedMethod({"fusion": "last"}),
        "own": TrainedMethod({"fusion": "last", **setting}),
    }
    results = ResultsFolder(again / "none")
    results.path.mkdir()
    recipe = replace(recipe, methods=methods, against="shared")
    trainer = MethodTrainer(recipe, results, Console(quiet=True))
    for method in methods:
        trainer.train(method, 0.01, seed=0)
    assert given["shared"] is trainer.bases
    assert given["own"] is None


def test_another_seed_is_added_to_what_is_there(again, palam, trained_bridges):
    out = again / "out"
    first = read_jsonl(out / "cells.jsonl")[0]
    settings = changes("seeds=[2]", "methods=last,most")
    assert palam("bench", again / "recipe.yaml", "--out", out, *settings).code == 0
    # The rows and the rate stay those of the first seed of all.
    assert trained_bridges == [f"last-{first['lr']:g}-2"]
    assert yaml.safe_load((out / "recipe.yaml").read_text())["seeds"] == [0, 1, 2]
    # Methods that were there stay, and so does the one to test against.
    shown = palam("report", out).out
    assert "| most |" in shown
    assert "## Against last," in shown


def test_a_rate_at_which_training_fails_is_not_chosen(again, palam, monkeypatch):
    train = method_trainer.train

    def failing_train(config, out, **options):
        if config.optim.lr == 1e-3:
            raise NonFiniteLoss("the loss is not finite")
        return train(config, out, **options)

    monkeypatch.setattr(method_trainer, "train", failing_train)
    bench = ("bench", again / "recipe.yaml", *changes("methods=last", "seeds=[0]", "curve=[]"))
    assert palam(*bench, "--out", again / "new").code == 0
    cells = read_jsonl(again / "new" / "cells.jsonl")
    assert [cell["lr"] for cell in cells] == [1e-2]
    assert len(read_jsonl(again / "new" / "rates.jsonl")) == 2
    alone = ("--out", again / "alone", *changes("lr=1e-3"))
    assert palam(*bench, *alone).code == 2


def test_other_settings_or_data_are_refused(again, palam):
    bench = ("bench", again / "recipe.yaml", "--out", again / "out")
    assert "other settings (train.epochs)" in palam(*bench, "--set", "epochs=2").err
    assert "other settings (read.limit)" in palam(*bench, "--set", "read.limit=7").err
    run_file = again / "out" / "run.json"
    info = json.loads(run_file.read_text())
    info["data"]["dev"] = "0"
    run_file.write_text(json.dumps(info))
    assert "results on other data" in palam(*bench).err


def test_a_second_run_to_the_same_folder_is_refused(again, palam):
    out = again / "out"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with output_lock(out):
        result = palam("bench", again / "recipe.yaml", "--out", out, "--set", "seeds=[5]")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "out is being written by another run (process " in result.err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert palam("bench", again / "recipe.yaml", "--out", out).code == 0
    assert not list(again.glob(".*"))


# --------------------------------------------------------------------------- files of one's own
@pytest.fixture
def own_files(base_folder, tmp_path):
    """A recipe that trains on a file and reads two others: its content."""

    def write(name, texts, labels=("good", "bad")):
        lines = ["review,verdict"]
        lines += [f"{text} {i},{labels[i % 2]}" for i, text in enumerate(texts * 10)]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        return str(tmp_path / name)

    train = {
        "file": write("en.csv", ["It works", "It broke"]),
        "text_column": "review",
        "label_column": "verdict",
        "encoder": str(base_folder("bert")),
        "llm": str(base_folder("llama")),
        "batch_size": 4,
        "max_steps": 2,
    }
    files = {"si": write("si.csv", ["එය හොඳයි"]), "ta": write("ta.csv", ["நல்லது", "கெட்டது"])}
    methods = {
        "mean": {"fusion": "mean"},
        "last": {"fusion": "last"},
        "head": {"baseline": "head", "layers": "last"},
    }
    read = {"files": files, "limit": 8}
    return {"train": train, "read": read, "seeds": [0], "methods": methods}


def test_files_are_compared_like_tasks(own_files, saved, palam, tmp_path):
    out = tmp_path / "out"
    assert palam("bench", saved(own_files), "--dry-run").code == 0
    assert palam("bench", saved(own_files), "--out", out).code == 0
    cells = read_jsonl(out / "cells.jsonl")
    assert [cell["method"] for cell in cells] == list(own_files["methods"])
    assert all(set(cell["results"]) == {"si", "ta"} for cell in cells)
    predictions = read_jsonl(out / "predictions" / "mean.0.jsonl")
    assert [row["language"] for row in predictions] == ["si"] * 8 + ["ta"] * 8
    assert {row["label"] for row in predictions} == {"good", "bad"}
    shown = palam("report", out).out
    assert "# si.csv, ta.csv\n\nTrained on the English rows of en.csv, read in 2 lang" in shown
    assert "| Sinhala | 8 |" in shown
    assert "jointly" not in shown
    # Whether their rows correspond can be said later.
    parallel = own_files["read"] | {"parallel": True}
    assert palam("bench", saved(own_files, read=parallel), "--out", out).code == 0
    assert read_jsonl(out / "cells.jsonl") == cells
    assert "jointly" in palam("report", out).out
    # The same rows in another place.
    (tmp_path / "moved").mkdir()
    files = own_files["read"]["files"]
    moved = {code: shutil.move(path, tmp_path / "moved") for code, path in files.items()}
    read = {"files": moved, "limit": 8}
    assert palam("bench", saved(own_files, read=read), "--out", out).code == 0
    assert read_jsonl(out / "cells.jsonl") == cells


def test_a_mistake_before_the_first_cell_leaves_nothing(own_files, saved, palam, tmp_path):
    train = own_files["train"] | {"encoder": str(tmp_path)}
    result = palam("bench", saved(own_files, train=train), "--out", tmp_path / "out")
    assert (result.code, result.err.count("palam: error: encoder")) == (2, 1)
    assert not (tmp_path / "out").exists()


def test_a_file_with_other_labels_is_refused(own_files, saved, refused, tmp_path):
    path = tmp_path / "si.csv"
    lines = path.read_text(encoding="utf-8").replace(",bad", ",fine")
    path.write_text(lines, encoding="utf-8")
    line = refused("bench", saved(own_files), "--out", tmp_path / "x")
    assert "si.csv, line 3: label 'fine' is none of good, bad" in line


def test_files_that_are_not_right_are_refused(own_files, saved, refused):
    read = own_files["read"]
    cases = {
        "train.file and read.files go together": {"task": "sib200"},
        "a file for each language": {"files": ["si.csv"]},
        "read.parallel is true or false": read | {"parallel": "si"},
    }
    for message, wrong in cases.items():
        assert message in refused("bench", saved(own_files, read=wrong))
    of_task = ("bench", "starter/sib200", "--set", "read.parallel=true")
    assert "tasks know it of theirs" in refused(*of_task)


# --------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=2", "there is no setting 'epoch'"),
        ("methods=fast", "no method 'fast'"),
        ("read.languages=[xx]", "no language"),
    ],
)
def test_a_change_that_is_wrong(refused, results, tmp_path, setting, message):
    bench = ("bench", results / "recipe.yaml", "--out", tmp_path / "x")
    assert message in refused(*bench, "--set", setting)


def test_a_recipe_that_is_not_there(refused, tmp_path):
    line = refused("bench", "nothing", "--out", tmp_path / "x")
    assert "give a YAML file, or one of: paper/amazon_reviews" in line


def test_a_task_of_another_family(refused, results, tmp_path_factory, tmp_path):
    folder = tmp_path_factory.mktemp("nli")
    for name in ("lingnli", "sib200"):
        (folder / name).mkdir()
    pair = {"premise": "a", "hypothesis": "b", "label": "neutral"}
    (folder / "lingnli" / "dev.en.jsonl").write_text(json.dumps(pair) + "\n")
    row = {"text": "a", "label": "travel"}
    for split in ("train", "dev"):
        path = folder / "sib200" / f"{split}.eng_Latn.jsonl"
        path.write_text(2 * (json.dumps(row) + "\n"))
    settings = ("read.task=lingnli", "read.split=dev", "read.languages=[en]", f"data={folder}")
    bench = ("bench", results / "recipe.yaml", "--out", tmp_path / "x")
    assert "of the family nli" in refused(*bench, *changes(*settings))


# --------------------------------------------------------------------------- dry runs
@pytest.mark.parametrize("name", recipe_names())
def test_the_packages_recipes_can_be_planned_with_other_models(name, palam, base_folder, tmp_path):
    recipe = load_recipe(name)
    assert recipe.against in recipe.methods
    encoder, llm = base_folder("mt5"), base_folder("llama")
    settings = [f"encoder={encoder}", f"llm={llm}", "dtype=fp32"]
    if "text_file" in recipe.train:
        text = tmp_path / "english.txt"
        text.write_text("".join(f"The house is {years} years old.\n" for years in range(300)))
        settings.append(f"text_file={text}")
    result = palam("bench", name, "--dry-run", "--tflops", 1, *changes(*settings))
    assert result.code == 0, result.err
    shown = [line.split("  ")[0] for line in result.out.splitlines()[1:]]
    methods = recipe.methods.items()
    assert shown == [name for name, method in methods if not isinstance(method, ChoiceMethod)]


def test_a_dry_run_without_the_hub_fails_once_and_shows_nothing(palam):
    result = palam("bench", "paper/xnli", "--dry-run", "--tflops", 100)
    assert result.code == 2
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert "cannot be loaded: no such folder, and not in the cache: unset HF_HUB_OFFLINE" in line


def test_a_model_that_one_method_cannot_have_is_noted_beside_it(
    palam, refused, tmp_path, base_folder
):
    nothing = str(tmp_path / "nothing")
    bases = {"encoder": str(base_folder("xlmr")), "llm": str(base_folder("llama")), "dtype": "fp32"}
    methods = {"last": {"fusion": "last"}, "other": {"fusion": "mean", "llm": nothing}}
    recipe = {"train": {"task": "demo", **bases}, "methods": methods, "read": {"limit": 2}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    result = palam("bench", tmp_path / "recipe.yaml", "--dry-run", "--tflops", 1)
    assert result.code == 0, result.err
    last, other = result.out.splitlines()[1:]
    assert len(last.split()) == 5  # with all its figures
    assert f"LLM {nothing!r} cannot be loaded: no such folder" in " ".join(other.split())
    of_all = ("bench", tmp_path / "recipe.yaml", "--dry-run", "--tflops", 1, "--set")
    assert "no such folder" in refused(*of_all, f"encoder={nothing}")


def test_a_dry_run_counts_the_rows_that_are_at_hand(results, palam, data, refused):
    recipe = results / "recipe.yaml"

    def tokens(*settings):
        options = ("--dry-run", "--tflops", 1, *changes("methods=mean", *settings))
        _, line = palam("bench", recipe, *options).out.splitlines()
        return int(line.split()[2].replace(",", ""))

    num_rows = len((data / "sib200" / "train.eng_Latn.jsonl").read_text().splitlines())
    all_tokens = tokens("max_train_samples=null")
    assert all_tokens == tokens(f"max_train_samples={num_rows}")
    assert all_tokens > tokens("max_train_samples=4") > 0
    demo = ("task=demo", "data=null", "read.split=test")  # a tenth of its 350 rows is held out
    all_tokens = tokens(*demo, "max_train_samples=null")
    assert all_tokens == tokens(*demo, "max_train_samples=315")
    assert all_tokens > tokens(*demo)
    nothing = data / "nothing"
    assert "nothing" in refused("bench", recipe, "--dry-run", "--set", f"data={nothing}")


def test_a_dry_run_counts_reading(base_folder):
    changed = [f"encoder={base_folder('bert')}", f"llm={base_folder('llama')}", "dtype=fp32"]
    changed += ["task=demo", "read.task=demo", "read.split=test", "max_train_samples=20"]
    changed += ["methods=last"]

    def hours(*settings):
        recipe = load_recipe("starter/sib200", [*changed, *settings])
        (last,) = estimate(recipe, 1e4)
        return last.hours

    training = hours("read.languages=[en]", "read.limit=1")
    few = hours("read.languages=[en]", "read.limit=21")
    more = hours("read.languages=[en, si]", "read.limit=21")
    assert training < few < more
    # Twenty texts more, then twenty-one more again, for each seed.
    assert (more - few) / (few - training) == pytest.approx(21 / 20, rel=0.01)


def test_a_dry_run_counts_all_answers_of_bridges(base_folder, tmp_path):
    (tmp_path / "english.txt").write_text("The house is old.\nI am home.\n" * 20, "utf-8")
    changed = [f"encoder={base_folder('bert')}", f"llm={base_folder('llama')}", "dtype=fp32"]
    changed += [f"text_file={tmp_path / 'english.txt'}", "train.max_steps=1", "read.limit=40"]

    def hours(method, *settings):
        recipe = load_recipe("starter/reading", [*changed, f"methods={method}", *settings])
        (row,) = estimate(recipe, 1e4)
        return row.hours

    plain = hours("mean")
    guided = hours("mean", "read.guidance_scale=1.5")
    best = hours("mean", "read.guidance_scale=1.5", "read.best_of=8")
    assert plain < guided < best
    # Two rows at each token in place of one, and sixteen.
    assert (best - plain) / (guided - plain) == pytest.approx(15, rel=0.01)
    assert hours("llm-alone", "read.best_of=8") == hours("llm-alone")


def test_a_dry_run_counts_what_the_baselines_read(base_folder):
    changed = [f"encoder={base_folder('bert')}", f"llm={base_folder('llama')}", "dtype=fp32"]
    changed += ["task=demo", "read.task=demo", "read.split=test", "max_train_samples=20"]
    changed += ["methods=majority,head-last,llm-alone"]

    def estimates(limit, *languages):
        settings = [f"read.limit={limit}", f"read.languages=[{', '.join(languages)}]"]
        recipe = load_recipe("starter/sib200", [*changed, *settings])
        translated = BaselineMethod("translate", {"translator": str(base_folder("nllb"))})
        recipe = replace(recipe, methods={**recipe.methods, "translated": translated})
        return {row.method: row for row in estimate(recipe, 1e4)}

    few, more = estimates(7, "en"), estimates(14, "en")
    foreign = estimates(7, "en", "si")
    assert few["majority"].hours is None
    for name in ("head-last", "llm-alone", "translated"):
        assert 0 < few[name].hours < more[name].hours
        assert few[name].tokens < more[name].tokens
    # As many more rows; those in another language are translated first.
    assert foreign["llm-alone"] == more["llm-alone"]
    assert foreign["translated"].hours > more["translated"].hours


# --------------------------------------------------------------------------- recipe files
def test_a_recipe_extends_another_with_what_it_gives_itself(tmp_path):
    first = tmp_path / "folder" / "first.yaml"
    second = tmp_path / "folder" / "second.yaml"
    first.parent.mkdir()
    first.write_text(
        "title: First\nextends: starter/sib200\nseeds: [7]\n"
        "methods: {mean: {lr: 2.0e-3}, new: {fusion: last}}\n"
    )
    # Beside it, wherever the command is run.
    second.write_text("extends: first.yaml\ntrain: {task: xnli}\n")
    base = load_recipe("starter/sib200")
    recipe = load_recipe(str(second), ["methods=mean,new,majority"])
    assert (recipe.title, recipe.seeds) == ("First", (7,))
    assert (recipe.train, recipe.read.split) == ({"task": "xnli"}, "dev")
    assert list(recipe.methods) == ["mean", "new", "majority"]
    assert recipe.learning_rates("mean") == (2e-3,)
    assert recipe.methods["mean"].settings == {}
    assert recipe.methods["new"].settings == {"fusion": "last"}
    assert recipe.methods["majority"] == base.methods["majority"]
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
    assert result.code == 2
    assert message in result.err
