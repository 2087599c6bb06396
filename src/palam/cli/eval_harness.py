"""`palam eval-harness`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.types import PositiveInt
from rich.table import Table

from palam.cli._options import (
    LOADING_DEFAULTS,
    Checkpoint,
    ConfigFile,
    LoadingOptions,
    NameList,
    check_language,
    load_model,
)
from palam.cli._output import (
    check_apart,
    check_writable,
    open_output,
    open_rows,
    print_table,
    write_json,
)


@dataclass(frozen=True, kw_only=True)
class HarnessDataConfig:
    """What the bridge is measured on."""

    tasks: NameList
    """palam_<task> or palam_<task>_<language>, e.g. palam_xnli_sw; or the harness's own."""
    data: Path | None = None
    """Folder of <task>/<split>.<language>.jsonl; else PALAM_DATA, else the hub."""
    split: str = "dev"
    """Split of Palam's tasks."""
    limit: PositiveInt | None = None
    """Only the first rows of each task."""
    language: str | None = None
    """Language of the texts, e.g. si or sin_Sinh; NLLB-style encoders need it."""


@dataclass(frozen=True, kw_only=True)
class HarnessFiles:
    """Where results are written."""

    json_file: Annotated[Path | None, Parameter(name="--json")] = None
    """Write the harness's results here."""
    samples: Path | None = None
    """Write every row with its scores here, as JSON lines."""


HarnessDataOptions = Annotated[
    HarnessDataConfig, Parameter(name="*", group=Group("Data", sort_key=-1))
]
HarnessResultOptions = Annotated[
    HarnessFiles, Parameter(name="*", group=Group("Results", sort_key=2))
]
NO_FILES = HarnessFiles()


def eval_harness(
    checkpoint: Checkpoint,
    /,
    *,
    data: HarnessDataOptions,
    llm_only: bool = False,
    batch_size: PositiveInt = 32,
    config: ConfigFile = None,
    results: HarnessResultOptions = NO_FILES,
    loading: LoadingOptions = LOADING_DEFAULTS,
) -> None:
    """Measure a bridge with lm-evaluation-harness.

    Args:
        llm_only: The LLM reads the text itself, without the bridge.
        batch_size: Texts at a time.
    """
    from palam.integrations.lm_eval import PalamLM, harness_tasks, run_harness

    outputs = (results.json_file, results.samples)
    check_apart(outputs)
    for path in outputs:
        if path is not None:
            check_writable(path)
    model = load_model(checkpoint, loading)
    check_language(model, data.language)
    mode = model.processor.template.mode
    tasks = harness_tasks(data.tasks or (), mode, split=data.split, data=data.data)
    lm = PalamLM(model, language=data.language, llm_only=llm_only, batch_size=batch_size)
    found = run_harness(lm, tasks, data.limit)
    _write_results(found, results)
    print_table(_table(found["results"]))


def _write_results(found: dict[str, Any], files: HarnessFiles) -> None:
    """Write the rows and the rest to the files that are asked for."""
    samples = found.pop("samples", {})
    if files.samples is not None:
        with open_rows(files.samples) as output:
            for task, rows in samples.items():
                for row in rows:
                    output.write({"task": task, **row})
    if files.json_file is not None:
        with open_output(files.json_file) as file:
            write_json(file, found)


def _table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Every metric of every task, with its standard error where there is one."""
    table = Table("task", "metric", "value", "standard error", box=None, padding=(0, 2, 0, 0))
    for task, metrics in results.items():
        for key, value in metrics.items():
            metric, _, metric_filter = key.partition(",")
            if not isinstance(value, float) or metric.endswith("_stderr"):
                continue
            error = metrics.get(f"{metric}_stderr,{metric_filter}")
            shown_error = f"{error:.4f}" if isinstance(error, float) else ""
            table.add_row(task, metric, f"{value:.4f}", shown_error)
    return table
