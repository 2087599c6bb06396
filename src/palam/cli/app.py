"""The commands, wired together."""

import typer

from palam.cli.bench import bench_command, report_command
from palam.cli.learn import align_command, plan_command, quickstart_command, train_command
from palam.cli.read import classify_command, evaluate_command, generate_command
from palam.cli.show import info_command, inspect_command

app = typer.Typer(
    name="palam",
    help="A bridge from a multilingual encoder to an English LLM: train on English, read every language.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("quickstart", short_help="Try it: models, training, reading, report.")(quickstart_command)
app.command("train", short_help="Train a bridge on English.")(train_command)
app.command("align", short_help="Solve a bridge without training; compare layers and fusions.")(align_command)
app.command("plan", short_help="What a training run will need.")(plan_command)
app.command("evaluate", short_help="Measure a bridge on a task, by language.")(evaluate_command)
app.command("classify", short_help="Label texts.")(classify_command)
app.command("generate", short_help="Let the LLM answer freely about texts.")(generate_command)
app.command("bench", short_help="Compare methods over seeds, from a recipe.")(bench_command)
app.command("report", short_help="Tell what a benchmark found.")(report_command)
app.command("inspect", short_help="Show how much each encoder layer counts.")(inspect_command)
app.command("info", short_help="Describe this installation, or a bridge.")(info_command)
