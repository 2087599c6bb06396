"""Several processes of this machine that read one job's texts, each with a share of the cores.

Chunks of texts go to whichever worker is free, and come back in order. Each worker is a new process
that loads the model itself; weights whose file has the dtype that they are used in stay mapped from
the file, so the processes share one copy of them.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from palam.errors import PalamError
from palam.scale.bridge import BridgeView
from palam.scale.failures import Failure
from palam.scale.identity import Identity, model_identity
from palam.scale.reader import BridgeReader, C, TextChunk
from palam.scale.work import Progress
from palam.tasks.formats import Row

START_METHOD = "spawn"
"""How a worker's process begins: with nothing of its parent's, which may hold a graphics card."""
MAX_ATTEMPTS = 2
"""How many workers are given the same rows."""
READ_AHEAD = 2
"""How many chunks a worker are read from the file before the first of them is done."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
"""By these, the libraries of a new process know how many threads they may use."""


# ------------------------------------------------------------------ what is sent
class _Texts(NamedTuple):
    """A chunk as a worker gets it."""

    number: int
    start: int
    texts: list[str]
    languages: list[str | None]
    keep_errors: bool


class _Loaded(NamedTuple):
    """The model is there; of the first worker, what is known of it."""

    config: Any = None
    identity: Identity | None = None


class _Read(NamedTuple):
    """Some texts were read just now."""

    num_texts: int


class _Done(NamedTuple):
    """A chunk's results, and what was counted of its texts."""

    number: int
    results: list[Row | Failure]
    stats: Mapping[str, Any]
    llm_stats: Mapping[str, Any]


class _Failed(NamedTuple):
    """Why a chunk, or the model (None), cannot be read."""

    number: int | None
    message: str
    is_mistake: bool
    """The user's, and the message is one line; else it is a traceback."""

    def error(self) -> Exception:
        """What to raise for it."""
        return PalamError(self.message) if self.is_mistake else RuntimeError(self.message)


# ------------------------------------------------------------------ in a worker
def _work(connection: Connection, reader: BridgeReader, threads: int, *, describes: bool) -> None:
    """Load the model, then read what comes, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    try:
        model = reader.model
        loaded = _Loaded(model.config, model_identity(model)) if describes else _Loaded()
    except BaseException as error:
        connection.send(_failed(None, error))
        return
    connection.send(loaded)
    while True:
        try:
            texts = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send(_done(reader, texts, connection))
        except (BrokenPipeError, ConnectionError):
            return
        except BaseException as error:
            connection.send(_failed(texts.number, error))


def _end_with_parent() -> None:
    """End this process when its parent has ended, however it did."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _done(reader: BridgeReader, texts: _Texts, connection: Connection) -> _Done:
    processor = reader.model.processor
    processor.stats.clear()
    processor.llm_stats.clear()
    results = reader.read_chunk(
        texts,
        keep_errors=texts.keep_errors,
        progress=lambda count: connection.send(_Read(count)),
    )
    return _Done(texts.number, results, dict(processor.stats), dict(processor.llm_stats))


def _failed(number: int | None, error: BaseException) -> _Failed:
    if isinstance(error, PalamError):
        return _Failed(number, str(error), True)
    return _Failed(number, "in a worker:\n" + "".join(traceback.format_exception(error)), False)


# ------------------------------------------------------------------ in the parent
@dataclass(eq=False)
class _Worker:
    """A process, and what it is doing."""

    reader: BridgeReader
    process: Any
    connection: Connection
    is_loaded: bool = False
    task: "_Task | None" = None

    @property
    def is_free(self) -> bool:
        return self.is_loaded and self.task is None


@dataclass(eq=False)
class _Task:
    """A chunk, and how far it is."""

    number: int
    chunk: Any
    message: _Texts
    num_attempts: int = 0
    outcome: "list[Row | Failure] | _Failed | None" = None


