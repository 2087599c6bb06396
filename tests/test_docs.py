"""The pages' code runs, their commands parse, their links lead somewhere.

Python blocks run page by page, in order, in an empty folder, with tiny models in place of the named
ones.
"""

import doctest
import importlib
import json
import os
import pkgutil
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

import palam
from palam.bench.recipe_file import load_recipe
from palam.cli.main import COMMANDS, app, run
from palam.models.backbones import loading
from palam.models.registry import FUSIONS, MAPPERS
from palam.tasks.registry import TASKS
from palam.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
RUN_WHOLE = ("letters.md", "paper_table.md")
"""Of these pages the commands run too, after one another."""
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def page_id(page):
    """Its name from the project's folder."""
    return page.relative_to(ROOT).as_posix()


page_by_page = pytest.mark.parametrize("page", PAGES, ids=page_id)
TINY = {
    "starter:encoder": "bert",
    "starter:llm": "llama",
    "intfloat/multilingual-e5-small": "bert",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "llama",
    "google/mt5-large": "mt5",
}
FORBIDDEN = re.compile(
    r"pypi\.\w|pythonhosted|(?<![\w.~-])/(?:work|root|home|tmp|opt|Users)\b", re.IGNORECASE
)
SHELL_OPERATORS = set("|&;<>")
QUICK = {
    "train": ("--max-steps", "2", "--device", "cpu", "--dtype", "fp32"),
    "bench": ("--set", "train.max_steps=2", "--set", "seeds=[0]", "--set", "read.limit=7"),
}
"""What pages that run whole add to their commands, so that they take seconds."""


def blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def prose(page):
    """The page without its code blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def split_at_operators(line):
    """The words of each command of a shell line: `a | b > c` are three."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    parts = [[]]
    for token in lexer:
        if set(token) <= SHELL_OPERATORS:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def commands(page):
    """The arguments of every `palam ...` in the page's bash blocks, also within a pipe."""
    result = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for words in split_at_operators(line):
                if "palam" in words:
                    result.append(words[words.index("palam") + 1 :])
    return result


def parse(arguments):
    """What the command's function would be called with."""
    _, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    return bound.arguments


def parse_train(arguments):
    """The configuration of a `palam train`."""
    parsed = parse(arguments)
    names = ("model", "data", "optim", "runtime")
    return TrainConfig(**{name: parsed[name] for name in names if name in parsed})


def fusions_of_diffs(page):
    """The fusions that the page's diffs add to the registry: no command here knows them."""
    diffs = "\n".join(blocks(page, "diff"))
    return set(re.findall(r'^\+ +"(\w+)": "palam\.models\.fusion', diffs, re.MULTILINE))


