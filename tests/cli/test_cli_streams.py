"""The command's standard streams and signals: closed, full, of another encoding, asked to end."""

import os
import signal
import subprocess
import sys
import time

import pytest
from forked import palam_command

COMMAND = (sys.executable, "-m", "palam")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="a POSIX shell's redirections")


def shell(line, **environment):
    """Run the command with redirections."""
    words = " ".join([*COMMAND, line])
    environment = os.environ | {"HF_HUB_OFFLINE": "1"} | environment
    return subprocess.run(words, shell=True, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")],
)
def test_an_output_that_cannot_be_written_is_one_line(redirection, reason):
    result = shell(f"--version {redirection}")
    line = f"palam: error: standard output cannot be written: {reason}\n"
    assert (result.returncode, result.stderr) == (2, line)


@pytest.mark.parametrize("redirection", ["2>&-", "<&-"])
def test_other_streams_may_be_closed(redirection):
    result = shell(f"--version {redirection}")
    assert (result.returncode, result.stdout[:6], result.stderr) == (0, "palam ", "")
    assert shell(f"no-command {redirection}").returncode == 2


def test_an_encoding_that_lacks_a_character(trained):
    text = f"inspect {trained} --text ගෙදර --device cpu --dtype fp32"
    result = shell(text, PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert "token" in result.stdout


def test_sigterm_cleans_up_as_ctrl_c_does(data, base_options, tmp_path):
    out = tmp_path / "out"
    options = ["--task", "sib200", "--data", data, *base_options, "--out", out]
    options += ["--batch-size", 4, "--epochs", 60, "--patience", 0, "--eval-steps", 100_000]
    process = palam_command("train", *options)
    end = time.monotonic() + 90
    while not (tmp_path / "out.partial/log.jsonl").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.splitlines()[-1].startswith("palam: stopped; no checkpoint was saved yet")
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
