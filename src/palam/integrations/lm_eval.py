"""The model `palam` for lm-evaluation-harness, and Palam's tasks in its form.

Importing this module registers the model. The harness gives contexts and continuations as text. A
context is what the encoder reads. A row of one of Palam's tasks is asked with the template that
`palam evaluate` would take, any other with the bridge's own. A continuation is scored as a label
is: with its EOS, tokenised alone. So predictions equal those of `palam evaluate`.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

from palam.errors import PalamError
from palam.inference.batches import Progress
from palam.inference.generation import generate_about
from palam.inference.prediction import judged, most_answer_tokens
from palam.inference.reading_metrics import check_installed
from palam.inference.scoring import LabelScorer
from palam.inference.task_prompt import task_template
from palam.models.modeling import PalamModel
from palam.models.template import Template
from palam.tasks.loading import available, load_split, native_language
from palam.tasks.registry import TASKS, get_task
from palam.tasks.task import Example, Task
from palam.utils.device import resolve_placement
from palam.utils.progress import progress_bar

try:
    from datasets import Dataset
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.tasks import TaskManager
except ImportError:
    raise PalamError(
        'lm-evaluation-harness is not installed: pip install "palam[harness]"'
    ) from None

PREFIX = "palam_"
"""What the harness's names of Palam's tasks begin with."""
DEFAULT_BATCH_SIZE = 32
DEFAULT_MAX_NEW_TOKENS = 256
"""The harness's own default, where a task does not say."""

HarnessTask = str | dict[str, Any]
"""A task's name, or its settings, as the harness takes them."""


class Question(NamedTuple):
    """What the LLM is asked about a context."""

    task: str | None = None
    """One of Palam's tasks; None is a task of the harness, for which the bridge asks as its own
    template has it."""
    prompt: str | None = None
    """The task's, or the row's."""


class Context(NamedTuple):
    """What the encoder reads, and its language where that is known."""

    text: str
    language: str | None
    question: Question


class LoadingOptions(TypedDict, total=False):
    """How a checkpoint's model is loaded; every key may be left out."""

    encoder: str
    """Where the encoder is, if not where the checkpoint says."""
    second_encoder: str
    """Where the second encoder is, if the bridge has one and it is not where the checkpoint
    says."""
    llm: str
    """Where the LLM is, if not where the checkpoint says."""
    device: str | None
    """Of the base models."""
    dtype: str
    """Of the base models."""
    max_batch_size: Any
    """The harness passes it; not used."""


