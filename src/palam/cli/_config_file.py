"""What a command line does not say: options of a YAML file, then of the task that is trained on."""

from pathlib import Path

from cyclopts import App, ArgumentCollection
from cyclopts.config import Dict

from palam.utils.settings import read_settings

CONFIG_OPTION = "--config"
TRAINING_COMMANDS = ("train", "plan")
"""The commands that take a task's own settings of training."""


def apply_config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take from the file that `--config` names those options that the command line does not give.

    Args:
        app: the command `palam`.
        commands: the sub-command's name.
        arguments: the sub-command's, with what the command line gives.

    Raises:
        PalamError: a file that is not YAML, or an option that the command does not have.
    """
    config = arguments.get(CONFIG_OPTION, None)
    if config is None or not config.tokens:
        return
    path = Path(config.tokens[-1].value)
    options = [argument.name for argument in arguments if argument.name.startswith("--")]
    known = {option.lstrip("-").replace("-", "_") for option in options if option != CONFIG_OPTION}
    settings = read_settings(path, known)
    from_file = Dict(settings, source=str(path), use_commands_as_keys=False)
    from_file(app, commands, arguments)


def apply_task_settings(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take from the task that `--task` names those options that nothing else gives.

    Args:
        app: the command `palam`.
        commands: the sub-command's name.
        arguments: the sub-command's, with what the command line and the file of `--config` give.

    Raises:
        PalamError: the task has a setting that does not exist.
    """
    if not set(commands) & set(TRAINING_COMMANDS):
        return
    from palam.training.config import task_settings

    given: dict[str, str] = {}
    for argument in arguments:
        if argument.has_tokens and argument.name.startswith("--"):
            option, _, _ = argument.name.lstrip("-").partition(".")  # --fusion-options.rank
            given[option.replace("-", "_")] = argument.tokens[-1].value if argument.tokens else ""
    settings = task_settings(given)
    if settings:
        source = f"the task {given['task']}"
        from_task = Dict(settings, source=source, use_commands_as_keys=False)
        from_task(app, commands, arguments)
