"""A folder appears whole or not at all, and nobody's data is replaced."""

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers import refusal

from palam.errors import PalamError
from palam.utils.files import (
    Marker,
    atomic_directory,
    atomic_file,
    check_replaceable,
    is_disk_full,
    output_place,
    remove_directory,
)

NEW = {"mark": "new", "inside/deep": "y"}
OLD = {"mark": "old", "extra": "x"}


def contents(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def put(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def refused(folder, marker="mark"):
    before = contents(folder.parent)
    with pytest.raises(PalamError) as caught, atomic_directory(folder, marker=marker):
        pytest.fail("the block must not run")
    assert contents(folder.parent) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("state", ["missing", "parent missing", "empty", "ours", "a link to ours"])
def test_replaces_what_is_free_or_ours(tmp_path, state):
    target = tmp_path / ("a/b/out" if state == "parent missing" else "out")
    if state == "empty":
        target.mkdir()
    elif state == "ours":
        put(target, OLD)
    elif state == "a link to ours":
        put(tmp_path / "real", OLD)
        target.symlink_to(tmp_path / "real")
    with atomic_directory(target, marker="mark") as aside:
        assert aside.stat().st_dev == target.parent.stat().st_dev
        put(aside, NEW)
        if state == "ours":
            assert contents(target) == OLD  # untouched until the end of the block
    assert contents(target) == NEW
    assert not [p for p in target.parent.iterdir() if p.name.startswith(".")]
    assert target.is_symlink() == (state == "a link to ours")


def test_refuses_other_peoples_data(tmp_path):
    target = tmp_path / "out"
    put(target, {"thesis.tex": "..."})
    assert "holds other files" in refused(target)
    target = tmp_path / "file"
    target.write_text("mark")
    assert "is a file" in refused(target)


def test_a_marker_may_have_to_hold_a_text(tmp_path):
    marker = ("config.json", '"model_type": "palam"')
    llm = {"config.json": '{"model_type": "llama"}', "model.safetensors": "precious"}
    put(tmp_path / "llm", llm)
    assert "holds other files" in refused(tmp_path / "llm", marker)
    put(tmp_path / "bridge", {"config.json": '{"model_type": "palam"}'})
    check_replaceable(tmp_path / "bridge", marker)
    check_replaceable(tmp_path / "bridge", Marker(*marker))


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write to" in refused(tmp_path / "file" / "out")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("existed", [True, False])
def test_an_error_in_the_block_changes_nothing(tmp_path, error, existed):
    if existed:
        put(tmp_path / "out", OLD)

    def fail():
        with atomic_directory(tmp_path / "out", marker="mark") as aside:
            put(aside, NEW)
            raise error

    with pytest.raises(error):
        fail()
    expected = {f"out/{name}": text for name, text in OLD.items()} if existed else {}
    assert contents(tmp_path) == expected
    assert [p.name for p in tmp_path.iterdir()] == ["out"] * existed


@pytest.mark.parametrize("failing", ["fsync", "first rename", "second rename"])
def test_a_failing_disk_leaves_the_old_folder(tmp_path, monkeypatch, failing):
    put(tmp_path / "out", OLD)
    real, calls = Path.rename, []

    def rename(self, to):
        calls.append(to)
        if len(calls) == ("first rename", "second rename").index(failing) + 1:
            raise OSError(5, "Input/output error")
        return real(self, to)

    def fsync(descriptor):
        raise OSError(5, "Input/output error")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", fsync)
    else:
        monkeypatch.setattr(Path, "rename", rename)
    with (
        pytest.raises(OSError, match="Input/output"),
        atomic_directory(tmp_path / "out", marker="mark") as aside,
    ):
        put(aside, NEW)
    assert contents(tmp_path / "out") == OLD
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_everything_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    order = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(descriptor):
        name = "?"
        if sys.platform == "linux":
            name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        order.append(name)
        real_fsync(descriptor)

    def rename(self, to):
        order.append("rename")
        return real_rename(self, to)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    with atomic_directory(tmp_path / "out", marker="mark") as aside:
        put(aside, NEW)
    flushed = order[: order.index("rename")]
    assert len(flushed) == 4  # two files, two folders
    assert order[-1] in (tmp_path.name, "?")  # and the rename itself
    if sys.platform == "linux":
        assert set(flushed) == {"mark", "deep", "inside", aside.name}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_modes_follow_the_umask(tmp_path, umask, file, folder):
    before = os.umask(umask)
    try:
        with atomic_directory(tmp_path / "out", marker="mark") as aside:
            put(aside, {"mark": "x"})
            (aside / "mark").chmod(0o600)  # as some writers leave their files
        assert os.umask(umask) == umask  # it has not been changed on the way
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out" / "mark").stat().st_mode) == file
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == folder


def test_a_killed_process_leaves_the_old_folder(tmp_path):
    put(tmp_path / "out", OLD)
    code = (
        "import sys, time; from palam.utils.files import atomic_directory\n"
        "with atomic_directory(sys.argv[1], marker='mark') as aside:\n"
        "    (aside / 'mark').write_text('half'); print('in', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "in\n"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert contents(tmp_path / "out") == OLD
    with atomic_directory(tmp_path / "out", marker="mark") as aside:
        put(aside, NEW)  # what the killed process left is in nobody's way
    assert contents(tmp_path / "out") == NEW


@pytest.mark.parametrize("existed", [True, False])
def test_a_file_takes_its_place_at_the_end_of_the_block(tmp_path, existed):
    path = tmp_path / "folder" / "file"
    if existed:
        put(path.parent, {"file": "old"})
    with atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.exists() == existed
    assert contents(tmp_path) == {"folder/file": "new"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_the_old_file(tmp_path, error):
    put(tmp_path, {"file": "old"})

    def fail():
        with atomic_file(tmp_path / "file") as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert contents(tmp_path) == {"file": "old"}


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    put(tmp_path, {"file": "old"})
    with pytest.raises(PalamError) as caught, atomic_file(tmp_path / "file" / "inside"):
        pytest.fail("the block must not run")
    assert "inside cannot be written: " in str(caught.value)
    assert "\n" not in str(caught.value)

    def fsync(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with (
        pytest.raises(PalamError, match=r"file cannot be written: No space left on device"),
        atomic_file(tmp_path / "file") as file,
    ):
        file.write(b"new")
    assert contents(tmp_path) == {"file": "old"}


# --------------------------------------------------------------------------- places
PLACES = ["/", ".", "", "..", "./", "a/..", "a\0b", "x" * 300]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: repr(place[:8]))
def test_no_place_for_an_output_is_one_line(tmp_path, monkeypatch, place):
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    for action in (
        output_place,
        lambda place: check_replaceable(place, "mark"),
        lambda place: atomic_directory(place, marker="mark").__enter__(),
        lambda place: atomic_file(place).__enter__(),
        remove_directory,
    ):
        assert "cannot be written" in refusal(action, place) or "is a folder" in refusal(
            action, place
        )
    assert [path.name for path in tmp_path.rglob("*")] == ["inside"]


def test_a_circle_of_links_is_one_line(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "cannot be written" in refusal(check_replaceable, tmp_path / "a", "mark")


def test_a_folder_without_a_current_folder(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "cannot be written" in refusal(check_replaceable, "out", "mark")


def test_a_file_in_the_place_of_a_folder_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(PalamError, match="is a folder; give a file"), atomic_file(tmp_path):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_to_a_file_stays_a_link(tmp_path, exists):
    if exists:
        (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_file(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes and devices")
def test_a_pipe_or_a_device_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    texts = []
    reader = threading.Thread(target=lambda: texts.append((tmp_path / "pipe").read_text()))
    reader.start()
    for path in (tmp_path / "pipe", Path(os.devnull)):
        before = path.stat()
        with atomic_file(path) as file:
            file.write(b"new")
        assert path.stat().st_ino == before.st_ino
    reader.join()
    assert texts == ["new"]
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_links_within_a_folder_are_not_followed(tmp_path):
    put(tmp_path / "precious", {"file": "x"})
    (tmp_path / "precious" / "file").chmod(0o600)
    with atomic_directory(tmp_path / "out", marker="mark") as aside:
        put(aside, {"mark": "x"})
        (aside / "link").symlink_to(tmp_path / "precious" / "file")
        (aside / "folder").symlink_to(tmp_path / "precious")
    assert stat.S_IMODE((tmp_path / "precious" / "file").stat().st_mode) == 0o600
    with atomic_directory(tmp_path / "out", marker="mark") as aside:
        put(aside, {"mark": "y"})
    remove_directory(tmp_path / "out")
    assert contents(tmp_path) == {"precious/file": "x"}
    remove_directory(tmp_path / "out")  # which is not there


# --------------------------------------------------------------------------- full disks
FULL = [
    OSError(28, "No space left on device"),
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
]


@pytest.mark.parametrize("error", FULL, ids=["system", "safetensors", "torch"])
def test_a_full_disk_is_one_line_and_leaves_the_old_folder(tmp_path, error):
    put(tmp_path / "out", OLD)

    def fail():
        with atomic_directory(tmp_path / "out", marker="mark") as aside:
            put(aside, NEW)
            raise error

    assert refusal(fail).endswith("out cannot be written: no space left on its disk")
    assert contents(tmp_path / "out") == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert is_disk_full(error)
    assert not is_disk_full(OSError(5, "Input/output error"))


def test_an_error_of_another_file_in_the_block_is_its_own(tmp_path):
    def fail():
        with atomic_file(tmp_path / "out") as file:
            file.write(b"new")
            (tmp_path / "none").read_text()

    with pytest.raises(FileNotFoundError, match="none"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_a_pipe_or_a_device_in_a_folder_is_not_read(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mark").write_text("x")
    os.mkfifo(folder / "pipe")
    message = f"{folder / 'pipe'} is neither a file nor a folder; remove it"
    assert refusal(check_replaceable, folder, "mark") == message
    (folder / "pipe").unlink()
    (folder / "zeros").symlink_to("/dev/zero")
    assert "neither a file nor a folder" in refusal(check_replaceable, folder, "mark")
