"""How help looks: one column of options, one of what they mean; plain text, also in a pipe."""

import textwrap
from typing import Any, get_origin

from cyclopts.help import HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions

OPTION_WIDTH = 24
"""Width of the first column; a longer name stands on a line of its own."""
MAX_WIDTH = 100
OBVIOUS_DEFAULTS = ("False", "{}", "()")
"""What a flag, a mapping and a list are when they are not given."""
NO_BREAK_SPACE = "\xa0"


class CompactHelp:
    """Formats the help pages of all commands."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a group of options or commands under its title."""
        if not panel.entries:
            return
        names = [_name(entry) for entry in panel.entries]
        column = OPTION_WIDTH
        if panel.format == "command":
            column = max(len(name) for name in names)
        lines = [f"\n{panel.title}:"]
        for name, entry in zip(names, panel.entries, strict=True):
            lines += _two_columns(name, _meaning(entry), column, _width(console))
        _print(console, "\n".join(lines))

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print how the command is called."""
        _print(console, f"Usage: {usage}".rstrip())

    def render_description(
        self, console: Console, options: ConsoleOptions, description: Any
    ) -> None:
        """Print what the command does, a paragraph after an empty line."""
        for paragraph in _plain(description).split("\n\n"):
            _print(console, "\n" + textwrap.fill(paragraph, _width(console)))


def _name(entry: HelpEntry) -> str:
    """An option with its value's kind, e.g. `--lr FLOAT`, or a command."""
    names = ", ".join(entry.display_labels_with_metavar)
    return f"{names}.NAME VALUE" if get_origin(entry.type) is dict else names


def _meaning(entry: HelpEntry) -> str:
    """What an option means, its choices and its default."""
    parts = [" ".join(_plain(entry.description).split())]
    if entry.choices:
        parts.append(f"[choices: {', '.join(entry.choices)}]")
    if entry.default is not None and entry.default not in OBVIOUS_DEFAULTS:
        parts.append(f"[default:{NO_BREAK_SPACE}{entry.default}]")
    if entry.required:
        parts.append("[required]")
    return " ".join(parts)


def _two_columns(name: str, meaning: str, column: int, width: int) -> list[str]:
    """The lines of one entry: the name at the left, the meaning wrapped at the right of it."""
    indent = " " * (column + 4)
    lines = textwrap.wrap(
        meaning,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines = [line.replace(NO_BREAK_SPACE, " ") for line in lines]
    if not lines or len(name) > column:
        return [f"  {name}", *lines]
    first_line = f"  {name}".ljust(len(indent)) + lines[0].lstrip()
    return [first_line, *lines[1:]]


def _width(console: Console) -> int:
    return min(console.width, MAX_WIDTH)


def _plain(description: Any) -> str:
    """The text of a description, which comes wrapped for rich."""
    return str(getattr(description, "primary_renderable", description) or "").strip()


def _print(console: Console, text: str) -> None:
    # Not by the console: when a pipe is closed, rich ends the program with its own exit code.
    print(text, file=console.file)
