"""What a map solved from each layer and each fusion explains: a table and a page with bars."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from palam.card import public_name, render
from palam.files import writing

if TYPE_CHECKING:
    from palam.settings import TrainSettings

Rows = list[dict[str, Any]]


def probe_table(rows: Rows) -> Table:
    """For the terminal: layers and fusions down, in percent, on held-out tokens."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "variance explained, %", "nearest token right, %"):
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        table.add_row(row["name"], f"{100 * row['r2']:.1f}", f"{100 * row['nearest']:.1f}")
    return table


def write_probe(rows: Rows, settings: "TrainSettings", path: Path) -> None:
    """Write the page.

    Args:
        rows: of [`palam.align.probe`].
        settings: whose models were compared.
        path: of the file.
    """
    bases = [public_name(base) for base in (settings.encoder, settings.llm)]
    page = render("probe.html.j2", rows=rows, bases=bases, normalize=settings.normalize)
    with writing(path) as file:
        file.write(page.encode(errors="replace"))
