"""The commands, wired together."""

import typer

from palam.cli.learn import quickstart_command, train_command
from palam.cli.read import classify_command, evaluate_command, generate_command
from palam.cli.show import info_command, inspect_command

app = typer.Typer(
    name="palam",
    help="A bridge from a multilingual encoder to an English LLM: train on English, read every language.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("quickstart")(quickstart_command)
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("classify")(classify_command)
app.command("generate")(generate_command)
app.command("inspect")(inspect_command)
app.command("info")(info_command)
