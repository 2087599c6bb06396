"""The command: `palam`. A user's mistake is one line on standard error and exit code 2, never a traceback."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.main import get_command

from palam.errors import PalamError

# typer carries its own click in newer releases; its public BadParameter leads to the base class in all.
ClickException: Any = typer.BadParameter.__mro__[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments (default: the process's) and exit."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 2 for a user's mistake, 130 after Ctrl-C."""
    from palam.cli.app import app

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = get_command(app)
        with command.make_context("palam", given or ["--help"]) as context:
            command.invoke(context)  # not `main`, which would make an exit code of a Ctrl-C
        sys.stdout.flush()
        return 0
    except PalamError as error:
        return _fail(str(error))
    except ClickException as error:
        where = getattr(error, "ctx", None)
        return _fail(error.format_message() + (f" (see {where.command_path} --help)" if where else ""))
    except typer.Exit as stop:
        return int(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort) as stop:
        print(f"palam: stopped{f'; {stop}' if str(stop) else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # e.g. `palam classify ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")


def _fail(message: str) -> int:
    print(f"palam: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