def slugs(page):
    """The anchors that the page's headings get."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def lines_without_figures(text):
    """The lines with words and no digits, but for those of tables with frames."""
    return {
        " ".join(line.split())
        for line in text.splitlines()
        if re.search(r"\w", line) and not re.search(r"\d|[│┃]", line)
    }


@pytest.fixture
def registries():
    """What a page registers is gone after it."""
    entries = [FUSIONS._entries, MAPPERS._entries, TASKS]
    before = [dict(mapping) for mapping in entries]
    yield
    for mapping, content in zip(entries, before, strict=True):
        mapping.clear()
        mapping.update(content)


@pytest.fixture
def tiny_starters(base_folder, monkeypatch):
    """Tiny models in the place of the named ones."""

    def resolve(name):
        return str(base_folder(TINY[name])) if name in TINY else name

    monkeypatch.setattr(loading, "resolve", resolve)


def test_there_are_pages_with_code_and_commands():
    names = {page.name for page in PAGES}
    assert {"CONTRIBUTING.md", "CHANGELOG.md", "method.md", "guide.md"} <= names
    guide = ROOT / "docs" / "guide.md"
    assert len(blocks(guide, "python")) >= 4
    named = {arguments[0] for arguments in commands(guide)}
    assert named >= {"train", "evaluate", "classify", "generate", "inspect"}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in RUN_WHOLE], ids=page_id
)
def test_python_blocks_run(page, base_folder, registries, tiny_starters, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": f"page_{page.stem}"}
    for block in blocks(page, "python"):
        code = block
        for name, family in TINY.items():  # where transformers itself is asked for a model
            folder = str(base_folder(family))
            code = code.replace(f'.from_pretrained("{name}")', f".from_pretrained({folder!r})")
        exec(compile(code, f"{page.name}: {block.splitlines()[0]}", "exec"), scope)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name in RUN_WHOLE], ids=page_id)
def test_whole_pages_run(page, tiny_starters, monkeypatch, tmp_path, capsys):
    """Code, files and commands in their order; they print the lines that the page shows.

    Of these, lines with digits depend on the models.
    """
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": f"page_{page.stem}"}
    text = page.read_text(encoding="utf-8")
    printed = ""
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(block, page.name, "exec"), scope)
        elif language == "yaml":
            Path(re.match(r"# ([\w-]+\.yaml)\n", block)[1]).write_text(block, encoding="utf-8")
        elif language == "bash":
            for line in block.splitlines():
                name, *arguments = shlex.split(line)[1:]
                assert run([name, *arguments, *QUICK.get(name, ())]) == 0, line
        elif language == "text":
            wanted = lines_without_figures(block)
            assert wanted
            assert wanted <= lines_without_figures(printed)
        printed += "".join(capsys.readouterr())


def make_input(name):
    """An empty file of this name; for a folder, one in it; a pattern is of such."""
    if name.endswith("/"):
        Path(name).mkdir(exist_ok=True)
        name += "part-0.parquet"
    if "*" not in name:
        Path(name).touch()


@page_by_page
def test_commands_parse_and_their_settings_are_valid(page, registries, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALAM_API_KEY", "a key")  # as the page has it in front of `palam serve`
    for block in blocks(page, "yaml"):
        name = re.match(r"# ([\w-]+\.yaml)\n", block)
        if name:
            Path(name[1]).write_text(block, encoding="utf-8")
    for name, *arguments in commands(page):
        if name.startswith("-") or fusions_of_diffs(page) & set(arguments):
            continue
        for option, value in pairwise(arguments):
            if option in ("--file", "--text-file", "--prompts-file") and value != "-":
                make_input(value)
        if name == "train":
            parse_train([name, *arguments])
            continue
        parsed = parse([name, *arguments])
        if name == "bench":
            recipe = parsed["recipe"]
            in_project = ROOT / recipe
            load_recipe(
                str(in_project) if in_project.is_file() else recipe, parsed.get("changes", ())
            )


def test_the_table_of_settings_is_the_papers_command_and_the_defaults():
    page = ROOT / "docs" / "method.md"
    paper = parse_train(commands(page)[0]).settings()
    defaults = parse_train(["train", "--task", "demo", "--out", "bridge"]).settings()
    table = prose(page).split("| setting |")[1]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    assert len(rows) > 10
    for setting, in_paper, default in rows:
        for shown, value in ((in_paper, paper[setting]), (default, defaults[setting])):
            if value is None:
                assert shown.startswith("not set")
            else:
                assert type(value)(shown) == value, setting


@pytest.fixture(scope="module")
def known_options():
    names = {"--help", "--version"}
    for name in COMMANDS:
        for argument in app[name].assemble_argument_collection():
            names.update(argument.names)
    return names


@page_by_page
def test_options_in_the_text_exist(page, known_options):
    text = prose(page)
    for table in re.findall(r"^ *\| before \|.*?\n\n", text, re.MULTILINE | re.DOTALL):
        text = text.replace(table, re.sub(r"^ *\|[^|]*\|", "|", table, flags=re.MULTILINE))
    named = re.findall(r"`(?:palam [^`]*?)?(--[a-z][a-z0-9-]*)", text)
    assert set(named) <= known_options


@page_by_page
def test_links_lead_somewhere(page):
    text = prose(page)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    targets += re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    for target in targets:
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert ROOT in [linked, *linked.parents], target
        if anchor:
            assert anchor in slugs(linked), target


def test_the_page_of_commands_has_all_of_them():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    shown = re.findall(r"^## palam ([\w-]+)\n\n```\{palam-help\} \1\n```$", page, re.MULTILINE)
    assert shown == list(COMMANDS)


@pytest.mark.parametrize("repository", ["https://example.org/palam", None])
def test_the_long_description_has_no_relative_link(repository):
    long_description = runpy.run_path(str(ROOT / "setup.py"))["long_description"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = long_description(readme, repository, "1.2.3")
    assert re.search(r"\]\((?!https?:|#)", text) is None
    if repository:
        assert "](https://example.org/palam/raw/v1.2.3/docs/architecture.svg)" in text
        assert "[docs/guide.md](https://example.org/palam/blob/v1.2.3/docs/guide.md)" in text
    else:
        assert "architecture.svg" not in text
        assert "| docs/guide.md |" in text


def test_the_reference_lists_every_public_name_every_room_and_modules_that_exist():
    folder = ROOT / "docs" / "api"
    pages = {page.stem: page.read_text(encoding="utf-8") for page in folder.glob("*.md")}
    modules = {module.name for module in pkgutil.walk_packages(palam.__path__, "palam.")}
    for text in pages.values():
        listed = re.findall(r"^\.\. automodule:: ([\w.]+)$", text, re.MULTILINE)
        assert set(listed) <= modules
    rooms = {module.name for module in pkgutil.iter_modules(palam.__path__) if module.ispkg}
    assert pages.keys() == {"index", *rooms}
    names = re.findall(r"^\.\. auto\w+:: palam\.(\w+)$", pages["index"], re.MULTILINE)
    assert sorted(names) == sorted(palam._HOMES)


@pytest.mark.parametrize(
    "path",
    [
        *PAGES,
        *(ROOT / name for name in (".ci/run", "Makefile", "CITATION.cff", "docs/architecture.svg")),
    ],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_no_registry_hosts_or_absolute_paths(path):
    assert FORBIDDEN.findall(path.read_text(encoding="utf-8")) == []


@page_by_page
def test_no_page_holds_a_doctest(page):
    """They would run without the tiny models."""
    assert ">>>" not in page.read_text(encoding="utf-8")


def test_the_guides_error_messages_are_the_programs():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # a message over several lines
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    table = guide.split("| the line contains |")[1]
    quoted = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(quoted) > 10
    assert [message for message in quoted if message not in source] == []


def test_the_picture_stands_alone():
    tree = ET.parse(ROOT / "docs" / "architecture.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    assert tree.find(f"{name}title").text.strip()
    assert tree.find(f"{name}desc").text.strip()
    foreign = {f"{name}image", f"{name}script", f"{name}foreignObject"}
    assert not [element for element in tree.iter() if element.tag in foreign]


def apply(diff, root):
    """Apply a page's diff: each hunk's old lines stand in the file exactly once."""
    head, *hunks = re.split(r"^@@\n", diff, flags=re.MULTILINE)
    path = root / re.search(r"^\+\+\+ (.+)$", head, re.MULTILINE)[1]
    text = path.read_text(encoding="utf-8")
    for hunk in hunks:
        lines = hunk.splitlines()
        old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
        new = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
        assert text.count(old) == 1, f"{path.name}: {old}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


class ProjectCopy(NamedTuple):
    """A copy of the project with the page's fusion."""

    folder: Path
    fusion: str
    run: Callable[..., str]
    """Runs a Python module in it, which must succeed, and returns what it prints."""


