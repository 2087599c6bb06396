"""Training in two processes is training in one: rows, gradients, losses, files, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import ranks
import torch
from forked import ForkedProcess
from helpers import read_jsonl
from plain_ridge import TEXTS
from safetensors.torch import load_file
from torch.distributed import TCPStore

from palam.cli.main import main
from palam.errors import PalamError
from palam.training.trainer import PalamTrainer

PROCESSES = 2
TIME_LIMIT = 240
"""Seconds for all jobs of a launch."""
ENVIRONMENT = os.environ | {"TOKENIZERS_PARALLELISM": "false"}

CASES = {
    "answers": {},
    "accumulated": {"gradient_accumulation_steps": 2, "batch_size": 2},
    "averaged": {"average_weights_from": 0.25, "fusion": "global_softmax"},
    "passages": {
        "passage_words": 6,
        "init": "random",
        "fusion": "transformer_softmax",
        "fusion_options": {"dropout": 0.0},  # each process draws its own
    },
    "lora": {"lora_rank": 2, "fusion": "last", "epochs": 1},
    "appended": {"append_source_tokens": True, "mapper": "mlp", "epochs": 1},
    "no cache": {"cache_states": 0, "epochs": 1},
    "checkpointed": {"gradient_checkpointing": True, "epochs": 1},
    "early stop": {
        "patience": 1,
        "eval_steps": 1,
        "lr": 0.05,
        "warmup": 0,
        "adam_beta1": 0.98,
        "normalize": "none",
    },
    "sharded": {"shard_llm": True, "epochs": 1},
}
"""Settings of runs, each in one process and in two."""


def in_processes(arguments, *, wait=True):
    """Start Python in several processes, as a user does with `torchrun`."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    process = subprocess.Popen(
        [*launcher, f"--nproc-per-node={PROCESSES}", *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if not wait:
        return process
    out, err = process.communicate(timeout=TIME_LIMIT)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


class Launch(NamedTuple):
    """How processes that were launched together ended."""

    codes: list[int]
    stderr: str


def together(function, *arguments, **environment):
    """A function in several processes that start at once, told of each other as `torchrun` does.

    When one fails, the others are asked to end.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = ENVIRONMENT | {
        "WORLD_SIZE": str(PROCESSES),
        "LOCAL_WORLD_SIZE": str(PROCESSES),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    processes = []
    for rank in range(PROCESSES):
        own = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} | environment
        processes.append(ForkedProcess(function, *arguments, environment=own))
    deadline = time.monotonic() + TIME_LIMIT
    codes = [None] * PROCESSES
    while None in codes and not any(codes):
        codes = [process.poll() for process in processes]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for process in processes:
        process.terminate()
    errors = [process.communicate(timeout=TIME_LIMIT)[1] for process in processes]
    return Launch([process.returncode for process in processes], "".join(errors))


def palam_lines(text):
    """The lines that the command itself printed, not the launcher."""
    return [line for line in text.splitlines() if line.startswith("palam: ")]


@pytest.fixture(scope="module")
def common(base_folder, data_folder):
    """Settings that all runs have."""
    return {
        "task": "sib200",
        "data": str(data_folder),
        "encoder": str(base_folder("bert")),
        "llm": str(base_folder("llama")),
        "device": "cpu",
        "dtype": "fp32",
        "batch_size": 4,
        "lr": 5e-3,
        "patience": 0,
        "epochs": 2,
    }


@pytest.fixture(scope="module")
def distilling(common, tmp_path_factory):
    """Settings of a run on raw text with all objectives."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / "english.txt").write_text("\n".join(TEXTS[:14] * 3) + "\n", encoding="utf-8")
    (folder / "prompts.txt").write_text("{text} What is this?\nIn short: {text} is\n")
    raw = {
        "task": None,
        "data": None,
        "text_file": str(folder / "english.txt"),
        "objectives": {"repeat": 1, "continue": 1, "answer": 1},
        "swap_words": 0.2,
        "distill": True,
        "lr": 1e-3,
        "prompts_file": str(folder / "prompts.txt"),
        "epochs": 1,
        "batch_size": 8,
    }
    return common | raw


@pytest.fixture(scope="module")
def runs(common, distilling, soft_labels, lexicon, base_folder, tmp_path_factory):
    """By case, the folder of its run in one process and in two; each with its records."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {case: common | changes for case, changes in CASES.items()}
    settings["distilled"] = distilling
    settings["soft labels"] = common | {"soft_label_file": str(soft_labels)}
    settings["code-switched"] = common | {"lexicon": str(lexicon), "epochs": 2}
    settings["two encoders"] = common | {"second_encoder": str(base_folder("t5")), "epochs": 1}
    jobs = [{"settings": settings[case], "out": str(folder / f"two {case}")} for case in settings]
    jobs.append(job_of(common, folder / "two poisoned", poison=5))
    whole = common | {"epochs": 3, "fusion": "transformer_softmax"}
    jobs += [
        job_of(whole, folder / "two whole"),
        job_of(whole, folder / "two resumed", stop_at=8),
        job_of(whole, folder / "two resumed", resume=True),
        job_of(whole, folder / "two begun", stop_at=8),
    ]
    job_file = folder / "jobs.json"
    job_file.write_text(json.dumps(jobs))
    launched = in_processes([ranks.__file__, job_file])
    assert launched.returncode == 0, launched.stderr[-3000:]
    for case, values in settings.items():
        if case != "sharded":
            run_here(job_of(values, folder / f"one {case}"))
    run_here(job_of(common, folder / "one poisoned", poison=5))
    return folder


def job_of(settings, out, **options):
    return {"settings": settings, "out": str(out), **options}


def run_here(job):
    """Run a job in this process."""
    torch.save(ranks.run(job), f"{job['out']}.record.0.pt")


def records(runs, name, processes):
    paths = [f"{runs / name}.record.{rank}.pt" for rank in range(processes)]
    return [torch.load(path) for path in paths]


def losses(folder, key):
    entries = read_jsonl(folder / "log.jsonl")
    return [entry[key] for entry in entries if key in entry]


def alone(case):
    """The run in one process that a case is compared with."""
    return "checkpointed" if case == "sharded" else case


OTHER_CASES = ("distilled", "soft labels", "code-switched", "two encoders")
cases = pytest.mark.parametrize("case", [*CASES, *OTHER_CASES])


@cases
def test_both_processes_together_read_the_rows_of_one(runs, case):
    (expected,) = records(runs, f"one {alone(case)}", 1)
    first, second = records(runs, f"two {case}", PROCESSES)
    assert len(first["batches"]) == len(second["batches"]) == len(expected["batches"])
    for batch, half, other in zip(
        expected["batches"], first["batches"], second["batches"], strict=True
    ):
        assert half + other == batch


@cases
def test_gradients_are_those_of_one(runs, case):
    (expected,) = records(runs, f"one {alone(case)}", 1)
    for record in records(runs, f"two {case}", PROCESSES):
        assert len(record["gradients"]) == len(expected["gradients"]) > 0
        for gradient, right in zip(record["gradients"], expected["gradients"], strict=True):
            error = (gradient - right).norm() / right.norm()
            assert error < 1e-4  # each step begins from weights that differ by rounding
    first = record["gradients"][0]
    assert (first - expected["gradients"][0]).norm() / first.norm() < 1e-5


@cases
def test_losses_and_the_final_bridge_are_those_of_one(runs, case):
    one, two = runs / f"one {alone(case)}", runs / f"two {case}"
    assert losses(two, "eval_loss") == pytest.approx(losses(one, "eval_loss"), rel=1e-6)
    assert losses(two, "loss") == pytest.approx(losses(one, "loss"), rel=1e-5)
    expected = load_file(one / "model.safetensors")
    weights = load_file(two / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-4)


@cases
def test_the_first_process_alone_writes_one_run(runs, case):
    one, two = runs / f"one {alone(case)}", runs / f"two {case}"
    names = {path.relative_to(two).as_posix() for path in two.rglob("*")}
    assert names == {path.relative_to(one).as_posix() for path in one.rglob("*")}
    entries = read_jsonl(two / "log.jsonl")
    assert len({(entry["step"], tuple(entry)) for entry in entries}) == len(entries)
    results = json.loads((two / "results.json").read_text())
    expected = json.loads((one / "results.json").read_text())
    assert results.keys() == expected.keys()
    for name in ("steps", "best_step", "rows", "validation_accuracy", "validation_macro_f1"):
        assert results.get(name) == expected.get(name)


def test_an_early_stop_is_that_of_one(runs):
    results = json.loads((runs / "two early stop" / "results.json").read_text())
    assert results["best_step"] < results["steps"] < 12


def test_a_loss_that_is_not_finite_ends_both_and_names_the_rows_of_its_batch(runs):
    (one,) = records(runs, "one poisoned", 1)
    first, second = records(runs, "two poisoned", PROCESSES)
    assert first["error"] == second["error"]
    assert "the loss or its gradient is not finite at step" in first["error"]
    blamed = json.loads(first["error"].partition("rows ")[2].partition(";")[0])
    whole = json.loads(one["error"].partition("rows ")[2].partition(";")[0])
    assert 5 in blamed
    assert len(blamed) == len(whole) / PROCESSES
    assert set(blamed) < set(whole)


def test_each_process_draws_its_own_dropout(runs):
    first, second = records(runs, "two whole", PROCESSES)
    assert first["drawn"] != second["drawn"]


def test_resumed_is_bit_by_bit_uninterrupted(runs):
    (stopped, _) = records(runs, "two begun", PROCESSES)
    assert stopped["error"].startswith("KeyboardInterrupt")
    expected = load_file(runs / "two whole" / "model.safetensors")
    weights = load_file(runs / "two resumed" / "model.safetensors")
    for name, weight in weights.items():
        assert torch.equal(weight, expected[name])


def test_a_run_is_not_resumed_with_another_number_of_processes(runs, common):
    settings = common | {"epochs": 3, "fusion": "transformer_softmax"}
    job = job_of(settings, runs / "two begun", resume=True)
    assert "the number of processes changed" in ranks.run(job)["error"]


@pytest.fixture
def command(common):
    """The command's arguments."""
    settings = common | {"epochs": 200, "eval_steps": 4}
    options = []
    for name, value in settings.items():
        options += [f"--{name.replace('_', '-')}", str(value)]
    return ["train", *options]


def test_ctrl_c_ends_both_with_one_line_and_leaves_a_checkpoint(command, tmp_path):
    out = tmp_path / "out"
    process = in_processes(["-m", "palam", *command, "--out", out], wait=False)
    deadline = time.monotonic() + TIME_LIMIT
    while not list(tmp_path.glob("out.partial/checkpoint-*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode != 0
    lines = palam_lines(err)
    assert lines == ["palam: stopped; to resume, give the same command with --resume"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    assert "Traceback" not in err.partition("torch/distributed")[0]


MISTAKES = {
    "batches that cannot be shared": (["--batch-size", "5"], "it must be a multiple of 2, e.g. 6"),
    "a device for all": (["--device", "cuda:1"], "each of 2 processes needs its own"),
    "no data": (["--data", "nowhere"], "nowhere"),
    "no such option": (["--epoch", "3"], "--epoch"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(command, tmp_path, mistake):
    options, message = MISTAKES[mistake]
    ended = together(main, [*command, "--out", str(tmp_path / "out"), *options])
    assert all(ended.codes)
    (line,) = palam_lines(ended.stderr)
    assert message in line
    assert not list(tmp_path.iterdir())


def main_that_fails_in_one(arguments):
    """The command, of which the second process fails at a step."""
    step = PalamTrainer.training_step

    def failing_step(self, *args, **kwargs):
        if os.environ["RANK"] == "1" and self.state.global_step == 2:
            raise PalamError("this process has a cold")
        return step(self, *args, **kwargs)

    PalamTrainer.training_step = failing_step
    main(arguments)


def test_an_error_of_one_process_ends_both_with_one_line(command, tmp_path):
    ended = together(main_that_fails_in_one, [*command, "--out", str(tmp_path / "out")])
    assert all(ended.codes)
    assert palam_lines(ended.stderr) == ["palam: error: this process has a cold"]


def test_other_commands_are_of_one_process(tmp_path):
    ended = together(main, ["check", str(tmp_path / "x.csv")])
    assert all(ended.codes)
    (line,) = palam_lines(ended.stderr)
    assert "palam check is of one process" in line


def test_deepspeed_is_refused(command, tmp_path):
    arguments = [*command, "--out", str(tmp_path / "out")]
    ended = together(main, arguments, ACCELERATE_USE_DEEPSPEED="true")
    (line,) = palam_lines(ended.stderr)
    assert "DeepSpeed is not supported" in line


def test_an_llm_is_not_spread_over_one_process(command, common, tmp_path):
    error = ranks.run(job_of(common | {"shard_llm": True}, tmp_path / "out"))["error"]
    assert "shard_llm spreads the LLM over several processes" in error
    assert not list(Path(tmp_path).iterdir())
