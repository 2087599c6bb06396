"""A recipe's mistakes are told in one line, before anything is run."""

import pytest
import yaml
from helpers import refusal

from palam.bench.methods import BaselineMethod, ChoiceMethod, TrainedMethod
from palam.bench.recipe import Recipe
from palam.bench.recipe_file import load_recipe, recipe_names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train=3", "train is 3; it must be"),
        ("read=[si]", "read is ['si']; it must be"),
        ("published={a: 3}", "a is 3; it must be"),
        ("published={a: 0}", "a is 0; it must be"),
        ("published=false", "published is False; it must be"),
        ("seeds=3", "seeds is 3; it must be a list of whole numbers"),
        ("seeds=[-1]", "seeds is [-1]; it must be a list of whole numbers"),
        ("seeds=[]", "needs methods and seeds"),
        ("curve=50", "curve is 50; it must be a list of whole numbers"),
        ("lr=fast", "lr is 'fast'; it must be a number"),
        ("lr=[]", "lr is []; it must be a number"),
        ("lr=-1", "lr is -1.0; it must be above 0"),
        ("read.limit=0", "read.limit is 0; it must be a whole number of at least 1"),
        ("read.batch_size=few", "read.batch_size is 'few'; it must be a whole number"),
        ("read.guidance_scale=1.5", "read.guidance_scale stands with a task whose texts are said"),
        ("read.best_of=8", "read.best_of stands with a task whose texts are said again, such as"),
        ("read.guidance_scale=much", "read.guidance_scale is 'much'; it must be a number"),
        ("read.guidance_scale=0.5", "the guidance scale is 0.5; it must be from 1"),
        ("read.best_of=2.5", "best_of is 2.5; it must be a whole number"),
        ("read.best_of=0", "best_of is 0; it must be from 1 to 64"),
        ("read.languages=5", "read.languages is 5; it must be a list of codes"),
        ("read.languages=[no]", "such as [si, ta, 'no']"),  # which YAML takes for false
        ("read.task=none", 'unknown task "none"'),
        ("read.file=x", "there is no setting file; there are task, files"),
        ("against=most", "against is 'most', which is no method"),
        ("nothing=1", "there is no setting 'nothing'"),
        ("lr", "--set takes setting=value, not 'lr'"),
        ("lr={", "is not YAML"),
        ("train.epoch=2", "there is no setting 'epoch'"),
        ("lr=*a", "is not YAML"),
        ("lr=" + "[" * 500, "is not YAML"),
        ("train.encoder=", "encoder is None; it must be text"),
        ("encoder=[a]", "encoder is ['a']; it must be text"),
        ("fusion_options={rank: 2}", "'rank' is no option of last"),
    ],
)
def test_a_wrong_setting_is_refused(change, message):
    assert message in refusal(load_recipe, "starter/sib200", [change])


def test_a_method_without_published_figures_has_none():
    recipe = load_recipe("starter/sib200", ["published={last: null}"])
    assert recipe.published.accuracies == {"last": {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "must hold settings"),
        ("", "needs methods and seeds"),
        ("methods: 3", "methods is 3; it must be"),
        ("methods: {a: 3}\ntrain: {task: demo}", "a is 3; it must be"),
        ("methods: {a: ''}\ntrain: {task: demo}", "a is ''; it must be"),
        ("methods: {a/b: {fusion: last}}\ntrain: {task: demo}", "no comma and no slash"),
        (
            "methods: {a: {baseline: 3}}\ntrain: {task: demo}",
            "baseline is 3; it must be one of: majority",
        ),
        (
            "methods: {a: {baseline: head, layers: 3}}\ntrain: {task: demo}",
            "layers is 3; it must be one of: last",
        ),
        (
            "methods: {a: {baseline: majority, layers: last}}\ntrain: {task: demo}",
            "method a: there is no setting layers",
        ),
        (
            "methods: {a: {fusion: none}}\ntrain: {task: demo}",
            "fusion is 'none'; it must be one of: last",
        ),
        (
            "methods: {a: {direct: true}}\ntrain: {task: demo}",
            "method a: there is no setting direct",
        ),
        ("methods: {a: {}}\ntrain: {3: 4}", "train: there is no setting 3"),
        ("methods: {a: {}}", "train needs a task, a file of labelled rows, or"),
        (
            "methods: {a: {baseline: head}}\ntrain: {text_file: plain.txt}",
            "method a: head needs labels",
        ),
    ],
)
def test_a_wrong_recipe_is_refused(text, message, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text)
    assert message in refusal(load_recipe, str(tmp_path / "recipe.yaml"))


def test_what_is_left_empty_is_the_default(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "train: {task: demo}\nseeds:\nread:\n  limit:\n  batch_size:\nmethods: {a: }"
    )
    recipe = load_recipe(str(tmp_path / "recipe.yaml"))
    assert (recipe.seeds, recipe.against) == ((0, 1, 2), "a")
    assert recipe.methods == {"a": TrainedMethod()}
    assert (recipe.read.limit, recipe.read.batch_size, recipe.read.split) == (None, 32, "test")
    assert "sin_Sinh" in recipe.read.languages


def test_languages_and_seeds_can_be_given_in_short():
    recipe = load_recipe("starter/sib200", ["read.languages=si,ta", "seeds=[2,0,2]"])
    assert (recipe.read.languages, recipe.seeds) == (("si", "ta"), (2, 0))


def test_a_method_is_trained_a_baseline_or_a_choice():
    methods = load_recipe("starter/sib200").methods
    assert methods["last"] == TrainedMethod({"fusion": "last"}, (5e-4, 1e-3, 2e-3))
    assert methods["head-mean"] == BaselineMethod("head", {"layers": "mean"})
    assert methods["chosen"] == ChoiceMethod(("last-random", "transformer_softmax-random"))


def test_a_fusions_own_option_is_a_setting_of_a_method(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "extends: starter/sib200\n"
        "methods: {narrow: {fusion: transformer_softmax, fusion_options: {rank: 32}}}\n"
    )
    recipe = load_recipe(str(tmp_path / "recipe.yaml"), ["methods=narrow,last"])
    assert recipe.config("narrow").model.fusion_options == {"rank": 32}
    assert recipe.config("last").model.fusion_options == {}


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_what_its_own_yaml_says(name):
    recipe = load_recipe(name)
    assert Recipe.parse(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe


def test_a_setting_of_training_may_be_named_as_the_recipe_has_it():
    long = load_recipe("starter/sib200", ["train.encoder=some/encoder", "train.epochs=2"])
    short = load_recipe("starter/sib200", ["encoder=some/encoder", "epochs=2"])
    assert long == short
    assert long.train["encoder"] == "some/encoder"
