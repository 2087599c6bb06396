"""The command: `palam`. A user's mistake is one line on standard error and exit code 2, never a traceback."""

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.main import get_command

from palam.cli.bench import bench_command, harness_command, plan_command, report_command
from palam.cli.learn import align_command, quickstart_command, train_command
from palam.cli.read import classify_command, evaluate_command, generate_command
from palam.cli.show import info_command, inspect_command
from palam.errors import PalamError

# typer carries its own click in newer releases; its public BadParameter leads to the base class in all.
ClickException: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="palam",
    help="A bridge from a multilingual encoder to an English LLM: train on English, read every language.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("quickstart", short_help="Try it: models, training, reading, report.")(
    quickstart_command
)
app.command("train", short_help="Train a bridge on English.")(train_command)
app.command("align", short_help="Solve a bridge without training; compare layers and fusions.")(
    align_command
)
app.command("plan", short_help="What a training run will need.")(plan_command)
app.command("evaluate", short_help="Measure a bridge on a task, by language.")(evaluate_command)
app.command("classify", short_help="Label texts.")(classify_command)
app.command("generate", short_help="Let the LLM answer freely about texts.")(generate_command)
app.command("bench", short_help="Compare methods over seeds, from a recipe.")(bench_command)
app.command("report", short_help="Tell what a benchmark found.")(report_command)
app.command("eval-harness", short_help="Measure a bridge with lm-evaluation-harness.")(
    harness_command
)
app.command("inspect", short_help="Show how much each encoder layer counts.")(inspect_command)
app.command("info", short_help="Describe this installation, or a bridge.")(info_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments (default: the process's) and exit."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 2 for a user's mistake, 130 after Ctrl-C."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # When it is imported, it tells of kernels that it could do with.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
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
        return _fail(
            error.format_message() + (f" (see {where.command_path} --help)" if where else "")
        )
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
