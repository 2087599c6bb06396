"""The command: its sub-commands, and what becomes of a mistake.

A user's mistake is one line on standard error and exit code 2, never a traceback. A sub-command's
module is imported when it is needed, and what it needs (torch, transformers) when it runs, so that
help and the answer to a typo are immediate.
"""

import contextlib
import errno
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError

from palam import __version__
from palam.cli._config_file import apply_config_file, apply_task_settings
from palam.cli._help import CompactHelp
from palam.errors import PalamError
from palam.utils.memory import is_out_of_memory
from palam.utils.processes import check_single_process, claims_report
from palam.utils.texts import printable

COMMANDS = {
    "quickstart": "palam.cli.quickstart:quickstart",
    "check": "palam.cli.check:check",
    "train": "palam.cli.train:train",
    "pretrain": "palam.cli.pretrain:pretrain",
    "lexicon": "palam.cli.lexicon:lexicon",
    "align": "palam.cli.align:align",
    "soup": "palam.cli.soup:soup",
    "plan": "palam.cli.plan:plan",
    "evaluate": "palam.cli.evaluate:evaluate",
    "classify": "palam.cli.classify:classify",
    "generate": "palam.cli.generate:generate",
    "chat": "palam.cli.chat:chat",
    "shards": "palam.cli.shards:shards",
    "serve": "palam.cli.serve:serve",
    "demo": "palam.cli.demo:demo",
    "bench": "palam.cli.bench:bench",
    "report": "palam.cli.report:report",
    "eval-harness": "palam.cli.eval_harness:eval_harness",
    "inspect": "palam.cli.inspect:inspect",
    "push": "palam.cli.push:push",
    "info": "palam.cli.info:info",
}

OF_SEVERAL_PROCESSES = ("train", "pretrain")
"""The commands that torchrun and accelerate may start."""

app = App(
    name="palam",
    help="A bridge from a multilingual encoder to an English LLM: train on English, read every "
    "language.",
    version=f"palam {__version__}",
    help_format="plaintext",
    help_formatter=CompactHelp(),
    group_parameters=Group("Options", sort_key=0),
    # No --no-<flag> and --empty-<list>; of an option that is given twice, the last counts.
    default_parameter=Parameter(negative_bool=(), negative_iterable=(), allow_repeating=True),
    config=(apply_config_file, apply_task_settings),
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
for position, (name, function) in enumerate(COMMANDS.items()):
    app.command(function, name=name, sort_key=position)
app.register_install_completion_command(help="Install completion for this shell.")
app["--help"].help = "Show this help."
app["--version"].help = "Show the version."


STANDARD_STREAMS = (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))
"""How each is opened where the process has none: what is written to such an output is an error."""
MAX_MESSAGE = 1000
"""So many characters of a mistake are shown; it may hold a text from anyone's file."""


class Terminated(KeyboardInterrupt):
    """The process is asked to end (SIGTERM); it cleans up as after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments (default: the process's) and exit."""
    _prepare_streams()
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0 or what the command returns, 2 for a user's mistake, 130 after Ctrl-C, 143
        after SIGTERM.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # When it is imported, it reports kernels that it cannot find.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if not tokens or tokens[0] in app.help_flags:
        app.resolved_commands()  # the list of commands shows the first line of each docstring
    try:
        _check_processes(tokens)
        result = app(tokens)
        if sys.stdout is not None:
            sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (PalamError, CycloptsError) as error:
        return _fail(_describe(error))
    except KeyboardInterrupt as stop:
        return _stopped(stop)
    except BrokenPipeError:  # e.g. `palam classify ... | head`
        _give_up_output()
        return 0
    except OSError as error:
        return _fail(_describe_system_error(error))
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return _fail("memory does not suffice: a smaller --batch-size needs less")
        if claims_report():
            raise
        return 1  # another process ended the run, and has said why


def _check_processes(tokens: Sequence[str]) -> None:
    """Refuse a command that was started in several processes and is of one."""
    if tokens and tokens[0] not in OF_SEVERAL_PROCESSES:
        check_single_process(f"palam {tokens[0]}")


def _terminate(*_: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # let it clean up
    raise Terminated


def _prepare_streams() -> None:
    """Open the standard streams that are closed, and write what an output's encoding lacks."""
    for name, mode in STANDARD_STREAMS:
        stream = getattr(sys, name)
        if stream is None:
            descriptor = os.open(os.devnull, mode)
            direction = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(descriptor, direction, encoding="utf-8"))
        elif name == "stdout" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _give_up_output() -> None:
    """Let what is left of the standard output vanish: it cannot be written."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stopped(stop: KeyboardInterrupt) -> int:
    """Say that the command was stopped, and how to go on; returns the exit code."""
    separator = " " if str(stop).startswith("after ") else "; "
    advice = f"{separator}{stop}" if str(stop) else ""
    if claims_report():
        print(f"palam: stopped{advice}", file=sys.stderr)
    return 143 if Terminated in (type(stop), type(stop.__context__)) else 130


def _describe_system_error(error: OSError) -> str:
    """What the system could not do, and with which file."""
    reason = str(error.strerror or error)
    if error.filename:
        return f"{reason}: {error.filename}"
    if error.errno in (errno.EBADF, errno.ENOSPC, errno.EIO):
        _give_up_output()
        return f"standard output cannot be written: {reason}"
    return reason


def _describe(error: PalamError | CycloptsError) -> str:
    """What is wrong; with a command line, also whose help says what would be right."""
    if isinstance(error, PalamError):
        return str(error)
    if isinstance(error, MissingArgumentError) and error.argument and not error.keyword:
        message = f"{error.argument.name} is missing"
    elif isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        message = f"unexpected argument {error.unused_tokens[0]!r}"
    else:
        message = str(error).partition(" Available commands:")[0].removesuffix(".")
    command = " ".join(["palam", *(error.command_chain or ())])
    return f"{message} (see {command} --help)"


def _fail(message: str) -> int:
    line = printable(" ".join(message.split()))  # it may hold names from a checkpoint or a file
    if len(line) > MAX_MESSAGE:
        line = f"{line[:MAX_MESSAGE]}…"
    if claims_report():
        print(f"palam: error: {line}", file=sys.stderr)
    return 2
