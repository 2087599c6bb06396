"""The engine: one thread that owns the models, and reads what arrives together together.

Between two steps of the answers that run, new ones join, finished and cancelled ones leave, and one
batch of classifications is scored. So one long answer holds the others up for a step at most.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence

from palam.serving.answering import AnswerScheduler
from palam.serving.bridges import ServedBridge
from palam.serving.classifying import Classifier
from palam.serving.engine_answering import EngineAnswers
from palam.serving.errors import RequestError, failure_of, server_error, shutting_down
from palam.serving.jobs import AnswerJob, ClassifyJob, Failed, Job, LayersJob
from palam.serving.layer_reading import LayerReader
from palam.serving.limits import ServeLimits
from palam.serving.observer import Observer

LONGEST_RETRY = 60
"""Seconds after which a client is told to come back, at most."""
SMOOTHING = 0.1
"""How much the last request counts in the mean time that one takes."""


class Engine:
    """Answers jobs of any number of threads.

    Args:
        bridges: that can be asked. If their models have a `token_engine`, which then is one for
            all, it makes the free answers.
        limits: of the server.
        observer: is told of batches and tokens.
    """

    def __init__(
        self,
        bridges: Sequence[ServedBridge],
        limits: ServeLimits | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.bridges = {bridge.name: bridge for bridge in bridges}
        self.limits = limits or ServeLimits()
        self._observer = observer or Observer()
        answers = EngineAnswers if bridges[0].model.token_engine else AnswerScheduler
        self._answers = answers(self.bridges, self.limits, self._observer)
        self._classifier = Classifier(self.bridges, self.limits, self._observer)
        self._layers = LayerReader(self.bridges)
        self._inbox: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._stop_now = threading.Event()
        self._seconds_per_job = 0.0
        self._thread = threading.Thread(target=self._run, name="palam-engine", daemon=True)

    # ------------------------------------------------------------------ for any thread
    def warm_up(self) -> None:
        """Do what would hold up the first requests; before `start`."""
        self._classifier.warm_up()

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether it takes jobs."""
        return self._thread.is_alive() and not self._closing

    @property
    def num_waiting(self) -> int:
        """Jobs that have no place yet."""
        queues = (self._answers, self._classifier, self._layers)
        return len(self._inbox) + sum(queue.num_waiting for queue in queues)

    @property
    def num_running(self) -> int:
        """Answers that are being made."""
        return self._answers.num_running

    def submit(self, job: Job) -> None:
        """Take a job; what comes of it is told by its `deliver`.

        Raises:
            RequestError: the queue is full, or the engine is closing.
        """
        with self._changed:
            if self._closing:
                raise shutting_down()
            waiting = self.num_waiting
            if waiting >= self.limits.max_queue:
                raise server_error(
                    f"{waiting} requests are waiting already; try again later",
                    status=429,
                    code="queue_full",
                    retry_after=self._retry_after(waiting),
                )
            self._inbox.append(job)
            self._changed.notify()

    def close(self, seconds: float = 0.0) -> None:
        """Take no more jobs; those that are here have so many seconds, the others are told."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if not self._thread.is_alive():
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._stop_now.set()
            self._thread.join()

    def finished(self, seconds: float) -> None:
        """Note how long a job took, from its submission; see `Retry-After`."""
        before = self._seconds_per_job or seconds
        self._seconds_per_job = before + SMOOTHING * (seconds - before)

    def _retry_after(self, waiting: int) -> int:
        rounds = waiting / self.limits.max_batch
        seconds = math.ceil(rounds * self._seconds_per_job)
        return min(max(1, seconds), LONGEST_RETRY)

    # ------------------------------------------------------------------ in its own thread
    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._advance()
        finally:
            self._fail_all(shutting_down())

    def _advance(self) -> None:
        """One round; an error that nobody expected costs the jobs at hand, not the engine."""
        try:
            self._take_jobs()
            self._answers.advance()
            self._classifier.advance()
            self._layers.advance()
        except Exception as error:
            self._observer.batch_failed("engine", error)
            self._fail_jobs(failure_of(error))

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; False when the engine is to stop."""
        was_idle = False
        with self._changed:
            while not (self._inbox or self._has_work):
                if self._closing:
                    return False
                was_idle = True
                self._changed.wait()
        if was_idle:
            time.sleep(self.limits.batch_wait)  # for those that arrive with the first
        return not self._stop_now.is_set()

    @property
    def _has_work(self) -> bool:
        waiting = self._classifier.num_waiting + self._layers.num_waiting
        return self._answers.has_work or waiting > 0

    def _take_jobs(self) -> None:
        """Give the jobs that have arrived to those who do them."""
        while self._inbox:
            job = self._inbox.popleft()
            if isinstance(job, AnswerJob):
                self._answers.add(job)
            elif isinstance(job, ClassifyJob):
                self._classifier.add(job)
            elif isinstance(job, LayersJob):
                self._layers.add(job)

    def _fail_all(self, error: RequestError) -> None:
        """Tell all clients that nothing more comes."""
        with self._changed:
            self._closing = True
            jobs = list(self._inbox)
            self._inbox.clear()
        for job in jobs:
            job.deliver(Failed(error))
        self._fail_jobs(error)

    def _fail_jobs(self, error: RequestError) -> None:
        """The same for the jobs that were begun."""
        self._answers.fail_all(error)
        self._classifier.fail_all(error)
        self._layers.fail_all(error)
