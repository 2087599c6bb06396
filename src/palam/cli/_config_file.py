"""`--config`: a YAML file with any of a command's options."""

from pathlib import Path

from cyclopts import App, ArgumentCollection
from cyclopts.config import Dict

from palam.utils.settings import read_settings

CONFIG_OPTION = "--config"


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
