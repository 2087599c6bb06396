"""Damaged files of every kind: one line and exit code 2, or a right answer; never more.

A short form runs with all tests. The long one: `PALAM_CAMPAIGN=400 pytest tests/campaigns`.
"""

import json
import math
import os
import sys
import unicodedata

import pytest
from mutants import make_mutant
from worker import MAX_SECONDS, run_apart

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures by /proc")
SHORT = range(0, 48, 2)
"""Of every second kind of damage, one."""
SEED = int(os.environ.get("PALAM_CAMPAIGN_SEED", "0"))
NUMBERS = range(int(os.environ["PALAM_CAMPAIGN"])) if "PALAM_CAMPAIGN" in os.environ else SHORT
MAX_MEMORY = 1.5e9
MAX_LINE = 2000
"""Characters of a message."""


def refuse_constant(name):
    raise ValueError(f"{name} is no JSON")


def strict_json(text):
    return json.loads(text, parse_constant=refuse_constant)


def numbers(value):
    """All numbers in nested lists and mappings."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, float) else []


def check_output(path):
    """It is JSON, or JSON lines, one for each text, without a number that is not finite."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        rows = [strict_json(line) for line in text.splitlines()]
    else:
        rows = [strict_json(text)]
    assert rows
    assert all(math.isfinite(number) for number in numbers(rows))


def check_obeys_no_terminal(text):
    """It holds nothing that a terminal would obey."""
    for character in text:
        category = unicodedata.category(character)
        assert character in "\n\t" or category not in ("Cc", "Cs"), repr(text)


def judge(outcome, mutant):
    """Whether a command did right by what it was given."""
    assert outcome.failure == "", outcome.failure
    assert outcome.exitcode == 0
    assert outcome.seconds < MAX_SECONDS
    assert outcome.memory < MAX_MEMORY
    assert "Traceback" not in outcome.out + outcome.err
    check_obeys_no_terminal(outcome.out + outcome.err)
    errors = [line for line in outcome.err.splitlines() if "palam: error: " in line]
    if outcome.code == 0:
        assert errors == []
        for path in mutant.outputs:
            check_output(path)
    else:
        assert outcome.code == 2
        assert len(errors) == 1, outcome.err
        assert outcome.err.splitlines()[-1] == errors[0], outcome.err
        assert len(errors[0]) < MAX_LINE, errors[0][:300]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_mutant_is_refused_in_one_line_or_read_right(number, specimens, tmp_path, tally):
    mutant = make_mutant(specimens, tmp_path, SEED, number)
    outcome = run_apart(mutant.command)
    tally.add(mutant, outcome)
    print(f"{mutant.name}: {mutant.command[0]}: {outcome.code} {outcome.err[-300:]}")
    judge(outcome, mutant)
    assert not list(tmp_path.rglob("trap")), "a pickle was read"
    hidden = [path.name for path in tmp_path.rglob(".*")]
    assert hidden == []
