"""The directive `palam-help`: what `palam [COMMAND] --help` prints."""

import contextlib
import io
import os
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from palam.cli.main import run

WIDTH = "88"


def help_text(command: str | None) -> str:
    """The help of a sub-command, or of `palam` itself."""
    os.environ["COLUMNS"] = WIDTH
    arguments = ["--help"] if command is None else [command, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        code = run(arguments)
    if code != 0:
        raise ValueError(f"there is no command {command!r}")
    return output.getvalue()


class PalamHelp(Directive):
    """Shows the help of one command."""

    optional_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """See `Directive.run`."""
        text = help_text(self.arguments[0] if self.arguments else None)
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("palam-help", PalamHelp)
    return {"parallel_read_safe": True}
