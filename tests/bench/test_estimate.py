"""What a recipe will need: each method as if it were alone, however many there are."""

from dataclasses import asdict

import pytest

from palam.bench import estimate as module
from palam.bench.estimate import estimate
from palam.bench.recipe import Recipe

METHODS = {
    "mean": {"fusion": "mean"},
    "mean-random": {"fusion": "mean", "init": "random", "lr": [1e-3, 2e-3]},
    "mean-averaged": {"fusion": "mean", "average_weights_from": 0.5},
    "mean-batches": {"fusion": "mean", "batch_size": 2},
    "last": {"fusion": "last", "fusion_lr": 0.1},
}


@pytest.fixture
def estimated(base_folder):
    """`estimated("mean", ...)`: what these methods need, by name."""
    bases = {"encoder": str(base_folder("bert")), "llm": str(base_folder("llama"))}

    def call(*names):
        content = {
            "train": {"task": "demo", "device": "cpu", "dtype": "fp32", **bases},
            "read": {"languages": ["en", "si"]},
            "methods": {name: METHODS[name] for name in names},
        }
        return {row.method: asdict(row) for row in estimate(Recipe.parse(content), rate=1e9)}

    return call


def test_each_method_needs_what_it_needs_alone(estimated):
    together = estimated(*METHODS)
    for name in METHODS:
        assert estimated(name) == {name: together[name]}


def test_what_needs_the_same_is_planned_once(estimated, monkeypatch):
    planned = []
    plan = module.plan

    def counted_plan(model, *arguments, **options):
        planned.append(model.fusion)
        return plan(model, *arguments, **options)

    monkeypatch.setattr(module, "plan", counted_plan)
    estimated(*METHODS)
    assert planned == ["mean", "mean", "last"]
