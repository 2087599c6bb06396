"""`palam report`."""

import sys
from pathlib import Path


def report(
    results: Path, /, *, latex: bool = False, html: Path | None = None, against: str | None = None
) -> None:
    """Report the results of a benchmark.

    Prints a Markdown table with paired tests, or its LaTeX form, or writes a page.

    Args:
        results: A folder that palam bench wrote.
        latex: Print the main table in LaTeX.
        html: Write one self-contained page.
        against: Test the others against this method; not set is the recipe's.
    """
    from palam.bench.report import render_summary, summary
    from palam.utils.files import atomic_file

    found = summary(results, against)
    if html is not None:
        with atomic_file(html) as file:
            file.write(render_summary(found, "html").encode())
        print(f"report: {html}", file=sys.stderr)
        return
    sys.stdout.write(render_summary(found, "tex" if latex else "md"))
