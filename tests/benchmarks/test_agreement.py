"""Choosing a fusion by agreement: `benchmarks/agreement.py`."""

from pathlib import Path

import pytest
from helpers import benchmark_script

from palam.bench.predictions import LanguagePredictions
from palam.bench.results import ResultsFolder

ROOT = Path(__file__).parents[2]
SIB200 = ROOT / "benchmarks" / "results" / "sib200"


@pytest.fixture(scope="module")
def script():
    return benchmark_script("agreement")


def run(*predictions):
    rows = list(range(len(predictions)))
    return {"si": LanguagePredictions(rows, ["a"] * len(rows), list(predictions))}


def test_agreement_is_over_pairs_of_seeds(script):
    runs = [run("a", "b", "c", "c"), run("a", "b", "c", "a"), run("a", "a", "a", "a")]
    assert script.agreement(runs, ["si"]) == pytest.approx((3 + 1 + 2) / 12)


def test_the_candidates_of_a_benchmark_are_its_fusions(script):
    found = {candidate.method: candidate for candidate in script.candidates(ResultsFolder(SIB200))}
    assert set(found) == {
        "last",
        "last-random",
        "mean",
        "global_softmax",
        "transformer_softmax",
        "transformer_softmax-random",
    }
    assert found["last"].accuracy == pytest.approx(0.755, abs=5e-4)  # as in docs/results.md
    chosen = script.choices(list(found.values()))
    assert chosen["English loss"].method == "mean"
    assert chosen["agreement"].method == chosen["the best"].method == "last"
