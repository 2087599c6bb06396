"""What a bridge is compared with: the most frequent label, and the LLM that reads texts itself."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from palam.inference.evaluation import Evaluation, evaluate
from palam.inference.prediction import Prediction
from palam.models.backbones.loading import load_tokenizer
from palam.models.bases import Bases
from palam.models.model_config import ModelConfig
from palam.models.modeling import PalamModel
from palam.models.template import SLOT
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task
from palam.training.build import build_model
from palam.training.config import RuntimeConfig
from palam.training.data import TrainingData

SHOTS = 4
"""How many English examples the LLM is shown."""
PLAIN = "plain"
"""The way that needs no examples and no chat template."""

Rows = dict[str, list[Example]]
"""What is read, by language."""


class Outcome(NamedTuple):
    """What a method came to."""

    predictions: list[Prediction]
    """Of all languages, one after the other."""
    figures: dict[str, Any]
    """What was chosen on the validation examples and measured on the way: fields and details of a
    [`Cell`]."""


def majority(data: TrainingData, rows: Rows) -> Outcome:
    """The most frequent label of the training data, for every text.

    Args:
        data: whose training examples are counted.
        rows: what is read.
    """
    counts = Counter(example.label for example in data.train)
    [(label, _)] = counts.most_common(1)
    predictions = [
        Prediction(language=code, row=example.row, label=example.label, prediction=label)
        for code, examples in rows.items()
        for example in examples
    ]
    return Outcome(predictions, {"label": label})


class Way(NamedTuple):
    """How the LLM is given a text."""

    mode: Literal["paper", "prompt", "chat"]
    """Of the template."""
    prompt: str | None


def llm_only(
    model: ModelConfig,
    runtime: RuntimeConfig,
    bases: Bases,
    data: TrainingData,
    task: Task,
    rows: Rows,
    *,
    batch_size: int,
) -> Outcome:
    """The LLM reads the text itself: plainly, in its chat template, or after four English examples.

    The way with the highest accuracy on the English validation examples is taken. Beside raw text
    there are no such examples, and the LLM is asked as the model's configuration says.

    Args:
        model: whose LLM reads, and whose prompt is taken; None is the task's.
        runtime: device and dtype; its seed draws the examples that are shown.
        bases: the loaded base models.
        data: of the training task: examples to show and to validate on; or raw text.
        task: that is read.
        rows: what is read.
        batch_size: texts at a time.
    """
    models: dict[str, PalamModel] = {}
    for name, way in _ways(model, data, runtime).items():
        # The bridge is not used; any does.
        config = replace(model, mode=way.mode, prompt=way.prompt, fusion="mean", fusion_options={})
        models[name] = build_model(config, data, runtime, bases)
    figures: dict[str, Any] = {"way": PLAIN}
    if data.task is not None:
        validation = {data.language: data.dev}
        accuracies = {
            name: _evaluate_llm(asked, data.task, "dev", validation, batch_size).macro
            for name, asked in models.items()
        }
        # In English nothing can be measured of readings; the plain way, the first, is taken then.
        best = max(accuracies, key=lambda name: accuracies[name] or 0.0)
        figures = {"way": best, "validation": accuracies}
    evaluation = _evaluate_llm(models[figures["way"]], task, "", rows, batch_size)
    return Outcome(evaluation.predictions, figures)


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