@register_model("palam")
class PalamLM(LM):  # type: ignore[misc]
    """A bridge with its base models, as the harness calls a model.

    Args:
        pretrained: folder or hub id of the checkpoint, or a loaded model.
        language: of all contexts, for encoders that must be told; that of Palam's tasks is known.
        llm_only: the LLM reads the contexts itself.
        batch_size: contexts at a time; `auto` is 32.
        **loading: see [`LoadingOptions`]; not used for a loaded model.
    """

    def __init__(
        self,
        pretrained: str | PalamModel,
        *,
        language: str | None = None,
        llm_only: bool = False,
        batch_size: int | str = DEFAULT_BATCH_SIZE,
        **loading: Unpack[LoadingOptions],
    ) -> None:
        super().__init__()
        if isinstance(pretrained, str):
            pretrained = _load(pretrained, **loading)
        self.model = pretrained
        self.language = language
        self.llm_only = llm_only
        self.contexts_per_batch = DEFAULT_BATCH_SIZE
        if str(batch_size).isdigit():
            self.contexts_per_batch = int(batch_size)

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Score continuations of contexts.

        Contexts with the same question and the same continuations are scored together.

        Args:
            requests: each with a context and a continuation.
            disable_tqdm: show no progress.

        Returns:
            Each continuation's score, and whether it is the greedy answer; that is looked at only
            where a context has no other continuation.
        """
        indices_by_context: dict[Context, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            indices_by_context[self._context(request)].append(index)
        scored_together: dict[tuple[Question, tuple[str, ...]], list[Context]] = defaultdict(list)
        for context, indices in indices_by_context.items():
            each_once = dict.fromkeys(_label(requests[index]) for index in indices)
            scored_together[context.question, tuple(each_once)].append(context)
        results = [(0.0, False)] * len(requests)
        with _progress("scoring", len(indices_by_context), hidden=disable_tqdm) as advance:
            for (question, labels), contexts in scored_together.items():
                all_scores = self._score(contexts, question, labels, advance)
                greedy = self._is_greedy(contexts, labels)
                for context, scores, is_greedy in zip(contexts, all_scores, greedy, strict=True):
                    score_of = dict(zip(labels, scores, strict=True))
                    for index in indices_by_context[context]:
                        results[index] = (score_of[_label(requests[index])], is_greedy)
        return results

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers to contexts, cut at the first stop; greedy unless the task says otherwise.

        Args:
            requests: each with a context and the task's decoding settings.
            disable_tqdm: not used.
        """
        indices_by_settings: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            settings = json.dumps(request.args[1], sort_keys=True)
            indices_by_settings[settings].append(index)
        answers = [""] * len(requests)
        for settings, indices in indices_by_settings.items():
            contexts = [self._context(requests[index]) for index in indices]
            generated = self._generate(contexts, json.loads(settings))
            for index, answer in zip(indices, generated, strict=True):
                answers[index] = answer
        return answers

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Not possible.

        Raises:
            PalamError: always. A bridge reads a text and answers; of a text alone it has no
                likelihood.
        """
        raise PalamError(
            "a bridge has no likelihood of a text alone (loglikelihood_rolling); choose other tasks"
        )

    def _context(self, request: Any) -> Context:
        doc = request.doc if isinstance(request.doc, dict) else {}
        language = self.language or doc.get("palam_language")
        question = Question(doc.get("palam_task"), doc.get("palam_prompt"))
        return Context(request.args[0], language, question)

    def _score(
        self,
        contexts: Sequence[Context],
        question: Question,
        labels: Sequence[str],
        advance: Progress | None,
    ) -> list[list[float]]:
        """The score of each label, for each context; all have the same question."""
        scorer = LabelScorer(
            self.model, labels, llm_only=self.llm_only, template=self._template(question)
        )
        scores = scorer.score(
            [context.text for context in contexts],
            [context.language for context in contexts],
            batch_size=self.contexts_per_batch,
            progress=advance,
        )
        by_context: list[list[float]] = scores.tolist()
        return by_context

    def _is_greedy(self, contexts: Sequence[Context], labels: Sequence[str]) -> list[bool]:
        """Whether the only label is the greedy answer, for each context."""
        if len(labels) > 1:
            return [False] * len(contexts)
        (label,) = labels
        max_new_tokens = len(self.model.processor.answer_ids(label))
        answers = self._answers(contexts, max_new_tokens=max_new_tokens)
        return [answer == label for answer in answers]

    def _generate(self, contexts: Sequence[Context], settings: dict[str, Any]) -> list[str]:
        """Answers, each cut at the first of the stops that the settings name."""
        stops = settings.pop("until", None) or []
        if isinstance(stops, str):
            stops = [stops]
        max_new_tokens = settings.pop("max_gen_toks", DEFAULT_MAX_NEW_TOKENS)
        sampling = settings if settings.get("do_sample") else {}
        answers = self._answers(contexts, max_new_tokens=max_new_tokens, **sampling)
        return [_cut(answer, stops) for answer in answers]

    def _answers(self, contexts: Sequence[Context], **generate_kwargs: Any) -> list[str]:
        questions = {context.question for context in contexts}
        templates = {question: self._template(question) for question in questions}
        return generate_about(
            self.model,
            [context.text for context in contexts],
            [templates[context.question] for context in contexts],
            [context.language for context in contexts],
            llm_only=self.llm_only,
            batch_size=self.contexts_per_batch,
            **generate_kwargs,
        )

    def _template(self, question: Question) -> Template:
        """What stands around the contexts that are asked this question."""
        if question.task is None or question.prompt is None:
            return self.model.processor.template
        return task_template(self.model, get_task(question.task), question.prompt)


def _progress(
    description: str, total: int, *, hidden: bool
) -> AbstractContextManager[Progress | None]:
    return nullcontext() if hidden else progress_bar(description, total)


def _load(checkpoint: str, **loading: Unpack[LoadingOptions]) -> PalamModel:
    placement = resolve_placement(loading.get("device"), loading.get("dtype", "auto"))
    return PalamModel.from_pretrained(
        checkpoint,
        loading.get("encoder"),
        loading.get("llm"),
        second_encoder=loading.get("second_encoder"),
        **placement,
    )


def _label(request: Any) -> str:
    """The continuation to score."""
    label: str = request.args[1].strip()
    return label


def _cut(answer: str, stops: Iterable[str]) -> str:
    for stop in stops:
        if stop:
            answer = answer.split(stop)[0]
    return answer


def harness_tasks(
    names: Iterable[str], mode: str, *, split: str = "dev", data: Path | None = None
) -> list[HarnessTask]:
    """Tasks as the harness takes them.

    Args:
        names: `palam_<task>` or `palam_<task>_<language>` of Palam's registry; others are the
            harness's own.
        mode: the bridge's template mode, which decides what text the encoder reads.
        split, data: see [`load_split`].

    Raises:
        PalamError: no such task, split or language, or a package that is needed is missing.
    """
    tasks: list[HarnessTask] = []
    for name in names:
        if not name.startswith(PREFIX):
            tasks.append(name)
            continue
        named = NamedTask.parse(name)
        for language in named.languages(split, data):
            tasks.append(_harness_task(named.task, language, mode, split, data))
    return tasks


class NamedTask(NamedTuple):
    """One of Palam's tasks as the harness names it."""

    task: Task
    language: str
    """A code; empty is all that there are."""

    @classmethod
    def parse(cls, name: str) -> "NamedTask":
        """From `palam_<task>` or `palam_<task>_<language>`.

        Raises:
            PalamError: no such task.
        """
        name = name.removeprefix(PREFIX)
        matching = []
        for task_name in TASKS:
            if name == task_name or name.startswith(f"{task_name}_"):
                matching.append(task_name)
        longest = max(matching, key=len, default=name)
        language = name.removeprefix(longest).removeprefix("_")
        return cls(get_task(longest), language)

    def languages(self, split: str, data: Path | None) -> list[str]:
        """The task's own codes of the languages that are meant.

        Raises:
            PalamError: no such language or split.
        """
        codes = [self.language]
        if not self.language:
            codes = available(self.task, data_dir=data).get(split, [])
        if not codes:
            raise PalamError(
                f"{self.task.name} has no {split} split here; name a language, "
                "or give --split or --data"
            )
        return [native_language(self.task, code, data_dir=data) for code in codes]


