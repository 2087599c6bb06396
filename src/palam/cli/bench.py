"""`palam plan`, `palam bench`, `palam report` and `palam eval-harness`."""

# ruff: noqa: B008 (an option with its default is typer's own form)

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from typer import Argument, Option, echo

from palam.cli.options import CheckpointArgument, ConfigOption, Loading, load, options_of, quiet
from palam.cli.output import check_place, json_lines, opened, show, show_facts
from palam.training.config import PLAN, TrainConfig


@options_of(TrainConfig, PLAN)
def plan_command(
    rows: int = Option(10_000, help="Rows of the training data.", min=1),
    text_tokens: int = Option(64, help="Encoder tokens of a text.", min=1),
    prompt_tokens: int = Option(8, help="LLM tokens around the text.", min=0),
    answer_tokens: int = Option(4, help="LLM tokens of the answer, with its end.", min=1),
    tflops: float | None = Option(
        None,
        min=1e-6,
        help="The device's matrix rate in 10¹² operations a second; not set measures it.",
    ),
    config: ConfigOption = None,
    **options: Any,
) -> None:
    """Tell what a training run will need: memory, arithmetic, time. Loads no weights; of a model, only its config."""
    from palam.bench.plan import plan

    quiet()
    rate = None if tflops is None else tflops * 1e12
    lengths = {
        "text_tokens": text_tokens,
        "prompt_tokens": prompt_tokens,
        "answer_tokens": answer_tokens,
    }
    show_facts(plan(TrainConfig(task="demo", **options), rows=rows, rate=rate, **lengths).lines())


def bench_command(
    recipe: str = Argument(help="A YAML file, or one that the package has, e.g. starter/sib200."),
    out: Path = Option(
        Path("bench"), help="Folder of the results; what is finished there is not repeated."
    ),
    set_: list[str] = Option(
        [], "--set", help="Change a setting, e.g. data=DIR, seeds=[0], read.limit=50."
    ),
    dry_run: bool = Option(
        False, "--dry-run", help="Only say what would be run, and what it needs."
    ),
    tflops: float | None = Option(
        None, min=1e-6, help="For --dry-run: the device's matrix rate, 10¹² operations a second."
    ),
) -> None:
    """Compare methods over seeds: train each on English, read every language, keep every prediction."""
    from palam.bench.recipe import load_recipe
    from palam.bench.runner import Bench, estimate

    quiet()
    made = load_recipe(recipe, set_)
    if dry_run:
        table = Table("method", "runs", "tokens", "hours", "GiB", box=None, padding=(0, 2, 0, 0))
        for row in estimate(made, None if tflops is None else tflops * 1e12):
            figures = [
                f"{row[name]:,}" if name in row else "" for name in ("tokens", "hours", "GiB")
            ]
            table.add_row(
                row["method"],
                str(row["runs"]),
                *([row["note"], "", ""] if "note" in row else figures),
            )
        show(table)
        echo(
            "64 encoder tokens a text; 10,000 rows, unless there is a limit or the data is in a folder",
            err=True,
        )
        return
    check_place(out)
    Bench(made, out, Console(stderr=True)).run()
    echo(f"results in {out}\nnext: palam report {out}", err=True)


def report_command(
    results: Path = Argument(help="A folder that palam bench wrote."),
    latex: bool = Option(False, "--latex", help="The main table in LaTeX."),
    html: Path | None = Option(None, help="Write one self-contained page."),
    against: str | None = Option(
        None, help="Test the others against this method; not set is the recipe's."
    ),
) -> None:
    """Tell what a benchmark found: the table in Markdown, with paired tests; or as LaTeX or a page."""
    from palam.bench.report import summary
    from palam.utils.files import atomic_file
    from palam.utils.templating import render

    found = summary(results, against)
    if html is not None:
        with atomic_file(html) as file:
            file.write(render("bench.html.j2", **found).encode())
        echo(f"report: {html}", err=True)
        return
    sys.stdout.write(render("bench.tex.j2" if latex else "bench.md.j2", **found))


@options_of(Loading, {"encoder", "llm", "language", "device", "dtype", "load_in", "allow_mismatch"})
def harness_command(
    checkpoint: CheckpointArgument,
    tasks: str = Option(
        help="palam_<task> or palam_<task>_<language>, e.g. palam_xnli_sw; or the harness's own."
    ),
    data: Path | None = Option(
        None, help="Folder of <task>/<split>.<language>.jsonl; else PALAM_DATA, else the hub."
    ),
    split: str = Option("dev", help="Split of Palam's tasks."),
    limit: int | None = Option(None, help="Only the first rows of each task.", min=1),
    llm_only: bool = Option(
        False, "--direct", help="The LLM reads the text itself, without the bridge."
    ),
    batch_size: int = Option(32, help="Texts at a time.", min=1),
    json_file: Path | None = Option(None, "--json", help="Write what the harness found here."),
    samples: Path | None = Option(
        None, help="Write every row with its scores here, as JSON lines."
    ),
    config: ConfigOption = None,
    **loading: Any,
) -> None:
    """Measure a bridge with lm-evaluation-harness."""
    from palam.integrations.lm_eval import PalamLM, harness_tasks, run_harness

    for path in filter(None, (json_file, samples)):
        check_place(path)
    how = Loading(**loading)
    model = load(checkpoint, how)
    chosen = harness_tasks(tasks.split(","), model.processor.template.mode, split=split, data=data)
    lm = PalamLM(model, language=how.language, llm_only=llm_only, batch_size=batch_size)
    found = run_harness(lm, chosen, limit)
    kept = found.pop("samples", {})
    if samples is not None:
        with json_lines(samples) as (write, *_):
            for name, rows in kept.items():
                for row in rows:
                    write({"task": name, **row})
    if json_file is not None:
        with opened(json_file) as file:
            file.write(json.dumps(found, indent=2, default=str).encode() + b"\n")
    table = Table("task", "metric", "value", "standard error", box=None, padding=(0, 2, 0, 0))
    for name, metrics in found["results"].items():
        for metric, value in metrics.items():
            kind, _, rest = metric.partition(",")
            if isinstance(value, float) and not kind.endswith("_stderr"):
                error = metrics.get(f"{kind}_stderr,{rest}")
                table.add_row(
                    name, kind, f"{value:.4f}", f"{error:.4f}" if isinstance(error, float) else ""
                )
    show(table)
