"""`palam align`."""

import sys
from pathlib import Path

from rich.table import Column, Table

from palam.cli._options import (
    MODEL_DEFAULTS,
    RUNTIME_DEFAULTS,
    ConfigFile,
    DataOptions,
    ModelOptions,
    RuntimeOptions,
    silence_libraries,
)
from palam.cli._output import check_writable, print_table
from palam.training.config import DataConfig


def align(
    *,
    out: Path | None = None,
    config: ConfigFile = None,
    data: DataOptions = None,
    model: ModelOptions = MODEL_DEFAULTS,
    runtime: RuntimeOptions = RUNTIME_DEFAULTS,
) -> None:
    """Solve a bridge without training; compare layers.

    The bridge is solved in closed form from English text: that of a task, of a file of your own,
    or raw. Every layer of the encoder and every fusion is compared on a sample of it.

    Args:
        out: The checkpoint's folder; not set only compares layers and fusions.
    """
    data = data or DataConfig()
    if out is not None:
        check_writable(out)
    from rich.console import Console

    from palam.training.align_run import run_alignment

    silence_libraries()
    results = run_alignment(model, data, runtime, out, console=Console(stderr=True))
    names = ("variance explained, %", "nearest token right, %")
    columns = [Column(name, justify="right") for name in names]
    table = Table("", *columns, box=None, padding=(0, 2, 0, 0))
    for row in results["probe"]:
        explained = f"{100 * row['r2']:.1f}"
        nearest = f"{100 * row['nearest_token_accuracy']:.1f}"
        table.add_row(row["name"], explained, nearest)
    print_table(table)
    if out is None:
        return
    solved = results["solved"]
    print(
        f"{model.fusion}, from {solved['tokens']} tokens: {solved['r2']:.1%} of the variance "
        f"explained, {solved['nearest_token_accuracy']:.1%} of the nearest tokens right",
        file=sys.stderr,
    )
    print(f"saved to {out}", file=sys.stderr)
