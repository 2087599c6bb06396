"""`palam bench`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveFloat
from rich.table import Table

from palam.cli._options import silence_libraries
from palam.cli._output import check_writable, print_table

if TYPE_CHECKING:
    from palam.bench.recipe import Recipe


def bench(
    recipe: str,
    /,
    *,
    out: Path = Path("bench"),
    changes: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    dry_run: bool = False,
    tflops: PositiveFloat | None = None,
) -> None:
    """Compare methods over seeds, from a recipe.

    Each method is trained on English and reads every language; every prediction is kept.

    Args:
        recipe: A YAML file, or one that the package has, e.g. starter/sib200.
        out: Folder of the results; what is finished there is not repeated.
        changes: Change a setting, e.g. data=DIR, seeds=[0], read.limit=50.
        dry_run: Only show what would be run, and what it needs.
        tflops: For --dry-run: the device's matrix rate, 10¹² operations a second.
    """
    from rich.console import Console

    from palam.bench.recipe_file import load_recipe
    from palam.bench.runner import Bench
    from palam.training.place import run_place

    silence_libraries()
    loaded = load_recipe(recipe, changes)
    if dry_run:
        _print_estimate(loaded, tflops)
        return
    check_writable(out)
    with run_place(out):
        Bench(loaded, out, Console(stderr=True)).run()
    print(f"results in {out}\nnext: palam report {out}", file=sys.stderr)


def _print_estimate(recipe: "Recipe", tflops: float | None) -> None:
    from palam.bench.estimate import estimate

    table = Table("method", "runs", "tokens", "hours", "GiB", box=None, padding=(0, 2, 0, 0))
    for row in estimate(recipe, None if tflops is None else tflops * 1e12):
        cells = [row.method, str(row.runs)]
        if row.note is not None:
            table.add_row(*cells, row.note)
        else:
            table.add_row(*cells, f"{row.tokens:,}", f"{row.hours:,}", f"{row.gib:,}")
    print_table(table)
    print(
        "hours: training, and all that each method reads; 64 encoder tokens a text; 10,000 rows to "
        "train on and 1,000 a language to read, unless there is a limit or the data is in a folder",
        file=sys.stderr,
    )
