"""One run to a place: the second is refused in one line, and a killed one is in nobody's way."""

import os
import subprocess
import sys

import pytest
from helpers import refusal

from palam.utils.locks import output_lock

HOLDER = """
import sys
from palam.utils.locks import output_lock
with output_lock(sys.argv[1]):
    print("in", flush=True)
    sys.stdin.readline()
"""


def holder(place):
    """A process that holds a place until it is told to go on."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "in\n"
    return process


def lock(place):
    with output_lock(place):
        pass


@pytest.mark.parametrize("kind", ["missing", "file", "folder", "in a new folder"])
def test_of_two_runs_on_a_place_the_second_is_refused_in_one_line(tmp_path, kind):
    place = tmp_path / "new" / "out" if kind == "in a new folder" else tmp_path / "out"
    if kind == "file":
        place.write_text("")
    elif kind == "folder":
        place.mkdir()
    with holder(place) as process:
        message = refusal(lock, place)
        assert f"{place} is being written by another run (process {process.pid} on " in message
        assert refusal(lock, place) == message  # who was refused has not taken it
        process.stdin.write("\n")
    lock(place)
    assert not list(place.parent.glob(".*"))


def test_a_link_to_a_place_is_that_place(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with output_lock(tmp_path / "out"):
        assert "is being written by another run" in refusal(lock, tmp_path / "link")
        lock(tmp_path / "other")


def test_a_killed_run_holds_nothing(tmp_path):
    with holder(tmp_path / "out") as process:
        process.kill()
    lock(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_block_gives_the_place_back(tmp_path):
    with pytest.raises(KeyboardInterrupt), output_lock(tmp_path / "out"):
        raise KeyboardInterrupt
    lock(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/", ".", "", "a\0b", "x" * 300])
def test_no_place_for_an_output_is_one_line(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    assert "cannot be written" in refusal(lock, place)
    assert list(tmp_path.iterdir()) == []


def test_a_place_below_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(lock, tmp_path / "file" / "out")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    assert "cannot be written" in refusal(lock, tmp_path / "out")
