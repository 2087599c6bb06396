"""The pages hold what they say: their code runs, their commands parse, their links lead somewhere.

Python blocks run page by page, in order, in an empty folder, with tiny models in place of the named ones.
"""

import doctest
import importlib
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import fields
from pathlib import Path

import pytest
import typer

import palam
from palam import starter
from palam.bench.recipe import load_recipe
from palam.cli import app
from palam.models.fusion import FUSIONS, Fusion
from palam.models.mapper import MAPPERS
from palam.tasks.registry import TASKS
from palam.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")] if page.is_file())
page_by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
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


def blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def prose(page):
    return re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )


def commands(page):
    """The arguments of every `palam ...` in the page's bash blocks, also in the middle of a pipe."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            part = []
            for token in [*lexer, ";"]:
                if set(token) <= set("|&;<>"):
                    if "palam" in part:
                        found.append(part[part.index("palam") + 1 :])
                    part = []
                else:
                    part.append(token)
    return found


def slugs(page):
    """The anchors that the page's headings get."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def registries():
    """What a page registers is gone after it."""
    before = [(registry, dict(registry)) for registry in (FUSIONS, MAPPERS, TASKS)]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


def test_there_are_pages_with_code_and_commands():
    assert {"CONTRIBUTING.md", "CHANGELOG.md", "method.md", "guide.md"} <= {
        page.name for page in PAGES
    }
    guide = ROOT / "docs" / "guide.md"
    assert len(blocks(guide, "python")) >= 4
    assert {arguments[0] for arguments in commands(guide)} >= {
        "train",
        "evaluate",
        "classify",
        "generate",
        "inspect",
    }


@page_by_page
def test_python_blocks_run(page, base_folder, registries, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        starter, "resolve", lambda name: str(base_folder(TINY[name])) if name in TINY else name
    )
    scope = {"__name__": f"page_{page.stem}"}
    for block in blocks(page, "python"):
        for name, family in TINY.items():  # where transformers itself is asked for a model
            block = block.replace(
                f'.from_pretrained("{name}")', f".from_pretrained({str(base_folder(family))!r})"
            )
        exec(compile(block, f"{page.name}: {block.splitlines()[0]}", "exec"), scope)


