"""What ruff does not say about style: formatter opt-outs, its own limits, and density."""

import ast
import re
import tokenize
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "palam"
CODE_FOLDERS = ("src", "tests", "benchmarks", "docs")
FILES = sorted(path for folder in CODE_FOLDERS for path in (ROOT / folder).rglob("*.py"))
OPT_OUT = re.compile(r"#\s*(?:fmt|yapf):\s*(\w+)")
LIMITS = {"C901", "E501", "PLR0913", "PLR0915"}
TOKENS_PER_LINE = 8.25
"""Names, operators and numbers per line of code, at most, in the mean over the package."""


def tokens(path: Path) -> list[tokenize.TokenInfo]:
    with path.open("rb") as file:
        return list(tokenize.tokenize(file.readline))


def density(folder: Path) -> float:
    """Names, operators and numbers per line that has any: strings and comments do not count."""
    counted = 0
    lines = 0
    for path in folder.rglob("*.py"):
        code = [
            token
            for token in tokens(path)
            if token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER)
        ]
        counted += len(code)
        lines += len({token.start[0] for token in code})
    return counted / lines


def is_literal_table(statement: ast.stmt) -> bool:
    """Whether it only gives a name to a collection of constants."""
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
        return False
    try:
        return isinstance(ast.literal_eval(statement.value), dict | list | set | tuple)
    except ValueError:
        return False


def opt_outs(path: Path) -> list[int]:
    """The lines at which the formatter is turned off, but for literal tables."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tables = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    tables = [table for table in tables if is_literal_table(table)]
    lines = []
    for token in tokens(path):
        if token.type != tokenize.COMMENT:
            continue
        match = OPT_OUT.search(token.string)
        if match is None:
            continue
        line = token.start[0]
        in_table = any(table.lineno <= line <= (table.end_lineno or 0) for table in tables)
        if match[1] != "skip" or not in_table:
            lines.append(line)
    return lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_formatter_is_turned_off_for_literal_tables_alone(path):
    assert opt_outs(path) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_limits_of_length_and_complexity_have_no_exceptions(path):
    excused = [
        (token.start[0], token.string)
        for token in tokens(path)
        if token.type == tokenize.COMMENT
        and re.search(r"#\s*noqa", token.string)
        and (":" not in token.string or set(re.findall(r"[A-Z]+\d+", token.string)) & LIMITS)
    ]
    assert excused == []


def test_ruff_checks_length_complexity_arguments_and_statements():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    ruff = settings["tool"]["ruff"]
    lint = ruff["lint"]
    assert ruff["line-length"] == 100
    assert {"C90", "E", "PLR0913", "PLR0915"} <= set(lint["select"])
    assert lint["mccabe"]["max-complexity"] <= 10
    assert lint["pylint"] == {"max-args": 8, "max-statements": 40}
    ignored = set(lint["ignore"]).union(*lint["per-file-ignores"].values())
    assert not ignored & (LIMITS | {"C90", "E", "PLR"})


def test_the_package_is_not_dense():
    assert density(PACKAGE) <= TOKENS_PER_LINE