@dataclass
class _Queue:
    """The chunks of one reading, between the file and the output."""

    chunks: Iterator[Any]
    ahead: int
    keep_errors: bool
    under_way: deque[_Task] = field(default_factory=deque)
    """In their order."""
    waiting: deque[_Task] = field(default_factory=deque)
    """Those that no worker has."""
    is_read: bool = False
    error: Exception | None = None
    """That ended the reading of chunks; those before it are done first."""

    def fill(self, number: Iterator[int]) -> None:
        """Take chunks, as many as may be under way."""
        while not self.is_read and len(self.under_way) < self.ahead:
            try:
                chunk: TextChunk = next(self.chunks)
            except StopIteration:
                self.is_read = True
                return
            except Exception as error:
                self.error = error
                self.is_read = True
                return
            task_number = next(number)
            message = _Texts(
                task_number, chunk.start, list(chunk.texts), list(chunk.languages), self.keep_errors
            )
            task = _Task(task_number, chunk, message)
            self.under_way.append(task)
            self.waiting.append(task)


class WorkersLost(PalamError):
    """Workers are killed again and again: nothing is to be had by going on."""


class WorkerPool:
    """Processes that read texts; started at once, and ended with the block.

    A worker that is killed is replaced, and its rows are given to another one. The second time that
    the same rows end a worker, the reading ends.

    Args:
        readers: one a worker, which loads its model there.
        threads: of each worker.

    Attributes:
        bridge: what the workers have loaded; it is known within the block.

    Raises:
        PalamError: a model that cannot be loaded, or two workers that are killed meanwhile.
    """

    bridge: BridgeView

    def __init__(self, readers: Sequence[BridgeReader], threads: int) -> None:
        self._threads = threads
        self._readers = list(readers)
        self._workers: list[_Worker] = []
        self._tasks: dict[int, _Task] = {}
        self._numbers = iter(range(2**62))
        self._progress: Progress | None = None
        self._described: _Loaded | None = None
        self._num_lost_loading = 0
        self._context: Any = multiprocessing.get_context(START_METHOD)

    def __enter__(self) -> "WorkerPool":
        try:
            for reader in self._readers:
                self._start(reader, describes=not self._workers)
            processor = self._readers[0].load_processor()
            while self._described is None:
                self._attend()
            config, identity = self._described
            self.bridge = BridgeView(config, processor, dict(identity or {}))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def process_ids(self) -> list[int]:
        """Of the workers."""
        return [worker.process.pid for worker in self._workers]

    def close(self) -> None:
        """End all workers; they have nothing to clean up."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers = []

    # ------------------------------------------------------------------ reading
    def read_all(
        self, chunks: Iterable[C], *, keep_errors: bool, progress: Progress | None
    ) -> Iterator[tuple[C, list[Row | Failure]]]:
        """Each chunk with the results of its texts, in order; see [`BridgeReader.read_all`].

        Raises:
            PalamError: a text that cannot be read, or rows at which two workers were killed.
        """
        self._progress = progress
        self._tasks.clear()  # what is still under way is of a reading that was given up
        ahead = READ_AHEAD * len(self._workers)
        queue = _Queue(iter(chunks), ahead, keep_errors)
        while True:
            queue.fill(self._numbers)
            self._hand_out(queue)
            if not queue.under_way:
                break
            first = queue.under_way[0]
            if first.outcome is None:
                self._attend(queue)
                continue
            queue.under_way.popleft()
            self._tasks.pop(first.number, None)
            if isinstance(first.outcome, _Failed):
                raise first.outcome.error()
            yield first.chunk, first.outcome
        if queue.error is not None:
            raise queue.error

    def _hand_out(self, queue: _Queue) -> None:
        """Give the chunks that wait to the workers that are free."""
        for worker in list(self._workers):
            if not queue.waiting:
                return
            if not worker.is_free:
                continue
            task = queue.waiting.popleft()
            self._tasks[task.number] = task
            worker.task = task
            try:
                worker.connection.send(task.message)
            except OSError:
                self._replace(worker, queue)

    def _attend(self, queue: _Queue | None = None) -> None:
        """Wait for a message or the end of a worker, and see to all that there are."""
        ready = wait([worker.connection for worker in self._workers])
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                self._replace(worker, queue)
                continue
            self._take(worker, message)

    def _take(self, worker: _Worker, message: _Loaded | _Read | _Done | _Failed) -> None:
        if isinstance(message, _Read):
            if self._progress is not None and self._task_of(worker) is not None:
                self._progress(message.num_texts)
            return
        if isinstance(message, _Loaded):
            worker.is_loaded = True
            self._num_lost_loading = 0
            if message.identity is not None:
                self._described = message
            return
        if message.number is None:
            assert isinstance(message, _Failed)
            raise message.error()
        task = self._task_of(worker)
        worker.task = None
        if task is None:  # of a reading that was given up
            return
        if isinstance(message, _Failed):
            task.outcome = message
            return
        task.outcome = message.results
        self._count(message)

    def _task_of(self, worker: _Worker) -> _Task | None:
        """What a worker is doing, if it is still wanted."""
        return self._tasks.get(worker.task.number) if worker.task is not None else None

    def _count(self, done: _Done) -> None:
        """Add what was counted of a chunk's texts."""
        processor = self.bridge.processor
        for own, new in ((processor.stats, done.stats), (processor.llm_stats, done.llm_stats)):
            for language, counts in new.items():
                for name, count in vars(counts).items():
                    setattr(own[language], name, getattr(own[language], name) + count)

    # ------------------------------------------------------------------ processes
    def _start(self, reader: BridgeReader, *, describes: bool = False) -> None:
        """Start a worker."""
        own_end, worker_end = self._context.Pipe()
        process = self._context.Process(
            target=_work,
            args=(worker_end, reader, self._threads),
            kwargs={"describes": describes},
            daemon=True,
        )
        with _environment_of(self._threads), _interrupts_ignored():
            process.start()
        worker_end.close()
        self._workers.append(_Worker(reader, process, own_end))

    def _replace(self, worker: _Worker, queue: _Queue | None) -> None:
        """See to a worker that has ended: another one takes its place, and gets its rows.

        Raises:
            WorkersLost: another worker has ended before it, at the same rows or while it loaded the
                model.
        """
        worker.process.join()
        how = _ending(worker.process.exitcode)
        self._workers.remove(worker)
        worker.connection.close()
        if not worker.is_loaded:
            self._num_lost_loading += 1
            if self._num_lost_loading >= MAX_ATTEMPTS:
                raise WorkersLost(
                    f"two workers in turn {how} while they loaded the model; where memory is "
                    "short, give fewer --workers"
                )
        task = self._task_of(worker)
        if task is not None:
            task.num_attempts += 1
            if task.num_attempts >= MAX_ATTEMPTS:
                self._start(worker.reader)
                first = task.chunk.start + 1
                raise WorkersLost(
                    f"two workers in turn {how} at the rows from {first:,} on; where "
                    "memory is short, give fewer --workers or a smaller --batch-size"
                )
            if queue is not None:
                queue.waiting.appendleft(task)
        self._start(worker.reader, describes=self._described is None)


def _ending(exitcode: int | None) -> str:
    """How a process ended, in words."""
    if exitcode is not None and exitcode < 0:
        with contextlib.suppress(ValueError):
            return f"ended by {signal.Signals(-exitcode).name}"
    return f"ended with exit code {exitcode}"


@contextlib.contextmanager
def _environment_of(threads: int) -> Iterator[None]:
    """Within the block, new processes get so many threads."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Within the block, new processes are started that ignore Ctrl-C: it is their parent's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# ------------------------------------------------------------------ how many
def num_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_of_each(num_workers: int) -> int:
    """How many threads a worker gets: an even share of the cores."""
    return max(1, num_cores() // num_workers)


def devices_of_each(num_workers: int, device: str) -> list[str]:
    """A device for each worker: the graphics cards in turn, or what was named.

    Args:
        num_workers: how many there are.
        device: as torch writes it.
    """
    import torch

    if device != "cuda" or not torch.cuda.is_available():
        return [device] * num_workers
    num_cards = torch.cuda.device_count()
    return [f"cuda:{number % num_cards}" for number in range(num_workers)]
