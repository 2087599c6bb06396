"""Several names in one option."""

from typing import Annotated, Any

from cyclopts import Parameter, Token


def _split_names(_: Any, tokens: tuple[Token, ...]) -> list[str]:
    """The names in a comma-separated text, or in a configuration file's list, each once."""
    texts = [token.value for token in tokens]
    if tokens[-1].source == "cli":  # of an option that is given twice, the last counts
        texts = texts[-1:]
    names = [name.strip() for name in ",".join(texts).split(",")]
    return [name for name in dict.fromkeys(names) if name]


NameList = Annotated[list[str] | None, Parameter(converter=_split_names, metavar="A,B")]
"""Of an option: its names with commas between them, or a YAML list."""
