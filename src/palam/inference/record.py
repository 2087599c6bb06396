"""Keeping an evaluation's results with its checkpoint, for its model card."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from palam.errors import PalamError
from palam.inference.evaluation import Evaluation
from palam.models.card_results import LanguageRecord, merged_records, with_results
from palam.models.checkpoint import CHECKPOINT_MARKER, RESULTS_FILE
from palam.models.configuration import PalamConfig
from palam.models.model_card import CARD, local_name, model_name
from palam.tasks.registry import TASKS
from palam.utils.files import atomic_directory
from palam.utils.locks import output_lock

RECORDS = "evaluations"
"""The results' name in that file."""
FIGURES = ("chrf", "identified", "likeliest")
"""What is kept of a reading beside its content-word recall."""


def record_results(checkpoint_folder: str | os.PathLike[str], evaluation: Evaluation) -> None:
    """Add an evaluation's results to a checkpoint: to `results.json` and to its card.

    They take the place of earlier results of the same task, split and language. Both files change
    at once, or neither does; all else in the folder stays.

    Args:
        checkpoint_folder: the checkpoint that was evaluated.
        evaluation: of it, through the bridge.

    Raises:
        PalamError: no folder with a checkpoint (a hub id cannot be written to), or one whose
            results or card are damaged.
    """
    check_recordable(checkpoint_folder)
    folder = Path(checkpoint_folder)
    new = records_of(evaluation)
    with output_lock(folder):
        results = _read_results(folder / RESULTS_FILE)
        records = merged_records(results.get(RECORDS, []), new)
        results[RECORDS] = records
        card = ""
        if (folder / CARD).is_file():
            card = (folder / CARD).read_text(encoding="utf-8")
        config = PalamConfig.from_pretrained(folder)
        card = with_results(card, new, records, model_name(config))
        with atomic_directory(folder, marker=CHECKPOINT_MARKER) as aside:
            shutil.copytree(folder, aside, dirs_exist_ok=True)
            content = json.dumps(results, indent=2) + "\n"
            (aside / RESULTS_FILE).write_text(content, encoding="utf-8")
            (aside / CARD).write_text(card, encoding="utf-8")


def check_recordable(checkpoint_folder: str | os.PathLike[str]) -> None:
    """Refuse a place where no results can be recorded.

    Raises:
        PalamError: it is no folder with a checkpoint.
    """
    if not (Path(checkpoint_folder) / CHECKPOINT_MARKER[0]).is_file():
        raise PalamError(
            f"{checkpoint_folder} is no folder with a checkpoint; results are recorded in one, "
            "not on the hub"
        )


def records_of(evaluation: Evaluation) -> list[LanguageRecord]:
    """An evaluation's results, one a language."""
    task = TASKS.get(evaluation.task)
    dataset = evaluation.task
    if task is not None and task.hub is not None:
        dataset = task.hub.id
    records = []
    for language, result in evaluation.to_report()["results"].items():
        if evaluation.measure not in result:  # nothing to read: all words stand in the text
            continue
        record = LanguageRecord(
            task=evaluation.task,
            dataset=dataset,
            split=local_name(evaluation.split),  # a file, if it is no split
            language=language,
            n=result["n"],
            accuracy=result[evaluation.measure],
            ci95=list(result["ci95"]),
        )
        if evaluation.decoding:
            record["decoding"] = dict(evaluation.decoding)
        if evaluation.is_reading:
            record["measure"] = "content-word recall"
            record["figures"] = {name: result[name] for name in FIGURES if name in result}
            rows = evaluation.of_language(language)
            record["answers"] = [str(row["prediction"]) for row in rows]
        if result.get("macro_f1") is not None:
            record["macro_f1"] = result["macro_f1"]
        records.append(record)
    return records


def _read_results(path: Path) -> dict[str, Any]:
    """The content of a `results.json`; empty if there is none.

    Raises:
        PalamError: it is damaged.
    """
    try:
        results = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        results = None
    if not isinstance(results, dict) or not isinstance(results.get(RECORDS, []), list):
        raise PalamError(f"{path} is damaged; remove it to record results anew")
    return results