@pytest.fixture
def project_with_fusion(tmp_path):
    page = ROOT / "CONTRIBUTING.md"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    code = next(block for block in blocks(page, "python") if block.startswith("# src/"))
    heading, module = code.split("\n", 1)
    (tmp_path / heading.removeprefix("# ")).write_text(module, encoding="utf-8")
    for diff in blocks(page, "diff"):
        apply(diff, tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return ProjectCopy(tmp_path, Path(heading).stem, run)


def test_the_contributors_fusion_passes_the_tests(project_with_fusion):
    """The page's file and diffs, judged by the project's own tests and linter."""
    name, run = project_with_fusion.fusion, project_with_fusion.run
    tests = (
        "tests/models/fusion",
        "tests/models/test_bridge.py",
        "tests/models/test_checkpoint.py",
    )
    shown = run("pytest", "-p", "no:cacheprovider", "-k", f"{name} or variants", *tests)
    assert int(re.search(r"(\d+) passed", shown)[1]) > 10, shown
    changed = ("src/palam/models/registry.py", "src/palam/models/fusion", "tests/models/fusion")
    run("ruff", "check", "--no-cache", *changed)
    run("ruff", "format", "--no-cache", "--check", *changed)


def test_the_contributors_fusion_takes_its_option_from_the_command(
    project_with_fusion, base_folder
):
    folder, name, run = project_with_fusion
    arguments = commands(ROOT / "CONTRIBUTING.md")[-1]
    assert name in arguments
    bases = ("--encoder", base_folder("bert"), "--llm", base_folder("llama"))
    run("palam", *arguments, *bases, "--max-steps", 2, "--device", "cpu", "--dtype", "fp32")
    out = arguments[arguments.index("--out") + 1]
    config = json.loads((folder / out / "config.json").read_text(encoding="utf-8"))
    assert config["fusion"] == name
    assert config["fusion_options"]["factor"] == 0.5


def test_the_examples_in_docstrings_are_right():
    modules = pkgutil.walk_packages(palam.__path__, "palam.")
    results = [doctest.testmod(importlib.import_module(module.name)) for module in modules]
    assert sum(result.attempted for result in results) > 0
    assert sum(result.failed for result in results) == 0
