"""The command as a process of its own: Ctrl-C, termination, a closed pipe, standard input."""

import re
import signal
import subprocess
import sys
import time

import pytest
from forked import palam_command


@pytest.fixture
def start():
    """`start("train", ...)`: the command's process."""
    processes = []

    def call(*arguments):
        processes.append(palam_command(*arguments))
        return processes[-1]

    yield call
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


@pytest.fixture
def training(data, base_options, tmp_path):
    options = ("--batch-size", 4, "--epochs", 40, "--patience", 0, "--out", tmp_path / "out")
    return ("train", "--task", "sib200", "--data", data, *base_options, *options)


def wait_for(process, folder, pattern):
    end = time.monotonic() + 60
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_ctrl_c_says_how_to_go_on_and_resuming_does(start, training, palam, tmp_path):
    process = start(*training)
    wait_for(process, tmp_path, "out.partial/checkpoint-*/trainer_state.json")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "palam: stopped; to resume, give the same command with --resume"
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    assert palam(*training, "--resume").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_ctrl_c_before_the_first_checkpoint_leaves_nothing(start, training, tmp_path):
    process = start(*training, "--eval-steps", 100_000)
    wait_for(process, tmp_path, "out.partial/log.jsonl")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == (
        "palam: stopped; no checkpoint was saved yet, so there is nothing to resume"
    )
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_job_that_is_terminated_keeps_the_rows_that_are_done(start, trained, palam, tmp_path):
    (tmp_path / "texts.txt").write_text("a text\n" * 1500)
    cpu = ("--device", "cpu", "--dtype", "fp32")
    out = tmp_path / "out.csv"
    job = ("classify", trained, "--file", tmp_path / "texts.txt", "--out", out, *cpu)
    process = start(*job, "--batch-size", 1)
    wait_for(process, tmp_path, "out.csv.partial")
    while len((tmp_path / "out.csv.partial").read_bytes().splitlines()) < 2:
        time.sleep(0.01)
    process.terminate()
    printed, err = process.communicate(timeout=60)
    assert (process.returncode, printed) == (143, "")
    stopped = r"palam: stopped after [\d,]+ of 1,500 rows; to go on, give the same command with "
    assert re.fullmatch(f"{stopped}--resume", err.splitlines()[-1])
    assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv.partial", "texts.txt"]
    assert palam(*job, "--resume").code == 0
    assert len(out.read_text().splitlines()) == 1501


def test_a_closed_pipe_is_no_error(start, trained):
    process = start("classify", trained, "--file", "-", "--device", "cpu", "--dtype", "fp32")
    process.stdin.write("a text\n" * 3000)
    process.stdin.close()
    assert '"prediction"' in process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 0


def test_a_mistake_is_one_line_and_exit_code_2(start, trained):
    out, err = start("classify", trained, "--file", "nowhere.txt").communicate(timeout=60)
    line = "palam: error: cannot read nowhere.txt: No such file or directory\n"
    assert (out, err) == ("", line)


def test_a_mistake_is_one_line_whatever_libraries_say_when_imported():
    command = [sys.executable, "-m", "palam", "bench", "nowhere.yaml"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