@page_by_page
def test_commands_parse_and_their_settings_are_valid(page, registries, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for diff in blocks(page, "diff"):  # names that the page registers
        FUSIONS.update(
            dict.fromkeys(re.findall(r'^\+    "(\w+)": \w+,$', diff, re.MULTILINE), Fusion)
        )
    for block in blocks(page, "yaml"):
        if name := re.match(r"# ([\w-]+\.yaml)\n", block):
            Path(name[1]).write_text(block, encoding="utf-8")
    group = typer.main.get_command(app)
    with group.make_context("palam", ["info"]) as context:
        for name, *arguments in commands(page):
            if name == "--help":
                continue
            command = group.get_command(context, name)
            assert command is not None, f"palam {name}"
            if "--help" in arguments:
                continue
            with command.make_context(name, arguments, parent=context) as parsed:
                if name == "train":
                    own = {"out", "resume", "config"}
                    TrainConfig(
                        **{key: value for key, value in parsed.params.items() if key not in own}
                    )
                if name == "bench":
                    recipe = parsed.params["recipe"]
                    load_recipe(
                        str(ROOT / recipe) if (ROOT / recipe).is_file() else recipe,
                        parsed.params["set_"],
                    )


def test_the_table_of_settings_is_the_papers_command_and_the_defaults():
    page = ROOT / "docs" / "method.md"
    name, *arguments = commands(page)[0]
    group = typer.main.get_command(app)
    with group.make_context("palam", ["info"]) as context:
        command = group.get_command(context, name)
        paper = command.make_context(name, arguments, parent=context).params
    defaults = {one.name: one.default for one in fields(TrainConfig)}
    rows = re.findall(
        r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", prose(page).split("| setting |")[1], re.MULTILINE
    )
    assert len(rows) > 10
    for setting, in_paper, default in rows:
        for shown, value in ((in_paper, paper[setting]), (default, defaults[setting])):
            if value is None:
                assert shown.startswith("not set")
            else:
                assert type(value)(shown) == value, setting


@page_by_page
def test_options_in_the_text_exist(page):
    group = typer.main.get_command(app)
    known = {"--help"} | {
        o for c in group.commands.values() for p in c.params for o in [*p.opts, *p.secondary_opts]
    }
    named = re.findall(r"`(?:palam [^`]*?)?(--[a-z][a-z0-9-]*)", prose(page))
    assert set(named) <= known


@page_by_page
def test_links_lead_somewhere(page):
    text = prose(page)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(
        r'(?:src|srcset|href)="([^"]+)"', text
    )
    for target in targets:
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert ROOT in [there, *there.parents], target
        if anchor:
            assert anchor in slugs(there), target


@pytest.mark.parametrize(
    "path", [*PAGES, ROOT / ".ci" / "run", ROOT / "docs" / "architecture.svg"], ids=lambda p: p.name
)
def test_no_registry_hosts_or_absolute_paths(path):
    assert FORBIDDEN.findall(path.read_text(encoding="utf-8")) == []


@page_by_page
def test_no_page_holds_a_doctest(page):
    """They would run without the tiny models."""
    assert ">>>" not in page.read_text(encoding="utf-8")


def test_the_guides_error_messages_are_the_programs():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    table = (
        (ROOT / "docs" / "guide.md").read_text(encoding="utf-8").split("| the line contains |")[1]
    )
    quoted = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(quoted) > 10
    assert [message for message in quoted if message not in source] == []


def test_the_picture_stands_alone():
    tree = ET.parse(ROOT / "docs" / "architecture.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    assert tree.find(f"{name}title").text.strip()
    assert tree.find(f"{name}desc").text.strip()
    assert not [
        e for e in tree.iter() if e.tag in (f"{name}image", f"{name}script", f"{name}foreignObject")
    ]


def apply(diff, root):
    """Apply a page's diff: each hunk's old lines stand in the file exactly once."""
    head, *hunks = re.split(r"^@@\n", diff, flags=re.MULTILINE)
    path = root / re.search(r"^\+\+\+ (.+)$", head, re.MULTILINE)[1]
    text = path.read_text(encoding="utf-8")
    for hunk in hunks:
        lines = hunk.splitlines()
        old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] != sign) for sign in "+-")
        assert text.count(old) == 1, f"{path.name}: {old}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def test_the_contributors_fusion_passes_the_tests(tmp_path):
    """The page's file and diffs, in a copy of the project, whose own tests and linter then judge them."""
    page = ROOT / "CONTRIBUTING.md"
    for name in ("src", "tests", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
            shutil.copytree(source, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(source, tmp_path / name)
    code = next(block for block in blocks(page, "python") if block.startswith("# src/"))
    heading, module = code.split("\n", 1)
    (tmp_path / heading.removeprefix("# ")).write_text(module, encoding="utf-8")
    for diff in blocks(page, "diff"):
        apply(diff, tmp_path)
    name = Path(heading).stem
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    tests = ("tests/fusion", "tests/test_bridge.py", "tests/test_checkpoint.py")
    shown = run("pytest", "-p", "no:cacheprovider", "-k", f"{name} or variants", *tests)
    assert int(re.search(r"(\d+) passed", shown)[1]) > 10, shown
    changed = ("src/palam/fusion", "tests/fusion")
    run("ruff", "check", "--no-cache", *changed)
    run("ruff", "format", "--no-cache", "--check", *changed)


def test_the_examples_in_docstrings_are_right():
    modules = [
        importlib.import_module(one.name) for one in pkgutil.walk_packages(palam.__path__, "palam.")
    ]
    results = [doctest.testmod(module) for module in modules]
    assert sum(one.attempted for one in results) > 0
    assert sum(one.failed for one in results) == 0
