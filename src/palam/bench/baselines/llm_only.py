"""The LLM that reads texts itself, as it is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from palam.bench.baseline_plan import plan_llm_reading
from palam.bench.baselines.base import (
    Amounts,
    Baseline,
    BaselineInput,
    Outcome,
    Reading,
    Rows,
)
from palam.bench.plan import LABEL_TOKENS
from palam.inference.evaluation import Evaluation, evaluate
from palam.models.backbones.loading import load_tokenizer
from palam.models.model_config import ModelConfig
from palam.models.modeling import PalamModel
from palam.models.template import SLOT
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task
from palam.training.build import build_model
from palam.training.config import RuntimeConfig
from palam.training.data import TrainingData
from palam.utils.device import Placement

SHOTS = 4
"""How many English examples the LLM is shown."""
PLAIN = "plain"
"""The way that needs no examples and no chat template."""
NUM_WAYS = 3
"""In which the LLM reads the validation examples: plainly, in a chat, after examples."""


class Way(NamedTuple):
    """How the LLM is given a text."""

    mode: Literal["paper", "prompt", "chat"]
    """Of the template."""
    prompt: str | None


class LLMOnly(Baseline):
    """The LLM reads the text itself; see [`ask_llm`]."""

    def run(self, given: BaselineInput) -> Outcome:
        """See [`Baseline.run`]."""
        return ask_llm(given, given.rows)

    def readings(
        self, model: ModelConfig, placement: Placement, amounts: Amounts, num_seeds: int
    ) -> list[Reading]:
        """The LLM reads the validation examples in each way, and what is read in one."""
        return [llm_reading(model, placement, amounts)]


def ask_llm(given: BaselineInput, rows: Rows) -> Outcome:
    """The LLM reads rows: plainly, in its chat template, or after four English examples.

    The way with the highest accuracy on the English validation examples is taken. Beside raw text
    there are no such examples, and the LLM is asked as the model's configuration says.

    Args:
        given: of the run; its seed draws the examples that are shown.
        rows: what is read, in place of its own.
    """
    data = given.data
    models: dict[str, PalamModel] = {}
    for name, way in _ways(given.model, data, given.runtime).items():
        # The bridge is not used; any does.
        config = replace(
            given.model, mode=way.mode, prompt=way.prompt, fusion="mean", fusion_options={}
        )
        models[name] = build_model(config, data, given.runtime, given.load_bases())
    figures: dict[str, Any] = {"way": PLAIN}
    if data.task is not None:
        validation = {data.language: data.dev}
        accuracies = {
            name: _evaluate_llm(asked, data.task, "dev", validation, given.batch_size).macro
            for name, asked in models.items()
        }
        # In English nothing can be measured of readings; the plain way, the first, is taken then.
        best = max(accuracies, key=lambda name: accuracies[name] or 0.0)
        figures = {"way": best, "validation": accuracies}
    asked = models[figures["way"]]
    evaluation = _evaluate_llm(asked, given.task, "", rows, given.batch_size)
    return Outcome(evaluation.predictions, figures)


def llm_reading(model: ModelConfig, placement: Placement, amounts: Amounts) -> Reading:
    """What the LLM reads; the examples that it is shown are read once for all texts."""
    texts = NUM_WAYS * amounts.dev + amounts.read
    answer_tokens = amounts.answer or LABEL_TOKENS
    each = plan_llm_reading(model, placement, amounts.labels, answer_tokens=answer_tokens)
    return Reading(texts, each)


def _ways(model: ModelConfig, data: TrainingData, runtime: RuntimeConfig) -> dict[str, Way]:
    """The ways to give the LLM a text, by name; of raw text, from which it learns nothing, one."""
    if data.task is None:
        return {PLAIN: Way(model.mode, model.prompt)}
    prompt = model.prompt or data.task.prompt
    shots = sample(data.train, SHOTS, runtime.seed)
    ways = {
        PLAIN: Way("prompt", prompt),
        "chat": Way("chat", prompt),
        f"{SHOTS}-shot": Way("prompt", few_shot_prompt(data.task, prompt, shots)),
    }
    if not getattr(load_tokenizer(model.llm, model.llm_revision), "chat_template", None):
        del ways["chat"]
    return ways


def few_shot_prompt(task: Task, prompt: str, examples: Sequence[Example]) -> str:
    """A prompt in front of which examples stand, with their answers.

    Args:
        task: renders the examples' texts and answers.
        prompt: with a `{text}` slot, for the examples as for the text itself.
        examples: to be shown.
    """
    shown = ""
    for example in examples:
        asked = prompt.replace(SLOT, task.render(example))
        shown += f"{asked} {task.answer(example.label)}\n\n"
    shown = shown.replace(SLOT, "( text )")  # an example's own text may hold the slot
    return shown + prompt


def _evaluate_llm(
    model: PalamModel, task: Task, split: str, rows: Rows, batch_size: int
) -> Evaluation:
    return evaluate(model, task, split, rows, llm_only=True, batch_size=batch_size)
