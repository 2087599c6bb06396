"""Which fusion to take: by the English loss, or by how far its seeds agree on unlabelled text?

Both criteria are looked up in results of `palam bench`; nothing is run, and no label of another
language is used to choose. Agreement is the share of texts to which two bridges of one method, of
different seeds, give the same label: the mean over pairs of seeds and languages::

    python benchmarks/agreement.py benchmarks/results/sib200 benchmarks/results/xnli
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from palam.bench.predictions import RunPredictions
from palam.bench.results import ResultsFolder

ENGLISH = ("en", "eng_Latn")
LEAST_SEEDS = 2
LEFT_OUT = {"average_weights_from", "lora_rank", "llm_only"}
"""Settings of methods that are no other fusion."""


class Candidate(NamedTuple):
    """A method, with what it could be chosen by and what it reaches."""

    method: str
    english_loss: float
    """On the English validation rows, the mean over seeds, in nats."""
    agreement: float
    """From 0 to 1."""
    accuracy: float
    """In the mean of the other languages and the seeds."""


def agreement(runs: Sequence[RunPredictions], languages: Sequence[str]) -> float:
    """How often two of the runs predict the same.

    Args:
        runs: of one method, two or more.
        languages: of which each has predictions for the same rows.
    """
    shares = []
    for first, second in combinations(runs, 2):
        for language in languages:
            pairs = zip(first[language].predictions, second[language].predictions, strict=True)
            shares.append(statistics.fmean(one == other for one, other in pairs))
    return statistics.fmean(shares)


def candidates(results: ResultsFolder) -> list[Candidate]:
    """The trained methods of a benchmark that have several seeds.

    Args:
        results: of `palam bench`.
    """
    settings = results.recipe().to_dict()["methods"]
    losses = {(run.method, run.seed, run.lr): run.validation_loss for run in results.trained_runs()}
    runs: dict[str, list[RunPredictions]] = {}
    own_losses: dict[str, list[float]] = {}
    for cell in results.cells():
        loss = losses.get((cell.method, cell.seed, cell.lr))
        if loss is not None and not LEFT_OUT & set(settings[cell.method]):
            runs.setdefault(cell.method, []).append(results.predictions(cell.run))
            own_losses.setdefault(cell.method, []).append(loss)
    found = []
    for method, predictions in runs.items():
        if len(predictions) < LEAST_SEEDS:
            continue
        languages = [code for code in predictions[0] if code not in ENGLISH]
        accuracies = [
            run[code].correct / len(run[code].rows) for run in predictions for code in languages
        ]
        candidate = Candidate(
            method,
            statistics.fmean(own_losses[method]),
            agreement(predictions, languages),
            statistics.fmean(accuracies),
        )
        found.append(candidate)
    return sorted(found, key=lambda candidate: -candidate.accuracy)


def choices(found: Sequence[Candidate]) -> Mapping[str, Candidate]:
    """What each criterion chooses, and the best there is."""
    return {
        "English loss": min(found, key=lambda candidate: candidate.english_loss),
        "agreement": max(found, key=lambda candidate: candidate.agreement),
        "the best": max(found, key=lambda candidate: candidate.accuracy),
    }


def main() -> None:
    """Print the candidates and the choices of each benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, nargs="+", help="folders of palam bench")
    reached: dict[str, list[float]] = {}
    for folder in parser.parse_args().results:
        found = candidates(ResultsFolder(folder))
        print(folder.name)
        for method, loss, agreeing, accuracy in found:
            print(f"  {method:28} loss {loss:.3f}  agreement {agreeing:.1%}  {accuracy:.1%}")
        for criterion, chosen in choices(found).items():
            reached.setdefault(criterion, []).append(chosen.accuracy)
            print(f"  {criterion}: {chosen.method}, {chosen.accuracy:.1%}")
    for criterion, accuracies in reached.items():
        print(f"mean of {len(accuracies)} by {criterion}: {statistics.fmean(accuracies):.1%}")


if __name__ == "__main__":
    main()
