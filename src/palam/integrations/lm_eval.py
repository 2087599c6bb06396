"""The model `palam` for lm-evaluation-harness, and Palam's tasks in its form. Importing it registers the model.

The harness gives contexts and continuations as text. A context is what the encoder reads; the bridge's own template is
put around it, and a continuation is scored as a label is: with its EOS, tokenised alone. So predictions equal those of
`palam evaluate`.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from palam.errors import PalamError
from palam.inference import generation as generate
from palam.inference.scoring import score_labels
from palam.models.modeling import PalamModel
from palam.tasks.loading import available, load_split, native_language
from palam.tasks.registry import TASKS, get_task
from palam.tasks.task import Task
from palam.utils.device import resolve_placement

try:
    from datasets import Dataset
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError:
    raise PalamError(
        'lm-evaluation-harness is not installed: pip install "palam[harness]"'
    ) from None

PREFIX = "palam_"


@register_model("palam")
class PalamLM(LM):  # type: ignore[misc]
    """A bridge with its base models, as the harness calls a model.

    Args:
        pretrained: folder or hub id of the checkpoint, or a loaded model.
        encoder, llm: where the base models are, if not where the checkpoint says.
        language: of all contexts, for encoders that must be told; else that of Palam's tasks is known.
        direct: the LLM reads the contexts itself.
        batch_size: contexts at a time.
        device, dtype: of the base models.
        max_batch_size: not used.
    """

    def __init__(
        self, pretrained: str | PalamModel, *, encoder: str | None = None, llm: str | None = None,
        language: str | None = None, llm_only: bool = False, batch_size: int | str = 32, device: str | None = None,
        dtype: str = "auto", max_batch_size: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if isinstance(pretrained, str):
            pretrained = PalamModel.from_pretrained(
                pretrained, encoder, llm, **resolve_placement(device, dtype)
            )
        self.model, self.language = pretrained, language
        size = int(batch_size) if str(batch_size).isdigit() else 32  # the harness may say "auto"
        self.options: dict[str, Any] = {"direct": llm_only, "batch_size": size}

    def _told(self, request: Any) -> tuple[str, str | None]:
        """The context, and its language."""
        doc = request.doc if isinstance(request.doc, dict) else {}
        return request.args[0], self.language or doc.get("palam_language")

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Each continuation's score, and whether it is the greedy answer (looked at only where it is the only one)."""
        asked: dict[tuple[str, str | None], list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            asked[self._told(request)].append(index)
        alike: dict[tuple[str, ...], list[tuple[str, str | None]]] = defaultdict(list)
        for told, indices in asked.items():
            alike[tuple(requests[index].args[1].strip() for index in indices)].append(told)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        bar = tqdm(total=len(asked), desc="reading", disable=disable_tqdm)
        for words, contexts in alike.items():
            texts, languages = map(list, zip(*contexts, strict=True))
            scores = score_labels(
                self.model, texts, words, languages, progress=bar.update, **self.options
            ).tolist()
            longest = max(len(self.model.processor.answer_ids(word)) for word in words)
            one = len(words) == 1
            said = (
                generate(self.model, texts, languages, max_new_tokens=longest, **self.options)
                if one
                else texts
            )
            for told, row, answer in zip(contexts, scores, said, strict=True):
                for index, score in zip(asked[told], row, strict=True):
                    found[index] = score, one and answer == words[0]
        bar.close()
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers, cut at the first stop; greedy unless the task says otherwise."""
        answers, alike = [""] * len(requests), defaultdict(list)
        for index, request in enumerate(requests):
            alike[json.dumps(request.args[1], sort_keys=True)].append(index)
        for asked, indices in alike.items():
            options = json.loads(asked)
            stops, most = options.pop("until", None) or [], options.pop("max_gen_toks", 256)
            options = options if options.get("do_sample") else {}
            texts, languages = map(
                list, zip(*(self._told(requests[index]) for index in indices), strict=True)
            )
            said = generate(
                self.model, texts, languages, max_new_tokens=most, **self.options, **options
            )
            for index, answer in zip(indices, said, strict=True):
                for stop in filter(None, [stops] if isinstance(stops, str) else stops):
                    answer = answer.split(stop)[0]
                answers[index] = answer
        return answers

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Not to be had.

        Raises:
            PalamError: always. A bridge reads a text and answers; of a text alone it has no likelihood.
        """
        raise PalamError(
            "a bridge has no likelihood of a text alone (loglikelihood_rolling); choose other tasks"
        )


def harness_tasks(
    names: Sequence[str], mode: str, *, split: str = "dev", data: Any = None
) -> list[str | dict[str, Any]]:
    """Names and settings of tasks, as the harness takes them.

    Args:
        names: `palam_<task>` or `palam_<task>_<language>` of Palam's registry; others are the harness's own.
        mode: the bridge's template mode, which decides what text the encoder reads.
        split, data: see [`palam.tasks.load_split`].

    Raises:
        PalamError: no such task, split or language.
    """
    found: list[str | dict[str, Any]] = []
    for name in names:
        if not name.startswith(PREFIX):
            found.append(name)
            continue
        own = name.removeprefix(PREFIX)
        task = get_task(
            max(
                (one for one in TASKS if own == one or own.startswith(f"{one}_")),
                key=len,
                default=own,
            )
        )
        code = own.removeprefix(task.name).removeprefix("_")
        there = [code] if code else available(task, data_dir=data).get(split, [])
        if not there:
            raise PalamError(
                f"{task.name} has no {split} split here; name a language, or give --split or --data"
            )
        found += [
            _harness_task(task, native_language(task, one, data_dir=data), mode, split, data)
            for one in there
        ]
    return found


def _harness_task(task: Task, language: str, mode: str, split: str, data: Any) -> dict[str, Any]:
    if task.number:
        raise PalamError(
            f"{task.name} has no labels; of Palam's tasks, those with labels are offered to the harness"
        )
    labels = list(task.labels)
    rows = [
        {
            "text": task.render(one, mode),
            "target": labels.index(one.label),
            "row": one.row,
            "palam_language": language,
        }
        for one in load_split(task, split, language, data_dir=data)
    ]
    return {
        "task": f"{PREFIX}{task.name}_{language}",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "text",
        "doc_to_target": "target",
        "doc_to_choice": list(task.labels.values()),
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }


def run_harness(
    lm: PalamLM, tasks: Sequence[str | dict[str, Any]], limit: int | None = None
) -> dict[str, Any]:
    """What the harness finds: its `results`, `samples` and the rest.

    Args:
        lm: the model.
        tasks: of [`harness_tasks`].
        limit: only the first rows of each task.

    Raises:
        PalamError: a task that the harness does not have or cannot load.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        found: dict[str, Any] = simple_evaluate(
            model=lm, tasks=list(tasks), limit=limit, bootstrap_iters=100
        )
    except (KeyError, ValueError, OSError) as error:
        raise PalamError(
            f"the harness cannot run {', '.join(map(_name, tasks))}: {error}"
        ) from None
    return found


def _name(task: str | dict[str, Any]) -> str:
    return task if isinstance(task, str) else str(task["task"])
