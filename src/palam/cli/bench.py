"""`palam bench` and `palam report`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from palam.cli.options import quiet
from palam.cli.output import check_place, show


def bench_command(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or one that the package has, e.g. starter/sib200.")],
    out: Annotated[Path, typer.Option(help="Folder of the results; what is finished there is not repeated.")] = Path(
        "bench"
    ),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting, e.g. data=DIR, seeds=[0], read.limit=50.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be run, and what it needs.")] = False,
    tflops: Annotated[
        float | None, typer.Option(help="For --dry-run: the device's matrix rate, 10¹² operations a second.")
    ] = None,
) -> None:
    """Compare methods over seeds: train each on English, read every language, keep every prediction."""
    from palam.bench.recipe import load_recipe
    from palam.bench.run import Bench, estimate

    quiet()
    made = load_recipe(recipe, set_ or [])
    if dry_run:
        table = Table("method", "runs", "tokens", "hours", "GiB", box=None, padding=(0, 2, 0, 0))
        for row in estimate(made, None if tflops is None else tflops * 1e12):
            figures = [f"{row[name]:,}" if name in row else "" for name in ("tokens", "hours", "GiB")]
            table.add_row(row["method"], str(row["runs"]), *([row["note"], "", ""] if "note" in row else figures))
        show(table)
        return
    check_place(out)
    Bench(made, out, Console(stderr=True)).run()
    typer.echo(f"results in {out}\nnext: palam report {out}", err=True)


def report_command(
    results: Annotated[Path, typer.Argument(help="A folder that palam bench wrote.")],
    latex: Annotated[bool, typer.Option("--latex", help="The main table in LaTeX.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page.")] = None,
) -> None:
    """Tell what a benchmark found: the table in Markdown, with paired tests; or as LaTeX or a page."""
    from palam.card import render
    from palam.files import writing
    from palam.report.bench import summary

    found = summary(results)
    if html is not None:
        with writing(html) as file:
            file.write(render("bench.html.j2", **found).encode())
        typer.echo(f"report: {html}", err=True)
        return
    sys.stdout.write(render("bench.tex.j2" if latex else "bench.md.j2", **found))