def _harness_task(
    task: Task, language: str, mode: str, split: str, data: Path | None
) -> dict[str, Any]:
    """A task in one language: of multiple choice, or one whose answers are generated."""
    rows = []
    for example in load_split(task, split, language, data_dir=data):
        row = {
            "text": task.render(example, mode),
            "row": example.row,
            "palam_language": language,
            "palam_task": task.name,
            "palam_prompt": task.prompt_of(example),
            **_answer_of(task, example),
        }
        rows.append(row)
    metrics, options = _generated(task) if task.has_free_answers else _multiple_choice(task)
    return {
        "task": f"{PREFIX}{task.name}_{language}",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "doc_to_text": "text",
        "doc_to_target": "target",
        "target_delimiter": "",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in metrics
        ],
        "metadata": {"version": 1.0},
        **options,
    }


def _answer_of(task: Task, example: Example) -> dict[str, Any]:
    """A row's right answer, and what a free answer is judged by."""
    if not task.has_free_answers:
        return {"target": list(task.labels).index(example.label)}
    return {"target": example.label, "fields": json.dumps(example.fields)}


def _multiple_choice(task: Task) -> tuple[list[str], dict[str, Any]]:
    """The metric and the settings of a task with labels."""
    options = {"output_type": "multiple_choice", "doc_to_choice": list(task.labels.values())}
    return ["acc"], options


def _generated(task: Task) -> tuple[list[str], dict[str, Any]]:
    """The metrics and the settings of a task whose answers are generated.

    Raises:
        PalamError: a package that its answers are measured with is missing.
    """
    if not task.number:
        check_installed()

    def measured(doc: Mapping[str, Any], answers: Sequence[str]) -> dict[str, float]:
        example = Example(doc["row"], json.loads(doc["fields"]), doc["target"])
        language = doc["palam_language"]
        prediction = judged(task, example, doc["text"], answers[0], language)
        if not task.reference_language:
            return {"acc": float(prediction["prediction"] == prediction["label"])}
        found = {"content_word_recall": prediction["recall"], "chrf": prediction["chrf"]}
        return {name: value for name, value in found.items() if value is not None}

    metrics = ["content_word_recall", "chrf"] if task.reference_language else ["acc"]
    options = {
        "output_type": "generate_until",
        "generation_kwargs": {
            "until": [] if task.number else ["\n"],
            "max_gen_toks": most_answer_tokens(task),
            "do_sample": False,
        },
        "process_results": measured,
    }
    return metrics, options


def run_harness(
    lm: PalamLM, tasks: Sequence[HarnessTask], limit: int | None = None
) -> dict[str, Any]:
    """Run the harness.

    Args:
        lm: the model.
        tasks: of [`harness_tasks`].
        limit: only the first rows of each task.

    Returns:
        The harness's own `results`, `samples` and the rest.

    Raises:
        PalamError: a task that the harness does not have or cannot load.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # To index the harness's own tasks takes longer than to read some hundred texts.
    names_own_task = any(isinstance(task, str) for task in tasks)
    try:
        results: dict[str, Any] = simple_evaluate(
            model=lm,
            tasks=list(tasks),
            limit=limit,
            bootstrap_iters=100,
            task_manager=TaskManager(include_defaults=names_own_task),
        )
    except (KeyError, ValueError, OSError) as error:
        names = ", ".join(_name(task) for task in tasks)
        raise PalamError(f"the harness cannot run {names}: {error}") from None
    return results


def _name(task: HarnessTask) -> str:
    if isinstance(task, Mapping):
        return str(task["task"])
    return task
