"""What the campaigns share: the specimens, and a summary of all that was run."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from specimens import write_specimens


@pytest.fixture(scope="session")
def specimens(tmp_path_factory):
    """See [`write_specimens`]; not to be changed."""
    folder = tmp_path_factory.mktemp("specimens")
    write_specimens(folder)
    return folder


class Tally:
    """Counts what was run, and keeps the most expensive.

    With `PALAM_CAMPAIGN_LOG=FILE`, every run is a line of that file.
    """

    def __init__(self):
        self.codes = Counter()
        self.slowest = (0.0, "")
        self.largest = (0, "")
        self.log = os.environ.get("PALAM_CAMPAIGN_LOG")

    def add(self, mutant, outcome):
        self.codes[outcome.code] += 1
        self.slowest = max(self.slowest, (outcome.seconds, mutant.name))
        self.largest = max(self.largest, (outcome.memory, mutant.name))
        if self.log:
            row = {"name": mutant.name, "command": list(map(str, mutant.command))}
            with Path(self.log).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | outcome._asdict()) + "\n")

    def summary(self):
        seconds, slowest = self.slowest
        size, largest = self.largest
        return (
            f"{self.codes.total()} runs: {dict(self.codes)}; slowest {seconds:.1f} s ({slowest}); "
            f"most memory {size / 1e6:.0f} MB ({largest})"
        )


@pytest.fixture(scope="session")
def tally():
    tally = Tally()
    yield tally
    print(f"\n{tally.summary()}")
