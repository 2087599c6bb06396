"""Which files and bridges a recipe's settings name, told by their content."""

import pytest
from helpers import refusal

from palam.bench.named_inputs import changed_inputs, named_input_hashes
from palam.bench.recipe import Recipe


@pytest.fixture
def hashes(tmp_path):
    """The hashes of a recipe with lexicons of these contents: all methods' and some methods'."""

    def of(of_all=None, **of_methods):
        train = {"task": "sib200"}
        if of_all is not None:
            train["lexicon"] = write("all", of_all)
        methods = {name: {"lexicon": write(name, text)} for name, text in of_methods.items()}
        methods["mean"] = {"fusion": "mean"}
        return named_input_hashes(Recipe.parse({"train": train, "methods": methods}))

    def write(name, text):
        path = tmp_path / f"{name}.csv"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return of


def test_a_setting_of_all_and_one_of_a_method_called_train_are_told_apart(hashes):
    before = hashes("old,vieux", train="new,neuf", words="red,rouge")
    assert list(before) == ["train: lexicon", "methods/train: lexicon", "words: lexicon"]
    assert len(set(before.values())) == 3
    of_all = hashes("old,ancien", train="new,neuf", words="red,rouge")
    assert changed_inputs(before, of_all) == ["train: lexicon"]
    of_method = hashes("old,vieux", train="new,nouveau", words="red,rouge")
    assert changed_inputs(before, of_method) == ["methods/train: lexicon"]
    assert changed_inputs(before, before) == []


def test_a_method_called_train_is_compared_with_what_was_kept_under_that_name(hashes):
    """As results of before have it."""
    present = hashes(train="new,neuf")
    (digest,) = present.values()
    assert changed_inputs({"train: lexicon": digest}, present) == []
    assert changed_inputs({"train: lexicon": "another"}, present) == ["methods/train: lexicon"]
    # That of all methods is not that of a method which is added.
    added = hashes("old,vieux", train="new,neuf")
    assert changed_inputs({"train: lexicon": added["train: lexicon"]}, added) == []


@pytest.mark.parametrize(
    ("part", "owner"),
    [
        ({"methods": {"further": {"init_from": "nosuch"}}}, "further"),
        ({"methods": {"train": {"init_from": "nosuch"}}}, "methods/train"),
        ({"train": {"task": "sib200", "init_from": "nosuch"}}, "train"),
    ],
)
def test_a_bridge_that_is_not_there_is_named_with_its_setting(part, owner):
    content = {"train": {"task": "sib200"}, "methods": {"mean": {"fusion": "mean"}}, **part}
    message = refusal(named_input_hashes, Recipe.parse(content))
    assert message.startswith(f"{owner}: init_from: ")
    assert "nosuch" in message
    assert "\n" not in message
