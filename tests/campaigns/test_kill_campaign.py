"""Commands killed before a file operation: the next run uses the place, and leaves nothing else.

A short form runs with all tests. The long one: `PALAM_KILLS=60 pytest tests/campaigns`.
"""

import json
import os
import random
import signal
import sys
from pathlib import Path

import pytest
from specimens import CPU, TASK, as_options, settings
from worker import run_apart

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills at audited operations")
SHORT = 5
COUNT = int(os.environ.get("PALAM_KILLS", SHORT))
SEED = int(os.environ.get("PALAM_CAMPAIGN_SEED", "0"))
OPERATIONS = {"train": 80, "align": 32, "classify": 10, "evaluate": 4, "bench": 60}
"""So many file operations, at least, a command has; `train` a few less, the last ones of which are
the removal of its working folder."""
WRITING = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.chmod"}


class Operations:
    """Counts a process's file operations below a folder, and kills it before one of them."""

    def __init__(self, folder, fatal):
        self.folder = str(folder)
        self.fatal = fatal
        self.count = 0

    def __call__(self, event, details):
        if event not in WRITING and not (event == "open" and details[2] & (os.O_CREAT | os.O_RDWR)):
            return
        place = str(details[0])
        if not (place.startswith(self.folder) or isinstance(details[0], int)):
            return
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_before(folder, fatal):
    """In a process: it ends before the file operation of that number below a folder."""
    sys.addaudithook(Operations(folder, fatal))


def commands(specimens: Path, place: Path):
    """Commands that write to a place, each with what resumes it."""
    values = settings(specimens)
    model = {name: values[name] for name in ("encoder", "llm", "device", "dtype", "task", "data")}
    train = ["train", *as_options({**values, "eval_steps": 2}), "--out", place / "bridge"]
    align = ["align", *as_options(model), "--out", place / "bridge"]
    rows = ["classify", specimens / "bridge", "--file", specimens / "texts.jsonl", *CPU]
    rows += ["--out", place / "rows.jsonl"]
    languages = ["--languages", "si", "--json", place / "results.json"]
    data = ["--task", TASK, "--data", specimens / "data"]
    evaluate = ["evaluate", specimens / "bridge", *data, *languages, *CPU]
    changes = ["--set", "methods=mean,most", "--set", "curve=[1]"]
    bench = ["bench", specimens / "recipe.yaml", "--out", place / "bench", *changes]
    return {
        "train": (train, [*train, "--resume"]),
        "align": (align, align),
        "classify": (rows, [*rows, "--resume"]),
        "evaluate": (evaluate, evaluate),
        "bench": (bench, bench),
    }


def expected_names(command):
    """What is in the place when a command is done."""
    names = {"classify": "rows.jsonl", "evaluate": "results.json", "bench": "bench"}
    return [names.get(command, "bridge")]


@pytest.mark.parametrize("number", range(COUNT))
def test_the_next_run_uses_a_place_where_one_was_killed(number, specimens, tmp_path):
    name, (command, resume) = list(commands(specimens, tmp_path).items())[number % 5]
    rng = random.Random(f"{SEED}-{number}")
    fatal = rng.randint(1, OPERATIONS[name])
    killed = run_apart(command, kill_before, tmp_path, fatal)
    left = sorted(path.name for path in tmp_path.iterdir())
    print(f"{name} killed before operation {fatal}: {killed.exitcode}; there is {left}")
    assert killed.exitcode in (0, -signal.SIGKILL), killed
    again = run_apart(command)
    if again.code == 2 and "exists already" in again.err:  # it was done before it was killed
        again = run_apart([*command, "--overwrite"])
    elif again.code == 2 and "--resume" in again.err:
        again = run_apart(resume)
    assert again.code == 0, again
    assert sorted(path.name for path in tmp_path.iterdir()) == expected_names(name)
    leftovers = [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    partial = list(tmp_path.rglob("*.partial"))
    assert leftovers + partial == []
    if name == "bench":
        cells = (tmp_path / "bench/cells.jsonl").read_text().splitlines()
        assert [json.loads(cell)["method"] for cell in cells] == ["mean", "most"]
    if name in ("train", "align"):
        assert run_apart(["info", tmp_path / "bridge"]).code == 0
