"""The benchmark of the server: every arm is run, and nothing is lost."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from forked import palam_command
from helpers import task_of

from palam.tasks.registry import get_task

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CPU = ("--device", "cpu", "--dtype", "fp32")


@pytest.fixture
def benchmark(monkeypatch):
    """The script, whose servers start at once."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = import_module("serving")

    def start(command, **_):
        assert command[:3] == [sys.executable, "-m", "palam"]
        return palam_command(*command[3:])

    monkeypatch.setattr(module, "subprocess", SimpleNamespace(Popen=start, PIPE=subprocess.PIPE))
    return module


@pytest.fixture
def bridge(tiny_model, tmp_path):
    task = get_task("demo")
    model = tiny_model(mode="prompt", prompt=task.prompt)
    model.bridge.config.task = task_of(task.labels)
    model.save_pretrained(tmp_path / "bridge")
    return tmp_path / "bridge"


def test_it_measures_every_arm(benchmark, bridge, tmp_path):
    out = tmp_path / "figures.json"
    options = ("--seconds", 1, "--warm-up", 0.2, "--clients", "1,6", "--max-tokens", 8)
    benchmark.main(list(map(str, [bridge, *options, "--json", out, *CPU])))
    figures = json.loads(out.read_text())
    arms = {(arm["kind"], arm["server"], arm["clients"]): arm for arm in figures["arms"]}
    assert arms.keys() == {
        (kind, *server)
        for kind in ("classify", "generate")
        for server in (("together", 1), ("together", 6), ("one at a time", 6))
    }
    for (_, server, clients), arm in arms.items():
        assert arm["failures"] == 0
        assert arm["requests"] > 0
        assert 0 < arm["p50"] <= arm["p95"]
        assert 1 <= arm["batch_size"] <= (clients if server == "together" else 1)
    hang_ups = figures["hang_ups"]
    assert hang_ups["lost"] == 0
    assert hang_ups["other_answers"] == 0
    assert hang_ups["answered"] > 0
