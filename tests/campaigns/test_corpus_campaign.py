"""A Parquet folder read by workers, by shards and with Ray, killed at any moment and run again.

After that every row is there once, with the prediction that one process gives. A short form runs
with all tests. The long one: `PALAM_CORPUS_KILLS=30 PALAM_CORPUS_ROWS=20000 pytest
tests/campaigns/test_corpus_campaign.py -s`.
"""

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from forked import palam_command
from specimens import CPU

from palam.scale.shards import read_job
from palam.utils.asides import is_alive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
KINDS = ("parent", "worker", "shard", "actor", "driver")
"""What is killed: of `--workers` the process or a worker, of two shards one, of Ray either."""
SHORT = 3
COUNT = int(os.environ.get("PALAM_CORPUS_KILLS", SHORT))
ROWS = int(os.environ.get("PALAM_CORPUS_ROWS", "600"))
FILES = 5
SEED = int(os.environ.get("PALAM_CAMPAIGN_SEED", "0"))
BYSTANDERS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""What Ray ends a minute later; these touch no rows."""
OVERDUE = 600
"""Seconds after which a run counts as hanging."""


# ------------------------------------------------------------------ processes
def children(process):
    """The processes that a process has started, and those that they have."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


def title(process):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def wait_until(condition, run):
    """Wait until something is so, or the run has ended."""
    end = time.monotonic() + OVERDUE
    while not condition() and run.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


def kill(process):
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


# ------------------------------------------------------------------ the corpus
@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder of Parquet files; every tenth text is one that stands elsewhere too."""
    folder = tmp_path_factory.mktemp("corpus") / "texts"
    folder.mkdir()
    ids = list(range(ROWS))
    texts = [f"the fox {i if i % 10 else i % 100} jumps " + "over " * (i % 7) for i in ids]
    for number in range(FILES):
        part = {"id": ids[number::FILES], "text": texts[number::FILES]}
        pyarrow.parquet.write_table(pyarrow.table(part), folder / f"part-{number}.parquet")
    return folder


@pytest.fixture(scope="session")
def start(specimens, corpus):
    """Starts the command over the corpus, in a process of its own."""
    base = ["classify", specimens / "bridge", "--file", corpus, "--labels", "good,bad", *CPU]

    def run(out, *options):
        return palam_command(*base, "--out", out, *options)

    return run


@pytest.fixture(scope="session")
def expected(start, tmp_path_factory):
    """The prediction of each id, by one process."""
    out = tmp_path_factory.mktemp("expected") / "out"
    assert start(out).wait(OVERDUE) == 0
    return predictions(out)


def predictions(out):
    """The prediction of each id; every row is there once."""
    paths = sorted(out.glob("*.parquet"))
    tables = [pyarrow.parquet.read_table(path).select(["id", "prediction"]) for path in paths]
    rows = pyarrow.concat_tables(tables).to_pydict()
    assert sorted(rows["id"]) == list(range(ROWS))
    return dict(zip(rows["id"], rows["prediction"], strict=True))


def rows_done(out):
    """About how many rows of a run are done."""
    done = 0
    for journal in out.glob("*.partial"):
        with contextlib.suppress(OSError):
            done += journal.read_bytes().count(b"\n")
    return done + len(list(out.glob("*.parquet"))) * (ROWS // FILES)


def error_of(run):
    return run.communicate()[1]


# ------------------------------------------------------------------ the campaign
@pytest.mark.parametrize("number", range(COUNT))
def test_every_row_is_there_once_after_a_kill(number, start, expected, tmp_path):
    kind = KINDS[number % len(KINDS)]
    rng = random.Random(f"{SEED}-corpus-{number}")
    out = tmp_path / "out"
    options = [("--workers", 2)]
    if kind == "shard":
        options = [("--shard", "0/2"), ("--shard", "1/2")]
    if kind in ("actor", "driver"):
        pytest.importorskip("ray")
        options = [("--workers", 2, "--engine", "ray")]
    runs = [start(out, *each) for each in options]
    victim = rng.randrange(len(runs))
    when = rng.random()
    killed = kill_one(kind, runs[victim], out, when)
    codes = [run.wait(OVERDUE) for run in runs]
    print(f"{kind} {number}: killed {killed} at {when:.2f}; ended {codes}")
    for run, code in zip(runs, codes, strict=True):
        assert code in (0, 2, -signal.SIGKILL), error_of(run)
    assert kind != "worker" or codes == [0], error_of(runs[0])
    for each in options:
        again = start(out, *each)
        assert again.wait(OVERDUE) == 0, error_of(again)
    assert predictions(out) == expected
    assert read_job(out) is not None
    assert list(tmp_path.rglob("*.partial")) == []


def kill_one(kind, run, out, when):
    """Kill a process at about that share of the work; nothing that it has started stays."""
    if kind in ("actor", "driver"):
        actors = []

        def has_actors():
            actors[:] = [each for each in children(run.pid) if "MapWorker" in title(each)]
            return bool(actors)

        wait_until(has_actors, run)
        if kind == "driver" or when > 0.3:  # after some rows were written, or at once
            wait_until(lambda: len(list(out.glob("*.parquet"))) > 4 * when, run)
        time.sleep(when)
        victim = run.pid if kind == "driver" else (actors or [run.pid])[0]
    else:
        wait_until(lambda: rows_done(out) > when * ROWS * 0.9, run)
        started = [each for each in children(run.pid) if "spawn_main" in title(each)]
        victim = started[int(when * len(started))] if kind == "worker" and started else run.pid
    offspring = [each for each in children(victim) if not title(each).startswith(BYSTANDERS)]
    kill(victim)
    end = time.monotonic() + 60
    while any(map(is_alive, offspring)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [title(each) for each in offspring if is_alive(each)]
    return victim
