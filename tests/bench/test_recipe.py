"""A recipe's mistakes are told in one line, before anything is run."""

import pytest
from helpers import refusal

from palam.bench.recipe import load_recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train=3", "train is 3; it must be"),
        ("read=[si]", "read is ['si']; it must be"),
        ("published={a: 3}", "a is 3; it must be"),
        ("seeds=3", "seeds is 3; it must be a list of whole numbers"),
        ("seeds=[-1]", "seeds is [-1]; it must be a list of whole numbers"),
        ("seeds=[]", "needs methods and seeds"),
        ("curve=50", "curve is 50; it must be a list of whole numbers"),
        ("lr=fast", "lr is 'fast'; it must be a number"),
        ("lr=[]", "lr is []; it must be a number"),
        ("lr=-1", "lr is -1.0; it must be above 0"),
        ("read.limit=0", "read.limit is 0; it must be a whole number of at least 1"),
        ("read.batch_size=few", "read.batch_size is 'few'; it must be a whole number"),
        ("read.languages=5", "read.languages is 5; it must be a list of codes"),
        ("read.languages=[no]", "such as [si, ta, 'no']"),  # which YAML takes for false
        ("read.task=none", 'unknown task "none"'),
        ("read.file=x", "there is no setting file; there are task, files"),
        ("against=most", "against is 'most', which is no method"),
        ("nothing=1", "there is no setting 'nothing'"),
        ("lr", "--set takes setting=value, not 'lr'"),
        ("lr={", "is not YAML"),
    ],
)
def test_a_wrong_setting_is_refused(change, message):
    assert message in refusal(load_recipe, "starter/sib200", [change])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "must hold settings"),
        ("", "needs methods and seeds"),
        ("methods: 3", "methods is 3; it must be"),
        ("methods: {a: 3}\ntrain: {task: demo}", "a is 3; it must be"),
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
            "methods: {a: {fusion: none}}\ntrain: {task: demo}",
            "fusion is 'none'; it must be one of: last",
        ),
        ("methods: {a: {}}\ntrain: {3: 4}", "train: there is no setting 3"),
        ("methods: {a: {}}", "train needs a task, or a file"),
        ("methods: {a: {}}\ntrain: {text: plain.txt}", "train needs a task, or a file"),
    ],
)
def test_a_wrong_recipe_is_refused(text, message, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text)
    assert message in refusal(load_recipe, str(tmp_path / "recipe.yaml"))


def test_what_is_left_empty_is_the_default(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "train: {task: demo}\nseeds:\nread:\n  limit:\n  batch_size:\nmethods: {a: }"
    )
    made = load_recipe(str(tmp_path / "recipe.yaml"))
    assert (made.seeds, made.methods, made.against) == ([0, 1, 2], {"a": {}}, "a")
    assert (made.read["limit"], made.read["batch_size"], made.read["split"]) == (None, 32, "test")
    assert "sin_Sinh" in made.read["languages"]


def test_languages_and_seeds_can_be_given_in_short():
    made = load_recipe("starter/sib200", ["read.languages=si,ta", "seeds=[2,0,2]"])
    assert (made.read["languages"], made.seeds) == (["si", "ta"], [2, 0])
