"""Answers that wait for a place: which are next, and what they ask for."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from palam.inference.generation import default_guidance
from palam.inference.temperature import is_greedy
from palam.models.guidance_scale import NO_GUIDANCE
from palam.models.modeling import PalamModel
from palam.serving.answers import RunningAnswer
from palam.serving.best_of import BestOfJob, NumberedSampler
from palam.serving.bridges import ServedBridge
from palam.serving.errors import RequestError, failure_of, timed_out
from palam.serving.jobs import AnswerJob, Failed, Started
from palam.serving.limits import ServeLimits
from palam.serving.prompts import Prompt, PromptBuilder
from palam.serving.sampling import Sampler, SamplingOptions, TokenChooser


@dataclass(frozen=True, eq=False)
class _Asked:
    """How one bridge's requests are prepared."""

    model: PalamModel
    prompts: PromptBuilder
    own_ids: list[int]
    """What the LLM reads around a text in the bridge's own template, with the text's slot."""
    stop_ids: frozenset[int]
    decode: Callable[[list[int]], str]


class AnswerQueue:
    """Answers that have no place yet, of all bridges, in the order in which they came.

    Args:
        bridges: by name.
        limits: of the server.
        positions: most positions of a prompt and its answer, if an engine has fewer than the LLM.
        can_guide: whether answers can be guided, or be the best of several.
    """

    def __init__(
        self,
        bridges: Mapping[str, ServedBridge],
        limits: ServeLimits,
        positions: int | None = None,
        *,
        can_guide: bool = True,
    ) -> None:
        self._limits = limits
        self._positions = positions
        self._can_guide = can_guide
        self._waiting: deque[AnswerJob] = deque()
        self._bridges = {name: _asked(bridge.model) for name, bridge in bridges.items()}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: AnswerJob) -> None:
        """Take a job into the queue."""
        self._waiting.append(job)

    def drop_dead(self) -> None:
        """Let those go whose client has gone, or whose time is over."""
        alive: deque[AnswerJob] = deque()
        for job in self._waiting:
            if job.is_cancelled:
                continue
            if job.is_late:
                job.deliver(Failed(timed_out()))
            else:
                alive.append(job)
        self._waiting = alive

    def fail_all(self, error: RequestError) -> None:
        """Tell all clients that nothing more comes."""
        for job in self._waiting:
            job.deliver(Failed(error))
        self._waiting.clear()

    def take(self, places: int) -> list[RunningAnswer]:
        """The first answers that can be read together: of one bridge, within the token budget.

        Their clients are told that they have begun; those whose prompts are refused are told so.

        Args:
            places: most answers; one that is the best of several may take more.
        """
        answers: list[RunningAnswer] = []
        longest = 0
        rows = 0
        while self._waiting and len(answers) < places:
            job = self._waiting[0]
            if answers and job.bridge != answers[0].job.bridge:
                break
            own = self._prepared(job)
            if not own:
                self._waiting.popleft()
                continue
            longest = max(longest, own[0].prompt.length)
            rows += sum(answer.num_rows for answer in own)
            if answers and longest * rows > self._limits.batch_tokens:
                break
            self._waiting.popleft()
            answers += own
        for answer in answers:
            started = Started(answer.prompt.length, answer.prompt.cut_texts)
            answer.job.deliver(started)
        return answers

    def _prepared(self, job: AnswerJob) -> list[RunningAnswer]:
        """A job's answers with their prompt: one, or several of which the best is given.

        There are none if it was refused.
        """
        bridge = self._bridges[job.bridge]
        try:
            prompt = bridge.prompts.build(job.messages, job.language)
            max_new_tokens = self._max_new_tokens(bridge.model, prompt, job.max_new_tokens)
            scale = self._guidance_scale(bridge, prompt, job.sampling)
            asked = self._asked_of(bridge.model, job, prompt)
        except Exception as error:
            job.deliver(Failed(failure_of(error)))
            return []
        return [
            RunningAnswer(
                own_job, prompt, max_new_tokens, bridge.stop_ids, bridge.decode, scale, sampler
            )
            for own_job, sampler in asked
        ]

    def _asked_of(
        self, model: PalamModel, job: AnswerJob, prompt: Prompt
    ) -> list[tuple[AnswerJob, TokenChooser]]:
        """What is asked of the LLM for a job: jobs of one answer each, and who chooses its tokens.

        Raises:
            RequestError: the best of several answers is asked for, and cannot be had.
        """
        count = job.sampling.best_of
        if count == 1:
            return [(job, Sampler(job.sampling))]
        if not self._can_guide:
            raise RequestError(
                "the engine of this server gives one answer to a text; leave best_of out",
                param="best_of",
            )
        parts = BestOfJob(model, job, prompt).parts
        return [(part, NumberedSampler(number, count)) for number, part in enumerate(parts)]

    def _guidance_scale(self, bridge: _Asked, prompt: Prompt, sampling: SamplingOptions) -> float:
        """How an answer is guided: as is asked for, or as `palam generate` does it.

        Raises:
            RequestError: guidance is asked for, and cannot be had.
        """
        wanted = sampling.guidance_scale
        if wanted is None:
            is_own = prompt.input_ids == bridge.own_ids
            if is_own and self._can_guide and is_greedy(sampling.temperature):
                return default_guidance(bridge.model)
            return NO_GUIDANCE
        if wanted == NO_GUIDANCE:
            return wanted
        if not self._can_guide:
            raise RequestError(
                "the engine of this server cannot guide answers; leave guidance_scale out",
                param="guidance_scale",
            )
        if not prompt.texts or not prompt.without_texts().input_ids:
            raise RequestError(
                "guidance needs a text that is read through the bridge, and a prompt around it",
                param="guidance_scale",
            )
        return wanted

    def _max_new_tokens(self, model: PalamModel, prompt: Prompt, wanted: int | None) -> int:
        """How long an answer may become.

        Raises:
            RequestError: a prompt that is too long or empty, or leaves no room for the answer.
        """
        most = self._limits.max_text_tokens
        longest = max(prompt.length, prompt.longest_text)
        if longest > most:
            raise RequestError(
                f"the prompt or a text has {longest} tokens; this server reads {most} at most",
                code="context_length_exceeded",
            )
        if prompt.length == 0:
            raise RequestError("there is nothing to read: the texts are empty")
        limits = [model.processor.llm_positions, self._positions]
        positions = min((limit for limit in limits if limit is not None), default=None)
        limit = self._limits.max_new_tokens
        if positions is None:
            return wanted or limit
        room = positions - prompt.length
        if room < (wanted or 1):
            raise RequestError(
                f"the LLM has {positions} positions; the prompt takes {prompt.length} and the "
                f"answer up to {wanted or 1}",
                code="context_length_exceeded",
            )
        return wanted or min(limit, room)


def _asked(model: PalamModel) -> _Asked:
    tokenizer = model.processor.llm_tokenizer

    def decode(ids: list[int]) -> str:
        text: str = tokenizer.decode(ids, skip_special_tokens=True)
        return text

    prompts = PromptBuilder(model)
    own_ids = prompts.own_prompt("").input_ids
    return _Asked(model, prompts, own_ids, frozenset(model.stop_ids()), decode)
