"""The processes of a run; several of them are in tests/training/test_several_processes.py."""

import pytest

from palam.errors import PalamError
from palam.utils import processes


def test_one_process_is_the_main_one_and_shares_with_nobody():
    assert processes.num_processes() == 1
    assert processes.is_main()
    assert processes.gather("a") == ["a"]
    assert processes.any_process(True)
    assert not processes.any_process(False)
    assert processes.on_main(lambda: 7) == 7
    assert processes.joined_shares(processes.own_share([1, 2, 3])) == [1, 2, 3]
    assert processes.claims_report()
    processes.join_processes("mps")
    processes.wait_for_all()
    processes.leave_processes()


def test_an_error_of_the_main_process_is_raised():
    def fails():
        raise PalamError("no such file")

    with pytest.raises(PalamError, match="no such file"):
        processes.on_main(fails)


@pytest.mark.parametrize(("size", "rank"), [(3, 0), (3, 1), (3, 2), (5, 4)])
def test_shares_are_all_items_once(monkeypatch, size, rank):
    items = list(range(7))
    shares = [items[other::size] for other in range(size)]
    monkeypatch.setenv("WORLD_SIZE", str(size))
    monkeypatch.setenv("RANK", str(rank))
    assert processes.own_share(items) == shares[rank]
    monkeypatch.setattr(processes, "gather", lambda share: shares)
    assert processes.joined_shares(shares[rank]) == items


@pytest.mark.parametrize("value", ["", "x", "-1", " 1 "])
def test_a_launcher_that_says_nothing_useful_is_none(monkeypatch, value):
    monkeypatch.setenv("WORLD_SIZE", value)
    assert processes.num_processes() == 1


def test_a_device_for_all_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PalamError, match="each of 2 processes needs its own"):
        processes.join_processes("cuda:0")


def test_deepspeed_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(PalamError, match="DeepSpeed is not supported"):
        processes.join_processes("auto")
