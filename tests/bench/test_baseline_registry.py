"""Which baselines there are: each can be made, says what it is, and refuses what it cannot be."""

import pytest
from helpers import refusal

from palam.bench.baseline_registry import BASELINES, ENTRIES
from palam.bench.glossary import describe_method
from palam.bench.methods import BaselineMethod


@pytest.mark.parametrize("name", ENTRIES)
def test_each_is_made_with_its_settings(name):
    method = BaselineMethod(name)
    baseline = method.built()
    assert type(baseline) is BASELINES[name]
    assert baseline.settings == ENTRIES[name].defaults
    words = describe_method(method, {})
    assert "{" not in words
    assert all(value not in ("", None) for value in baseline.settings.values())


def test_values_are_told_in_words():
    assert "the mean of the encoder's layers" in describe_method(
        BaselineMethod("head", {"layers": "mean"}), {}
    )
    words = describe_method(BaselineMethod("finetune", {"lr": [1e-3, 2e-4], "epochs": 2}), {})
    assert "for 2 epochs" in words
    assert words.endswith("0.001, 0.0002")


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("heads", {}, "it must be one of: majority, llm_only, translate, head, finetune"),
        ("head", {"layers": "first"}, "layers is 'first'; it must be one of: last, mean"),
        ("head", {"layer": "last"}, "there is no setting layer"),
        ("translate", {"translator": 7}, "translator is 7; it must be a text"),
    ],
)
def test_what_there_is_not_is_refused(name, settings, reason):
    assert refusal(BaselineMethod, name, settings).endswith(reason)
