"""The command: `palam`. A user's mistake is one line on standard error and exit code 2, never a traceback."""

import os
import sys
from collections.abc import Sequence

import typer

from palam.errors import PalamError

# typer carries its own click in newer releases; its public BadParameter leads to the base class in all.
ClickException = typer.BadParameter.__mro__[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments (default: the process's) and exit."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 2 for a user's mistake, 130 after Ctrl-C."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from palam.cli.app import app

    _quiet()
    try:
        result = app(args=list(arguments) if arguments is not None else None, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except PalamError as error:
        return _fail(str(error))
    except ClickException as error:
        return _fail(str(error.format_message()))  # type: ignore[attr-defined]
    except typer.Exit as stop:
        return int(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("palam: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # e.g. `palam classify ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")


def _fail(message: str) -> int:
    print(f"palam: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _quiet() -> None:
    """Silence what the libraries print on their own; our own bars and lines say what goes on."""
    from huggingface_hub.utils import disable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
