"""What killed runs leave is put right by the next run on that place; live runs are left alone."""

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import killed_at

from palam.utils import asides
from palam.utils.asides import PATTERN, aside_of, is_alive, machine_id, process_start, tidy
from palam.utils.files import atomic_directory, atomic_file, check_replaceable, remove_directory

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")
NEW = {"mark": "new", "inside/deep": "y"}
OLD = {"mark": "old", "extra": "x"}


def contents(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def put(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def write_directory(place):
    with atomic_directory(place, marker="mark") as aside:
        put(aside, NEW)


def test_a_directory_is_whole_after_a_kill_at_any_file_operation(tmp_path):
    place = tmp_path / "out"
    states = []
    number = 1
    put(place, OLD)
    while killed_at(number, write_directory, place):
        states.append(contents(place))  # nothing is there between the two renames
        check_replaceable(place, "mark")  # the next run begins
        assert contents(place) in (OLD, NEW)
        assert names(tmp_path) == ["out"]
        remove_directory(place)
        put(place, OLD)
        number += 1
    assert contents(place) == NEW
    assert {} in states
    assert OLD in states
    assert NEW in states
    assert number > 10


def test_a_new_directory_is_not_there_or_whole_after_a_kill(tmp_path):
    place = tmp_path / "out"
    number = 1
    while killed_at(number, write_directory, place):
        write_directory(place)
        assert contents(place) == NEW
        assert names(tmp_path) == ["out"]
        remove_directory(place)
        number += 1
    assert number > 8


def write_file(path):
    with atomic_file(path) as file:
        file.write(b"new")


def test_a_file_is_whole_after_a_kill_at_any_file_operation(tmp_path):
    path = tmp_path / "out"
    number = 1
    path.write_text("old")
    while killed_at(number, write_file, path):
        assert path.read_text() in ("old", "new")
        write_file(path)
        assert contents(tmp_path) == {"out": "new"}
        path.write_text("old")
        number += 1
    assert number > 2


def test_a_kill_while_a_directory_is_removed(tmp_path):
    place = tmp_path / "out.partial"
    number = 1
    put(place, OLD)
    while killed_at(number, remove_directory, place):
        assert not place.exists() or contents(place) == OLD
        check_replaceable(place, "mark")
        assert set(names(tmp_path)) <= {"out.partial"}
        put(place, OLD)
        number += 1
    assert names(tmp_path) == []
    assert number > 3


def test_a_checkpoint_of_another_step_is_tidied_too(tmp_path):
    number = 1
    while not names(tmp_path):
        assert killed_at(number, write_directory, tmp_path / "checkpoint-10")
        number += 1
    assert names(tmp_path)[0].startswith(".checkpoint-10-")
    write_directory(tmp_path / "checkpoint-20")
    assert names(tmp_path) == ["checkpoint-20"]


LIVE = """
import sys
from palam.utils.files import atomic_directory, atomic_file
with atomic_directory(sys.argv[1], marker="mark") as aside, atomic_file(sys.argv[2]) as file:
    (aside / "mark").write_text("live")
    file.write(b"live")
    print("in", flush=True)
    sys.stdin.readline()
"""


def test_what_a_live_run_is_writing_stays(tmp_path):
    place, path = tmp_path / "out", tmp_path / "file"
    live = subprocess.Popen(
        [sys.executable, "-c", LIVE, place, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with live:
        assert live.stdout.readline() == "in\n"
        write_directory(place)
        write_file(path)
        hidden = [name for name in names(tmp_path) if name.startswith(".")]
        assert len(hidden) == 2
        live.stdin.write("\n")
    assert live.returncode == 0
    assert contents(tmp_path) == {"out/mark": "live", "file": "live"}
    assert names(tmp_path) == ["file", "out"]


def test_what_this_process_is_writing_stays(tmp_path):
    with atomic_directory(tmp_path / "out", marker="mark") as outer:
        put(outer, {"mark": "outer"})
        write_directory(tmp_path / "out")
        tidy(tmp_path)
        assert contents(outer) == {"mark": "outer"}
    assert contents(tmp_path / "out") == {"mark": "outer"}


def leftover(folder, machine, process, start, suffix=""):
    path = folder / f".out-{machine}-{process}-{start}-{secrets.token_hex(4)}{suffix}"
    put(path, OLD)
    return path


def test_another_process_with_the_same_id_is_not_its_owner(tmp_path):
    own = os.getpid()
    leftover(tmp_path, machine_id(), own, process_start(own))  # an id that this process has got
    leftover(tmp_path, machine_id(), os.getppid(), 1)
    leftover(tmp_path, machine_id(), 2**22 + 1, 0)
    tidy(tmp_path)
    assert names(tmp_path) == []


def test_what_another_machine_has_left_is_removed_when_it_is_old(tmp_path, monkeypatch):
    leftover(tmp_path, "00000000", 1, 0)
    leftover(tmp_path, "00000000", 2, 0, suffix="-old")
    tidy(tmp_path)
    assert len(names(tmp_path)) == 2
    now = time.time()
    monkeypatch.setattr(asides.time, "time", lambda: now + 120)
    tidy(tmp_path)  # it is not between two renames any more
    assert contents(tmp_path / "out") == OLD
    assert len(names(tmp_path)) == 2
    monkeypatch.setattr(asides.time, "time", lambda: now + 25 * 3600)
    tidy(tmp_path)
    assert names(tmp_path) == ["out"]


def test_hidden_files_of_others_stay(tmp_path):
    others = [".out", ".out-1234", ".out-deadbeef", ".out-old", ".out.lock", ".data-20240101"]
    for name in others:
        put(tmp_path / name, OLD)
    write_directory(tmp_path / "out")
    assert names(tmp_path) == sorted([*others, "out"])


def test_a_link_among_leftovers_is_removed_and_not_followed(tmp_path):
    put(tmp_path / "precious", OLD)
    name = leftover(tmp_path / "elsewhere", machine_id(), 2**22 + 1, 0).name
    (tmp_path / name).symlink_to(tmp_path / "precious")
    tidy(tmp_path)
    assert names(tmp_path) == ["elsewhere", "precious"]
    assert contents(tmp_path / "precious") == OLD


def test_names_are_told_from_others():
    with aside_of(Path("/folder/a-b.c")) as path:
        assert PATTERN.fullmatch(path.name)["target"] == "a-b.c"
        assert path.parent == Path("/folder")
    assert is_alive(os.getpid(), process_start(os.getpid()))
    assert not is_alive(os.getpid(), 1) or not process_start(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody knows yet
    assert not is_alive(child.pid) or sys.platform != "linux"
    child.wait()
    assert not is_alive(child.pid)
