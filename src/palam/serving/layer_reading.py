"""What the bridge read: how much each of the encoder's layers counts for each token of a text."""

from collections import deque
from collections.abc import Mapping

from palam.inference.layer_weights import LayerView
from palam.serving.bridges import ServedBridge
from palam.serving.errors import RequestError, failure_of, timed_out
from palam.serving.jobs import Failed, LayersJob, LayersRead
from palam.serving.prompts import PromptBuilder


class LayerReader:
    """The engine's layer views, one text at a time. All of it runs in the engine's thread.

    Args:
        bridges: by name.
    """

    def __init__(self, bridges: Mapping[str, ServedBridge]) -> None:
        self._bridges = bridges
        self._jobs: deque[LayersJob] = deque()

    @property
    def num_waiting(self) -> int:
        """Texts that are to be read."""
        return len(self._jobs)

    def add(self, job: LayersJob) -> None:
        """Take a job into the queue."""
        self._jobs.append(job)

    def advance(self) -> None:
        """Read one text."""
        if not self._jobs:
            return
        job = self._jobs.popleft()
        if job.is_cancelled:
            return
        if job.is_late:
            job.deliver(Failed(timed_out()))
            return
        try:
            job.deliver(self._read(job))
        except Exception as error:
            job.deliver(Failed(failure_of(error)))

    def fail_all(self, error: RequestError) -> None:
        """Tell all clients that nothing more comes."""
        for job in self._jobs:
            job.deliver(Failed(error))
        self._jobs.clear()

    def _read(self, job: LayersJob) -> LayersRead:
        model = self._bridges[job.bridge].model
        if model.config.llm_only:
            raise RequestError("this bridge is not used: its LLM reads texts itself", param="model")
        prompts = PromptBuilder(model)
        prompts.check_language(job.language)
        text = prompts.alone(job.text)
        view = LayerView.of(model, text, job.language)
        return LayersRead(view.tokens, view.shares.tolist(), prompts.measure(text).is_cut)
