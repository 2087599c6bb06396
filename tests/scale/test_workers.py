"""Several processes that read: what one gives, in order; killed ones; errors in their turn."""

import os
import signal
import time
from types import SimpleNamespace

import pytest
from helpers import refusal
from killing import KillingLabelling

from palam import PalamError
from palam.scale import workers
from palam.scale.failures import Failure
from palam.scale.reader import BridgeReader, ReaderLoading
from palam.scale.workers import WorkerPool, WorkersLost, devices_of_each, threads_of_each
from palam.utils.asides import is_alive

CPU = ReaderLoading(device="cpu", dtype="fp32")


@pytest.fixture(scope="module")
def reader(bridge, tmp_path_factory):
    marks = str(tmp_path_factory.mktemp("marks"))
    return BridgeReader(bridge, KillingLabelling(("good", "bad"), marks=marks), loading=CPU)


@pytest.fixture(scope="module")
def pool(reader):
    with WorkerPool([reader, reader], threads=1) as pool:
        yield pool


def chunk(start, texts):
    return SimpleNamespace(start=start, texts=texts, languages=[None] * len(texts))


def chunks_of(*lists):
    return [chunk(number, texts) for number, texts in enumerate(lists)]


def read(pool, *lists, keep_errors=False, progress=None):
    read = pool.read_all(chunks_of(*lists), keep_errors=keep_errors, progress=progress)
    return [(each.start, results) for each, results in read]


def test_several_give_what_one_gives_in_order(pool, reader):
    lists = [[f"the fox {number} jumps", f"{number}"] * (1 + number % 3) for number in range(9)]
    counts = []
    assert read(pool, *lists, progress=counts.append) == read(reader, *lists)
    assert sum(counts) == sum(map(len, lists))


def test_what_was_lost_of_texts_is_counted_over_all(pool):
    stats = pool.bridge.processor.stats
    before = stats[""].texts if "" in stats else 0
    read(pool, ["a", "b"], ["c"], ["d", "e", "f"])
    assert stats[""].texts == before + 6


def test_the_bridge_is_described_as_the_model_is(pool, reader):
    from palam.scale.bridge import identity_of

    assert identity_of(pool.bridge) == identity_of(reader.model)
    assert pool.bridge.config.to_dict() == reader.model.config.to_dict()


def test_an_error_comes_in_its_turn_and_what_is_before_it_is_done(pool):
    def chunks():
        yield from chunks_of(["a"], ["b"])
        raise PalamError("line 3 is damaged")

    results = pool.read_all(chunks(), keep_errors=False, progress=None)
    assert [next(results)[0].start for _ in range(2)] == [0, 1]
    assert refusal(next, results) == "line 3 is damaged"
    assert len(read(pool, ["a"], ["b"])) == 2


def test_a_text_that_cannot_be_read_ends_the_reading_or_is_kept(pool, reader):
    lists = [["a"], [None], ["b"]]
    with pytest.raises(PalamError, match="row 0 holds None"):
        read(pool, *lists)
    kept = read(pool, *lists, keep_errors=True)
    assert isinstance(kept[1][1][0], Failure)
    assert [kept[0], kept[2]] == read(reader, ["a"], ["x"], ["b"])[::2]


def test_a_killed_workers_rows_are_read_by_another(pool, reader):
    before = pool.process_ids
    lists = [["a"], ["kill once"], ["b"], ["c"], ["d"]]
    results = read(pool, *lists)
    assert len(set(pool.process_ids) & set(before)) == 1
    assert len(pool.process_ids) == 2
    assert results == read(reader, *lists)  # the mark is there now


def test_a_worker_that_is_killed_without_rows_is_replaced(pool):
    victim = pool.process_ids[1]
    os.kill(victim, signal.SIGKILL)
    give_up_at = time.monotonic() + 60
    # Where the victim was still loading, the other worker may read everything before its end shows.
    while victim in pool.process_ids and time.monotonic() < give_up_at:
        assert len(read(pool, ["a"], ["b"], ["c"])) == 3
    assert victim not in pool.process_ids
    assert len(pool.process_ids) == 2


def test_rows_that_kill_two_workers_end_the_reading_in_one_line(pool):
    chunks = chunks_of(["a"], ["kill"], ["b"])
    results = pool.read_all(chunks, keep_errors=True, progress=None)
    assert next(results)[0].start == 0
    with pytest.raises(WorkersLost, match="two workers in turn ended by SIGKILL at the rows"):
        next(results)
    assert len(read(pool, ["a"], ["b"])) == 2


def test_workers_end_with_the_block_and_with_their_parent(reader):
    with WorkerPool([reader], threads=1) as pool:
        (worker,) = pool.process_ids
        assert is_alive(worker)
    assert not is_alive(worker)


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path):
    reader = BridgeReader(str(tmp_path / "nothing"), loading=CPU)
    with pytest.raises(PalamError), WorkerPool([reader], threads=1):
        pass


def test_cores_and_cards_are_shared_out(monkeypatch):
    monkeypatch.setattr(workers, "num_cores", lambda: 8)
    assert [threads_of_each(count) for count in (1, 2, 3, 16)] == [8, 4, 2, 1]
    assert devices_of_each(3, "cpu") == ["cpu"] * 3
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert devices_of_each(3, "cuda") == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices_of_each(2, "cuda:1") == ["cuda:1", "cuda:1"]
